"""Published H-Net checkpoints: converted whole, and refused with a reason when they are something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hilam_hf.models.hnet import HNetModel
from hilam_hf.models.hnet.convert_hnet import backbone_weights, convert_hnet, main
from tests.models.goldens import load_case
from tests.models.hnet.golden_cases import hnet_cases

CONFIG: dict[str, Any] = {
    "arch_layout": ["T1", ["t1"], "t1"],
    "d_model": [32, 48],
    "d_intermediate": [40, 0],
    "vocab_size": 256,
    "ssm_cfg": {"chunk_size": 256, "d_conv": 4, "d_state": 128, "expand": 2},
    "attn_cfg": {"num_heads": [2, 3], "rotary_emb_dim": [16, 16], "window_size": [7, -1]},
    "tie_embeddings": False,
}
FILES = {"checkpoint": "hnet.pt", "config": "hnet.json", "out": "out"}
# What the published code gives the layout above, by hand.
SHAPES: dict[str, tuple[int, ...]] = {
    "encoder.layers.0.norm1.weight": (32,),
    "encoder.layers.0.mixer.Wqkv.weight": (96, 32),
    "encoder.layers.0.mixer.out_proj.weight": (32, 32),
    "encoder.layers.0.norm2.weight": (32,),
    "encoder.layers.0.mlp.fc1.weight": (256, 32),
    "encoder.layers.0.mlp.fc2.weight": (32, 128),
    "encoder.rmsnorm.weight": (32,),
    "main_network.pad_dimension": (16,),
    "main_network.main_network.layers.0.norm1.weight": (48,),
    "main_network.main_network.layers.0.mixer.Wqkv.weight": (144, 48),
    "main_network.main_network.layers.0.mixer.out_proj.weight": (48, 48),
    "main_network.main_network.rmsnorm.weight": (48,),
    "decoder.layers.0.norm1.weight": (32,),
    "decoder.layers.0.mixer.Wqkv.weight": (96, 32),
    "decoder.layers.0.mixer.out_proj.weight": (32, 32),
    "decoder.rmsnorm.weight": (32,),
    "routing_module.q_proj_layer.weight": (32, 32),
    "routing_module.k_proj_layer.weight": (32, 32),
    "residual_proj.weight": (32, 32),
    "residual_proj.bias": (32,),
}


def backbone(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {name: torch.randn(shape).to(dtype) for name, shape in SHAPES.items()}


def published(weights: dict[str, Tensor], width: int = 32) -> dict[str, Tensor]:
    """The state dict of the language model around a backbone."""
    around = {"embeddings.weight": torch.randn(256, width), "lm_head.weight": torch.randn(256, width)}
    return around | {f"backbone.{name}": value for name, value in weights.items()}


def assert_weights(model: HNetModel, expected: dict[str, Tensor]) -> None:
    actual = model.state_dict()
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value.to(actual[name].dtype)), name


class Marker:
    """Unpickled as an object, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["published", "backbone", "legacy", "safetensors"])
def test_every_weight_arrives(form: str, tmp_path: Path) -> None:
    weights, file = backbone(), tmp_path / "hnet.pt"
    if form == "safetensors":
        file = tmp_path / "hnet.safetensors"
        save_file(published(weights), file)
    else:
        torch.save(
            weights if form == "backbone" else published(weights),
            file,
            _use_new_zipfile_serialization=form != "legacy",
        )
    (tmp_path / "hnet.json").write_text(json.dumps(CONFIG))
    model = convert_hnet(file, tmp_path / "hnet.json", tmp_path / "out")
    assert_weights(model, weights)
    loaded = HNetModel.from_pretrained(tmp_path / "out")
    assert_weights(loaded, weights)
    states = torch.randn(1, 9, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(states).last_hidden_state, loaded(states).last_hidden_state)


def test_the_dtype_is_kept(tmp_path: Path) -> None:
    weights = backbone(torch.bfloat16)
    for name in ("residual_proj.weight", "residual_proj.bias"):
        weights[name] = torch.randn(SHAPES[name])
    torch.save(published(weights), tmp_path / "hnet.pt")
    model = convert_hnet(tmp_path / "hnet.pt", CONFIG, tmp_path / "out")
    for loaded in (model, HNetModel.from_pretrained(tmp_path / "out")):
        assert loaded.dtype == torch.bfloat16
        assert loaded.encoder.layers[0].mlp.fc1.weight.dtype == torch.bfloat16
        assert torch.equal(loaded.residual_proj.weight, weights["residual_proj.weight"])
        assert_weights(loaded, weights)


@pytest.mark.parametrize("name", hnet_cases("backbone"))
def test_converted_models_give_the_published_numbers(name: str, tmp_path: Path) -> None:
    case, tensors = load_case(name, "hnet")
    weights = {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}
    torch.save(published(weights, case["config"]["d_model"][0]), tmp_path / "hnet.pt")
    (tmp_path / "hnet.json").write_text(json.dumps(case["config"]))
    assert main([f"--{key}={tmp_path / value}" for key, value in FILES.items()]) == 0
    model = HNetModel.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        output = model(tensors["in/packed/hidden_states"], cu_seqlens=tensors["in/packed/cu_seqlens"])
    torch.testing.assert_close(output.last_hidden_state, tensors["out/packed/hidden_states"], rtol=0, atol=1.5e-5)


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_are_refused_and_never_executed(zipped: bool, tmp_path: Path) -> None:
    marker, file = tmp_path / "executed", tmp_path / "hnet.pt"
    content = published(backbone()) | {"backbone.extra": Marker(marker)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"hnet\.pt: holds something else than tensors.*nothing of it was executed"):
        convert_hnet(file, CONFIG, tmp_path / "out")
    assert not marker.exists()
    assert not (tmp_path / "out").exists()
    torch.load(file, weights_only=False)
    assert marker.exists()


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.pt: no such file"):
        convert_hnet(tmp_path / "absent.pt", CONFIG, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"absent\.json: no such file"):
        convert_hnet(tmp_path / "absent.pt", tmp_path / "absent.json", tmp_path / "out")


def test_keys_and_shapes_must_fit(tmp_path: Path) -> None:
    weights = backbone()
    del weights["residual_proj.bias"]
    weights["encoder.layers.1.norm1.weight"] = torch.ones(32)
    weights["decoder.rmsnorm.weight"] = torch.ones(31)
    weights["encoder.rmsnorm.weight"] = torch.ones(32, dtype=torch.int8)
    torch.save(published(weights), tmp_path / "hnet.pt")
    with pytest.raises(ValueError) as caught:
        convert_hnet(tmp_path / "hnet.pt", CONFIG, tmp_path / "out")
    for part in (
        "1 missing: residual_proj.bias",
        "1 unexpected: encoder.layers.1.norm1.weight",
        "1 of another shape: decoder.rmsnorm.weight (31,) instead of (32,)",
        "1 of integers: encoder.rmsnorm.weight",
        "Give the configuration that was published with it",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save({"transformer.h.0.attn.c_attn.weight": torch.zeros(3, 3)}, tmp_path / "gpt.pt")
    with pytest.raises(ValueError, match=r"20 missing: encoder\.layers.*; 1 unexpected: transformer\.h"):
        convert_hnet(tmp_path / "gpt.pt", CONFIG, tmp_path / "out")


def test_only_embedding_and_head_are_left_out() -> None:
    weights, left_out = backbone_weights(published({"encoder.rmsnorm.weight": torch.ones(2)}))
    assert list(weights) == ["encoder.rmsnorm.weight"]
    assert left_out == ["embeddings.weight", "lm_head.weight"]
    with pytest.raises(ValueError, match=r"unknown keys value_head\.weight"):
        backbone_weights(published(backbone()) | {"value_head.weight": torch.zeros(2)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"hnet\.json: could not be read as JSON"),
        ("[]", r"hnet\.json: .*expected the published configuration"),
        (json.dumps({**CONFIG, "attn_cfg": {"num_heads": [2, 3]}}), "'rotary_emb_dim' is missing"),
        (json.dumps({**CONFIG, "d_model": [32]}), "got 1 entries"),
        (json.dumps({**CONFIG, "arch_layout": ["M1", ["t1"], "t1"], "ssm_cfg": {"d_stat": 1}}), "unknown keys"),
    ],
)
def test_bad_configurations_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "hnet.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        convert_hnet(tmp_path / "hnet.pt", tmp_path / "hnet.json", tmp_path / "out")


def test_the_command_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    arguments = [f"--{key}={tmp_path / value}" for key, value in FILES.items()]
    assert main(arguments) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'hnet.json'}: no such file. Download it first.\n"
    torch.save(published(backbone()), tmp_path / "hnet.pt")
    (tmp_path / "hnet.json").write_text(json.dumps(CONFIG))
    assert main(arguments) == 0
    assert "parameters, torch.float32" in capsys.readouterr().out
    assert "left out: embeddings.weight, lm_head.weight" in caplog.messages
