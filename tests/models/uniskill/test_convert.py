"""Published UniSkill files: converted whole, and refused with a reason when they are something else."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoImageProcessor

from hilam_hf.models.latent_actions.auto import AutoForwardDynamicsModel, AutoInverseDynamicsModel
from hilam_hf.models.uniskill.configuration_uniskill import UniSkillIDMConfig
from hilam_hf.models.uniskill.convert_uniskill import convert_uniskill, main, rename_idm
from hilam_hf.models.uniskill.modeling_uniskill_fdm import UniSkillFDM
from hilam_hf.models.uniskill.modeling_uniskill_idm import UniSkillIDM
from tests.models.goldens import golden_folder, published_shapes
from tests.models.mixins import architecture_of

LATENT, CONDITION = 6, 12
UNET: dict[str, Any] = {
    "sample_size": 4,
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": CONDITION,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}
VAE: dict[str, Any] = {
    "latent_channels": 4,
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
}
SCHEDULER: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def tensor_of(name: str, shape: list[int], dtype: str) -> Tensor:
    if dtype == "int64":
        return torch.tensor(7)
    # Variances are positive.
    return torch.rand(shape) + 0.5 if name.endswith("running_var") else torch.randn(shape) / math.sqrt(shape[-1])


def published(width: int = 16, layers: int = 2, side: int = 2) -> dict[str, Tensor]:
    """The published layout with a narrow, shallow transformer on frames of `16 * side` pixels."""
    sizes = {256: width, 768: 3 * width, 1024: 4 * width, 64: LATENT, 196: side**2}
    weights = {}
    for name, entry in published_shapes("skill_proj.bias").items():
        shape = list(entry["shape"])
        if name.startswith("transformer.layers.") and int(name.split(".")[2]) >= layers:
            continue
        if name.startswith("depth_proj.1") or name.startswith("visual_encoder"):
            pass
        elif name.startswith("modal_proj.0"):
            shape = [512 + width]
        elif name == "modal_proj.1.weight":
            shape = [width, 512 + width]
        elif name == "depth_proj.2.weight":
            shape = [width, 256]
        elif name.startswith("latent_proj"):
            shape = [CONDITION, LATENT][: len(shape)]
        else:
            shape = [sizes.get(length, length) for length in shape]
        weights[name] = tensor_of(name, shape, entry["dtype"])
    return weights


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return published()


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published `unet` folder and a `base` pipeline with another UNet."""
    folder = tmp_path_factory.mktemp("diffusion")
    torch.manual_seed(1)
    UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    AutoencoderKL(**VAE).save_pretrained(folder / "base" / "vae")
    DDPMScheduler(**SCHEDULER).save_pretrained(folder / "base" / "scheduler")
    return folder


@pytest.fixture
def checkpoint(weights: dict[str, Tensor], tmp_path: Path) -> Path:
    torch.save(weights, tmp_path / "idm.pth")
    return tmp_path / "idm.pth"


def convert(checkpoint: Path, out: Path, **options: Any) -> Any:
    return convert_uniskill(checkpoint, out, num_attention_heads=2, fdm_image_size=8, **options)


def test_the_published_layout_is_the_default_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = {name: tensor_of(name, **entry) for name, entry in published_shapes("skill_proj.bias").items()}
    torch.save(weights, tmp_path / "idm.pth")
    idm, fdm = convert_uniskill(tmp_path / "idm.pth", tmp_path / "out")
    assert fdm is None
    assert architecture_of(idm.config.to_dict()) == architecture_of(UniSkillIDMConfig().to_dict())
    names = json.loads((golden_folder() / "names_resnet18_uniskill_to_transformers.json").read_text())["names"]
    state = idm.state_dict()
    for published_name, ours in names.items():
        assert torch.equal(state[f"backbone.{ours}"], weights[published_name]), published_name


def test_every_weight_arrives_in_folders_that_load(
    weights: dict[str, Tensor], checkpoint: Path, diffusion: Path, tmp_path: Path
) -> None:
    convert(checkpoint, tmp_path / "out", unet=diffusion / "unet", base=diffusion / "base")
    idm = AutoInverseDynamicsModel.from_pretrained(tmp_path / "out" / "idm")
    fdm = AutoForwardDynamicsModel.from_pretrained(tmp_path / "out" / "fdm")
    assert (type(idm), type(fdm)) == (UniSkillIDM, UniSkillFDM)
    assert (idm.config.image_size, idm.config.hidden_size, idm.config.num_hidden_layers) == (32, 16, 2)
    assert (idm.config.latent_dim, fdm.config.latent_dim, fdm.config.condition_dim) == (LATENT, LATENT, CONDITION)
    assert fdm.config.scheduler_config["beta_end"] == 0.012
    ours, condition = rename_idm(weights)
    assert len(ours) + len(condition) == len(weights)
    for model, expected in ((idm, ours), (fdm, condition)):
        state = model.state_dict()
        assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert ours.keys() == idm.state_dict().keys()
    unet = load_file(diffusion / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(fdm.unet.state_dict()[name], value) for name, value in unet.items())
    vae = load_file(diffusion / "base" / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(fdm.vae.state_dict()[name], value) for name, value in vae.items())
    assert not any(parameter.requires_grad for parameter in fdm.vae.parameters())
    for model, side in (("idm", 32), ("fdm", fdm.config.image_size)):
        size = AutoImageProcessor.from_pretrained(tmp_path / "out" / model).size
        assert (size["height"], size["width"]) == (side, side)
    assert not (tmp_path / "out" / "condition.safetensors").exists()


def test_without_a_unet_the_projection_to_its_condition_is_kept(
    weights: dict[str, Tensor], checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    _, fdm = convert(checkpoint, tmp_path / "out")
    assert fdm is None
    kept = load_file(tmp_path / "out" / "condition.safetensors")
    # Readable as other files are, and not by its owner alone.
    (tmp_path / "new").touch()
    assert (tmp_path / "out" / "condition.safetensors").stat().st_mode == (tmp_path / "new").stat().st_mode
    _, condition = rename_idm(weights)
    assert kept.keys() == condition.keys()
    assert all(torch.equal(kept[name], condition[name]) for name in kept)
    assert "latent_norm and latent_proj" in caplog.text


def test_a_unet_in_a_bin_file_is_read_too(checkpoint: Path, diffusion: Path, tmp_path: Path) -> None:
    unet = tmp_path / "unet"
    unet.mkdir()
    shutil.copy(diffusion / "unet" / "config.json", unet)
    torch.save(
        load_file(diffusion / "unet" / "diffusion_pytorch_model.safetensors"), unet / "diffusion_pytorch_model.bin"
    )
    _, expected = convert(checkpoint, tmp_path / "a", unet=diffusion / "unet", base=diffusion / "base")
    _, fdm = convert(checkpoint, tmp_path / "b", unet=unet, base=diffusion / "base")
    assert all(torch.equal(fdm.state_dict()[name], value) for name, value in expected.state_dict().items())


def test_the_dtype_is_kept(weights: dict[str, Tensor], tmp_path: Path) -> None:
    half = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    torch.save(half, tmp_path / "idm.pth")
    idm, _ = convert(tmp_path / "idm.pth", tmp_path / "out")
    assert idm.dtype == torch.float16
    loaded = UniSkillIDM.from_pretrained(tmp_path / "out" / "idm")
    assert torch.equal(loaded.proj.weight, half["proj.weight"])
    assert loaded.backbone.embedder.embedder.normalization.num_batches_tracked == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proj.weight": None}, r"'proj\.weight' is missing"),
        ({"skill_norm.bias": None}, r"1 missing: norm\.bias"),
        ({"visual_encoder.6.1.bn1.running_mean": None}, r"1 missing: backbone\.encoder\.stages\.2\.layers\.1"),
        ({"latent_proj.bias": None}, r"1 missing: condition_proj\.bias"),
        ({"fc.weight": (2, 2)}, r"1 unknown keys \(fc\.weight\)"),
        ({"visual_encoder.8.0.conv1.weight": (2, 2)}, "1 unknown keys"),
        ({"visual_encoder.4.2.conv1.weight": (2, 2)}, r"1 unexpected: backbone\.encoder\.stages\.0\.layers\.2"),
        ({"skill_norm.bias": (3,)}, r"norm\.bias \(3,\) instead of \(16,\)"),
        ({"pos_embed_spatial": (4, 16)}, "of another form"),
        ({"pos_embed_spatial": (1, 1, 5, 16)}, r"spatial_positions \(1, 1, 5, 16\) instead of \(1, 1, 4, 16\)"),
        ({"transformer.layers.0.mlp.fc1.weight": (5, 16)}, "mlp_ratio: got 0"),
        ({"latent_proj.weight": (CONDITION, 3)}, r"condition_proj\.weight \(12, 3\) instead of \(12, 6\)"),
    ],
)
def test_names_and_shapes_must_be_uniskills(
    change: dict[str, Any], message: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    changed = dict(weights)
    for name, shape in change.items():
        changed.pop(name, None)
        if shape is not None:
            changed[name] = torch.zeros(shape)
    torch.save(changed, tmp_path / "idm.pth")
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "idm.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_integers_are_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(weights | {"skill_norm.bias": torch.zeros(16, dtype=torch.int8)}, tmp_path / "idm.pth")
    with pytest.raises(ValueError, match=r"1 of integers: norm\.bias"):
        convert(tmp_path / "idm.pth", tmp_path / "out")


class Marker:
    """Unpickled as an object, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("which", ["idm", "unet"])
def test_objects_are_refused_and_never_executed(
    which: str, weights: dict[str, Tensor], checkpoint: Path, diffusion: Path, tmp_path: Path
) -> None:
    marker, unet = tmp_path / "executed", tmp_path / "unet"
    shutil.copytree(diffusion / "unet", unet)
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"conv_in.weight": Marker(marker)}, unet / "diffusion_pytorch_model.bin")
    if which == "idm":
        torch.save(weights | {"extra": Marker(marker)}, checkpoint)
    with pytest.raises(ValueError, match=r"holds something else than tensors.*nothing of it was executed"):
        convert(checkpoint, tmp_path / "out", unet=unet, base=diffusion / "base")
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_other_files_are_refused(checkpoint: Path, diffusion: Path, tmp_path: Path) -> None:
    out, base = tmp_path / "out", diffusion / "base"
    whole = checkpoint.read_bytes()
    with pytest.raises(FileNotFoundError, match=r"absent\.pth: no such file"):
        convert(tmp_path / "absent.pth", out)
    with pytest.raises(ValueError, match="expected both or none"):
        convert(checkpoint, out, unet=diffusion / "unet")
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
        convert(checkpoint, out, unet=tmp_path, base=base)
    with pytest.raises(OSError, match="absent-base"):
        convert(checkpoint, out, unet=diffusion / "unet", base=tmp_path / "absent-base")
    (tmp_path / "config.json").write_text((diffusion / "unet" / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match="got neither of diffusion_pytorch_model"):
        convert(checkpoint, out, unet=tmp_path, base=base)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: no configuration in JSON"):
        convert(checkpoint, out, unet=tmp_path, base=base)
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"idm\.pth: damaged|is no checkpoint"):
        convert(checkpoint, out)
    torch.save({"transformer.h.0.attn.c_attn.weight": torch.zeros(3, 3)}, checkpoint)
    with pytest.raises(ValueError, match=r"1 unknown keys \(transformer\.h\.0.*Give UniSkill's published idm\.pth"):
        convert(checkpoint, out)
    assert not out.exists()


def test_a_unet_of_another_kind_is_refused(checkpoint: Path, diffusion: Path, tmp_path: Path) -> None:
    for name, changes, message in (
        ("text", {"in_channels": 4}, "in_channels 4 and out_channels 4"),
        ("wide", {"cross_attention_dim": 20}, r"condition_proj\.weight \(12, 6\) instead of \(20, 6\)"),
    ):
        UNet2DConditionModel(**UNET | changes).save_pretrained(tmp_path / name)
        with pytest.raises(ValueError, match=message):
            convert(checkpoint, tmp_path / "out", unet=tmp_path / name, base=diffusion / "base")
    shutil.copy(diffusion / "unet" / "config.json", tmp_path / "wide")
    with pytest.raises(ValueError, match=r"of another shape: unet\."):
        convert(checkpoint, tmp_path / "out", unet=tmp_path / "wide", base=diffusion / "base")
    assert not (tmp_path / "out").exists()


def test_heads_that_do_not_fit_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple of num_attention_heads"):
        convert_uniskill(checkpoint, tmp_path / "out", num_attention_heads=3)


def test_the_command_ends_in_one_line_a_model(
    checkpoint: Path, diffusion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--heads", "2", "--fdm-image-size", "8", "--depth-model", "my/depth"]
    assert main(["--checkpoint", str(tmp_path / "absent.pth"), *arguments]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'absent.pth'}: no such file. Download it first.\n"
    arguments += ["--unet", str(diffusion / "unet"), "--base", str(diffusion / "base")]
    assert main(["--checkpoint", str(checkpoint), *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [str(out / "idm"), str(out / "fdm")]
    assert all("M parameters, torch.float32" in line for line in lines)
    assert UniSkillIDM.from_pretrained(out / "idm").config.depth_model == "my/depth"
