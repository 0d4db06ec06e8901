"""LAPA's published checkpoints: converted whole, and refused with a reason when they are something else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoImageProcessor

from hilam_hf.models.lapa import LapaModel
from hilam_hf.models.lapa.convert_lapa import config_of, convert_lapa, main, rename_published
from tests.models.goldens import published_shapes

WIDTH, INNER, HEADS, HEAD_DIM, CODE_DIM, ENTRIES, PATCH = 24, 64, 3, 4, 5, 7, 4
SIZES = {"image_size": 32, "num_codes": 4}


def layer_shapes(prefix: str, has_context: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What the published code gives a layer of this width."""
    yield f"{prefix}.0.dsconv.weight", (WIDTH, 1, 3, 3, 3)
    yield f"{prefix}.0.dsconv.bias", (WIDTH,)
    for index, null_rows in ((1, 0), (2, 4)) if has_context else ((1, 0),):
        for name in ("norm.gamma", "norm.beta", "context_norm.gamma", "context_norm.beta"):
            yield f"{prefix}.{index}.{name}", (WIDTH,)
        yield f"{prefix}.{index}.null_kv", (HEADS, null_rows, HEAD_DIM)
        yield f"{prefix}.{index}.q_scale", (HEAD_DIM,)
        yield f"{prefix}.{index}.k_scale", (HEAD_DIM,)
        yield f"{prefix}.{index}.to_q.weight", (HEADS * HEAD_DIM, WIDTH)
        yield f"{prefix}.{index}.to_kv.weight", (2 * HEADS * HEAD_DIM, WIDTH)
        yield f"{prefix}.{index}.to_out.weight", (WIDTH, HEADS * HEAD_DIM)
    yield f"{prefix}.3.0.weight", (WIDTH,)
    yield f"{prefix}.3.0.bias", (WIDTH,)
    yield f"{prefix}.3.1.weight", (2 * INNER, WIDTH)
    yield f"{prefix}.3.4.weight", (WIDTH, INNER)


def shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "spatial_rel_pos_bias.net.0.0.weight": (WIDTH, 2),
        "spatial_rel_pos_bias.net.0.0.bias": (WIDTH,),
        "spatial_rel_pos_bias.net.1.0.weight": (WIDTH, WIDTH),
        "spatial_rel_pos_bias.net.1.0.bias": (WIDTH,),
        "spatial_rel_pos_bias.net.2.weight": (HEADS, WIDTH),
        "spatial_rel_pos_bias.net.2.bias": (HEADS,),
        "to_patch_emb_first_frame.1.weight": (3 * PATCH**2,),
        "to_patch_emb_first_frame.1.bias": (3 * PATCH**2,),
        "to_patch_emb_first_frame.2.weight": (WIDTH, 3 * PATCH**2),
        "to_patch_emb_first_frame.2.bias": (WIDTH,),
        "to_patch_emb_first_frame.3.weight": (WIDTH,),
        "to_patch_emb_first_frame.3.bias": (WIDTH,),
        "vq.codebooks": (ENTRIES, CODE_DIM),
        "vq.project_in.weight": (CODE_DIM, WIDTH),
        "vq.project_in.bias": (CODE_DIM,),
        "vq.project_out.weight": (WIDTH, CODE_DIM),
        "vq.project_out.bias": (WIDTH,),
        "to_pixels_first_frame.0.weight": (3 * PATCH**2, WIDTH),
        "to_pixels_first_frame.0.bias": (3 * PATCH**2,),
    }
    for index in (0, 2):
        found[f"vq.cnn_encoder.{index}.weight"] = (CODE_DIM, CODE_DIM, 3, 3)
        found[f"vq.cnn_encoder.{index}.bias"] = (CODE_DIM,)
    for stack, depth in (("enc_spatial", 2), ("enc_temporal", 1), ("dec_spatial", 2)):
        for name in ("gamma", "beta"):
            found[f"{stack}_transformer.norm_out.{name}"] = (WIDTH,)
        for index in range(depth):
            found.update(layer_shapes(f"{stack}_transformer.layers.{index}", stack == "dec_spatial"))
    return found


def published(prefix: str = "", dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        prefix + name: torch.zeros(shape) if name.endswith(".beta") else torch.randn(shape).to(dtype)
        for name, shape in shapes().items()
    }


def saved(weights: dict[str, Any], folder: Path) -> Path:
    torch.save(weights, folder / "laq.pt")
    return folder / "laq.pt"


@pytest.mark.parametrize("form", ["plain", "module", "legacy", "safetensors"])
def test_every_weight_arrives(form: str, tmp_path: Path) -> None:
    weights = published("module." if form == "module" else "")
    file = tmp_path / f"laq.{'safetensors' if form == 'safetensors' else 'pt'}"
    if form == "safetensors":
        save_file(weights, file)
    else:
        torch.save(weights, file, _use_new_zipfile_serialization=form != "legacy")
    model = convert_lapa(file, tmp_path / "out", **SIZES).eval()
    left_out = [
        name for name in shapes() if name.endswith((".beta", ".1.context_norm.gamma", ".1.null_kv"))
    ]  # 3 per norm-out, then 4 a layer, and 2 more for each cross-attention
    assert len(left_out) == 3 + 5 * 4 + 2 * 2
    state = model.state_dict()
    assert len(state) == len(weights) - len(left_out) + 1
    assert not state.pop("quantizer.codebook_usage").any()
    numbers = sorted(
        float(value.sum()) for name, value in weights.items() if name.removeprefix("module.") not in left_out
    )
    assert sorted(float(value.sum()) for value in state.values()) == numbers
    assert torch.equal(model.codebook, published()["vq.codebooks"])
    null_pairs = model.decoder.layers[1].cross_attention.null_pairs
    assert torch.equal(null_pairs, published()["dec_spatial_transformer.layers.1.2.null_kv"])

    loaded = LapaModel.from_pretrained(tmp_path / "out")
    frames, next_frames = torch.rand(2, 2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(frames, next_frames).predictions, loaded(frames, next_frames).predictions)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    assert processor(torch.zeros(3, 8, 9, dtype=torch.uint8), return_tensors="pt")["pixel_values"].shape[2:] == (32, 32)


def test_sizes_are_read_off_the_weights() -> None:
    config = config_of(rename_published(published()), **SIZES)
    expected = {
        "image_size": 32,
        "patch_size": PATCH,
        "hidden_size": WIDTH,
        "num_spatial_layers": 2,
        "num_temporal_layers": 1,
        "num_attention_heads": HEADS,
        "head_dim": HEAD_DIM,
        "num_codes": 4,
        "codebook_size": ENTRIES,
        "quant_dim": CODE_DIM,
    }
    assert {name: getattr(config, name) for name in expected} == expected


def test_the_published_names_and_shapes_fit_the_defaults() -> None:
    keys = published_shapes("vq.codebooks")
    with torch.device("meta"):
        weights = rename_published(
            {f"module.{name}": torch.zeros(entry["shape"]) for name, entry in keys.items() if "beta" not in name}
        )
        model = LapaModel(config_of(weights, image_size=256, num_codes=4))
    expected = {name: value.shape for name, value in model.state_dict().items() if name != "quantizer.codebook_usage"}
    assert {name: value.shape for name, value in weights.items()} == expected
    defaults = type(model.config)()
    assert {key: value for key, value in model.config.to_dict().items() if value != defaults.to_dict()[key]} == {}


def test_the_dtype_is_kept(tmp_path: Path) -> None:
    model = convert_lapa(saved(published(dtype=torch.bfloat16), tmp_path), tmp_path / "out", **SIZES)
    assert model.dtype == LapaModel.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


class Marker:
    """Unpickled as an object, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_objects_are_refused_and_never_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    file = saved(published() | {"extra": Marker(marker)}, tmp_path)
    with pytest.raises(ValueError, match=r"laq\.pt: holds something else than tensors.*nothing of it was executed"):
        convert_lapa(file, tmp_path / "out", **SIZES)
    assert not marker.exists()
    assert not (tmp_path / "out").exists()
    torch.load(file, weights_only=False)
    assert marker.exists()


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    file = saved(published(), tmp_path)
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"laq\.pt: "):
        convert_lapa(file, tmp_path / "out", **SIZES)
    with pytest.raises(FileNotFoundError, match=r"absent\.pt: no such file"):
        convert_lapa(tmp_path / "absent.pt", tmp_path / "out")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    keys = published_shapes("skill_proj.bias")
    weights = {name: torch.zeros(1) for name in keys}
    with pytest.raises(ValueError, match=rf"got {len(weights)} unknown names \(.*expected those of LAPA's"):
        convert_lapa(saved(weights, tmp_path), tmp_path / "out")


def test_names_must_be_complete(tmp_path: Path) -> None:
    weights = published()
    del weights["dec_spatial_transformer.layers.1.2.null_kv"], weights["vq.project_out.bias"]
    with pytest.raises(ValueError) as caught:
        convert_lapa(saved(weights, tmp_path), tmp_path / "out", **SIZES)
    assert "2 missing: quantizer.project_out.bias, decoder.layers.1.cross_attention.null_pairs" in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"quantizer\.codebook: got no such weight, expected a tensor with 2 axes"):
        convert_lapa(saved({"vq.project_in.bias": torch.zeros(5)}, tmp_path), tmp_path / "out")
    with pytest.raises(ValueError, match=r"got 1 unknown names \(vq\.ema_count\)"):
        convert_lapa(saved(published() | {"vq.ema_count": torch.zeros(2)}, tmp_path), tmp_path / "out", **SIZES)
    with pytest.raises(ValueError, match=r"unknown names \(module\.vq\.codebooks\)"):
        mixed = published() | {"module.vq.codebooks": torch.zeros(ENTRIES, CODE_DIM)}
        convert_lapa(saved(mixed, tmp_path), tmp_path / "out", **SIZES)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vq.project_in.bias", torch.zeros(6), r"1 of another shape: quantizer\.project_in\.bias \(6,\) instead of"),
        ("vq.codebooks", torch.zeros(ENTRIES), r"quantizer\.codebook: got \(7,\), expected a tensor with 2 axes"),
        ("to_patch_emb_first_frame.1.weight", torch.zeros(50), "patches of 50 numbers, expected 3 times a square"),
        ("to_patch_emb_first_frame.1.weight", torch.zeros(75), "image_size: got 32, expected a multiple of .* 5"),
        ("vq.codebooks", torch.zeros(ENTRIES, CODE_DIM, dtype=torch.int8), r"1 of integers: quantizer\.codebook"),
        (
            "enc_spatial_transformer.norm_out.beta",
            torch.ones(WIDTH),
            r"norm_out\.beta: got other values, expected zeros",
        ),
        (
            "enc_temporal_transformer.layers.0.1.null_kv",
            torch.ones(HEADS, 4, HEAD_DIM),
            "null_kv: got other values, expected an empty",
        ),
    ],
)
def test_shapes_must_fit(name: str, value: Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        convert_lapa(saved(published() | {name: value}, tmp_path), tmp_path / "out", **SIZES)


def test_wrong_options_say_what_to_give(tmp_path: Path) -> None:
    file = saved(published(), tmp_path)
    with pytest.raises(ValueError, match=r"reducer\.2\.weight .*\(5, 5, 4, 4\).*Give .* image_size and num_codes"):
        convert_lapa(file, tmp_path / "out", image_size=32, num_codes=1)
    with pytest.raises(ValueError, match=r"(?s)patches of 4 px: .*num_codes: got 11"):
        convert_lapa(file, tmp_path / "out", image_size=32, num_codes=11)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved(published(), tmp_path)
    options = [f"--checkpoint={file}", f"--out={tmp_path / 'out'}"]
    assert main([*options, "--image-size=32"]) == 0
    assert f"{tmp_path / 'out'}: 0.0 M parameters, torch.float32" in capsys.readouterr().out
    assert LapaModel.from_pretrained(tmp_path / "out").config.num_codes == 4
    assert main([*options, "--image-size=33"]) == 1
    assert "error: checkpoint with patches of 4 px" in capsys.readouterr().err
