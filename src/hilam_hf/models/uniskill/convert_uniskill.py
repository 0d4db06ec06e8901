"""Published UniSkill files into `from_pretrained` folders; `python -m hilam_hf.models.uniskill.convert_uniskill -h`.

UniSkill publishes its inverse dynamics model as `idm.pth` and its forward dynamics model as a folder `unet/` of
diffusers, which works with the autoencoder and the noise schedule of InstructPix2Pix. The projection of the latent
action to the UNet's condition lies in `idm.pth`; here it belongs to the forward dynamics model. Nothing that a file
holds besides tensors is ever executed.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from torch import Tensor

from ...files import permit_by_umask
from ...fingerprint import weights_fingerprint
from ..published import check_weights, existing_file, listed, read_checkpoint, rename, size_line
from .configuration_uniskill import DEPTH_MODEL, UniSkillFDMConfig, UniSkillIDMConfig
from .modeling_uniskill_fdm import UniSkillFDM, load_part
from .modeling_uniskill_idm import UniSkillIDM

PUBLISHED_HEADS = 4
"""Attention heads of the published model: the one size that no weight's shape tells."""
CONDITION_FILE = "condition.safetensors"
"""Where the projection to the UNet's condition is kept when there is no UNet to join."""

_CONDITION = "condition_"
_REMEDY = "Give UniSkill's published idm.pth."
_UNET_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_BLOCK = r"transformer\.layers\.(\d+)"
_ATTENTION = rf"{_BLOCK}\.(spatial|temporal)_attn\.multihead_attn"
_LAYER = r"backbone.encoder.stages.{stage}.layers.\1"
_RENAMES = [
    (r"pos_embed_(spatial|temporal)", r"\1_positions"),
    (r"depth_proj\.1\.(\w+)", r"depth_embedding.0.\1"),
    (r"depth_proj\.2\.(\w+)", r"depth_embedding.1.\1"),
    (r"depth_proj\.3\.(\w+)", r"depth_embedding.2.\1"),
    (r"modal_proj\.([012])\.(\w+)", r"fusion.\1.\2"),
    (rf"{_BLOCK}\.norm([123])\.(\w+)", r"blocks.\1.norm\2.\3"),
    # Rows of the joint projection are queries, keys and values, here as there.
    (rf"{_ATTENTION}\.in_proj_(\w+)", r"blocks.\1.\2_attention.in_proj.\3"),
    (rf"{_ATTENTION}\.out_proj\.(\w+)", r"blocks.\1.\2_attention.out_proj.\3"),
    (rf"{_BLOCK}\.mlp\.fc1\.(\w+)", r"blocks.\1.mlp.0.\2"),
    (rf"{_BLOCK}\.mlp\.fc2\.(\w+)", r"blocks.\1.mlp.2.\2"),
    (r"proj\.(\w+)", r"proj.\1"),
    (r"skill_norm\.(\w+)", r"norm.\1"),
    (r"skill_proj\.(\w+)", r"latent_proj.\1"),
    (r"latent_(norm|proj)\.(\w+)", rf"{_CONDITION}\1.\2"),
    (r"visual_encoder\.0\.weight", r"backbone.embedder.embedder.convolution.weight"),
    (rf"visual_encoder\.1\.{_NORM}", r"backbone.embedder.embedder.normalization.\1"),
]
# The four stages of a ResNet are entries 4 to 7 of a sequence, after the stem's four.
for _stage in range(4):
    _published, _ours = rf"visual_encoder\.{_stage + 4}\.(\d+)", _LAYER.format(stage=_stage)
    _RENAMES += [
        (rf"{_published}\.conv1\.weight", rf"{_ours}.layer.0.convolution.weight"),
        (rf"{_published}\.conv2\.weight", rf"{_ours}.layer.1.convolution.weight"),
        (rf"{_published}\.bn1\.{_NORM}", rf"{_ours}.layer.0.normalization.\2"),
        (rf"{_published}\.bn2\.{_NORM}", rf"{_ours}.layer.1.normalization.\2"),
        (rf"{_published}\.downsample\.0\.weight", rf"{_ours}.shortcut.convolution.weight"),
        (rf"{_published}\.downsample\.1\.{_NORM}", rf"{_ours}.shortcut.normalization.\2"),
    ]
_LOGGER = logging.getLogger(__name__)


def convert_uniskill(
    checkpoint: str | Path,
    output_dir: str | Path,
    *,
    unet: str | Path | None = None,
    base: str | Path | None = None,
    depth_model: str = DEPTH_MODEL,
    num_attention_heads: int = PUBLISHED_HEADS,
    fdm_image_size: int = 256,
) -> tuple[UniSkillIDM, UniSkillFDM | None]:
    """Converts published files and saves the models as `output_dir/idm` and, with a UNet, `output_dir/fdm`.

    Without a UNet, the projection to its condition is kept in `output_dir/condition.safetensors`.

    Args:
        checkpoint: The published `idm.pth`.
        output_dir: Folder to write to.
        unet: The published folder `unet/`, with `config.json` and one file of weights.
        base: Hub id or folder of InstructPix2Pix, whose `vae` and `scheduler` are read; needed with `unet`.
        depth_model: Hub id or folder of the depth network, to be loaded when the model is used.
        num_attention_heads: Attention heads of the inverse dynamics model.
        fdm_image_size: Side in pixels of the forward dynamics model's frames.

    Returns:
        The inverse dynamics model, and the forward dynamics model or None, in the dtype of their checkpoints.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If `base` can't be had.
        ValueError: If a file can't be read, holds anything but tensors, or its keys or shapes are not UniSkill's.

    Example:
        >>> convert_uniskill("idm.pth", "uniskill", unet="unet", base="timbrooks/instruct-pix2pix")  # doctest: +SKIP
    """
    if (unet is None) != (base is None):
        raise ValueError(
            f"unet and base: got {unet} and {base}, expected both or none, as the published UNet works with the "
            "autoencoder of its base. Give both."
        )
    output_dir = Path(output_dir)
    weights, condition = rename_idm(read_checkpoint(checkpoint, "UniSkill's inverse dynamics model"))
    config = infer_idm_config(weights, num_attention_heads=num_attention_heads, depth_model=depth_model)
    idm = _load(UniSkillIDM, config, weights, _REMEDY, dtype=weights["proj.weight"].dtype)
    # Everything is read and checked before anything is written.
    fdm = None
    if unet is not None and base is not None:
        fdm = _convert_fdm(Path(unet), str(base), condition, config.latent_dim, fdm_image_size)
    else:
        _check_condition(condition, config.latent_dim)

    idm.save_pretrained(output_dir / "idm")
    if fdm is not None:
        fdm.config.idm_fingerprint = weights_fingerprint(idm)
        fdm.save_pretrained(output_dir / "fdm")
    else:
        save_file({name: value.contiguous() for name, value in condition.items()}, output_dir / CONDITION_FILE)
        permit_by_umask(output_dir, CONDITION_FILE)
        _LOGGER.info("latent_norm and latent_proj, the forward dynamics model's, kept in %s", CONDITION_FILE)
    return idm, fdm


def rename_idm(published: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Published weights of `idm.pth` under our names.

    Returns:
        Those of [`UniSkillIDM`], and those of [`UniSkillFDM`]: the projection to the condition.

    Raises:
        ValueError: If there are other keys than UniSkill's.
    """
    renamed = {name: rename(name, _RENAMES) for name in published}
    unknown = [name for name, ours in renamed.items() if ours is None]
    if unknown:
        raise ValueError(f"checkpoint: got {len(unknown)} unknown keys ({listed(unknown)}). {_REMEDY}")
    weights = {ours: published[name] for name, ours in renamed.items() if ours is not None}
    condition = {name: weights.pop(name) for name in list(weights) if name.startswith(_CONDITION)}
    return weights, condition


def infer_idm_config(
    weights: Mapping[str, Tensor],
    *,
    num_attention_heads: int = PUBLISHED_HEADS,
    depth_model: str = DEPTH_MODEL,
) -> UniSkillIDMConfig:
    """The configuration that the shapes of renamed weights tell.

    Raises:
        ValueError: If the weights that tell it are missing or of another form, or the heads don't fit.
    """
    try:
        patch_size = math.isqrt(len(weights["depth_embedding.0.weight"]))
        hidden_size = len(weights["proj.weight"])
        return UniSkillIDMConfig(
            image_size=patch_size * math.isqrt(weights["spatial_positions"].shape[2]),
            patch_size=patch_size,
            hidden_size=hidden_size,
            num_hidden_layers=len({name.split(".")[1] for name in weights if name.startswith("blocks.")}),
            mlp_ratio=len(weights["blocks.0.mlp.0.weight"]) // hidden_size,
            latent_dim=len(weights["latent_proj.weight"]),
            num_attention_heads=num_attention_heads,
            depth_model=depth_model,
        )
    except (KeyError, IndexError, TypeError, ZeroDivisionError) as error:
        raise ValueError(
            f"checkpoint: {error} is missing or of another form, which tells the model's size. {_REMEDY}"
        ) from error
    except StrictDataclassError as error:
        raise ValueError(f"checkpoint: its shapes make no model: {error}") from error


def _convert_fdm(
    unet: Path, base: str, condition: Mapping[str, Tensor], latent_dim: int, image_size: int
) -> UniSkillFDM:
    from diffusers import AutoencoderKL

    unet_config = _read_unet_config(unet)
    unet_weights = read_checkpoint(_weights_file(unet), "UniSkill's UNet")
    config = _fdm_config(base, unet_config=unet_config, latent_dim=latent_dim, image_size=image_size)
    vae = load_part(AutoencoderKL, base, "vae")
    weights = {
        **condition,
        **{f"unet.{name}": value for name, value in unet_weights.items()},
        **{f"vae.{name}": value for name, value in vae.state_dict().items()},
    }
    remedy = f"Give idm.pth, {unet.name} and the base pipeline that belong together."
    return _load(UniSkillFDM, config, weights, remedy, dtype=next(iter(unet_weights.values())).dtype)


def _fdm_config(base: str, **changes: Any) -> UniSkillFDMConfig:
    try:
        return UniSkillFDMConfig.from_diffusers(base, **changes)
    except StrictDataclassError as error:
        raise ValueError(f"unet or base: {error}") from error


def _read_unet_config(unet: Path) -> dict[str, Any]:
    file = existing_file(unet / "config.json")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return {name: value for name, value in values.items() if name not in ("_diffusers_version", "_name_or_path")}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file}: no configuration in JSON ({error}). Download it again.") from error


def _weights_file(unet: Path) -> Path:
    for name in _UNET_FILES:
        if (unet / name).is_file():
            return unet / name
    raise FileNotFoundError(f"{unet}: got neither of {', '.join(_UNET_FILES)}. Download one of them.")


def _load(model_class: Any, config: Any, weights: dict[str, Tensor], remedy: str, dtype: torch.dtype) -> Any:
    """The model with exactly these weights."""
    with torch.device("meta"):
        expected = model_class(config).state_dict()
    check_weights(weights, expected, f"a {model_class.__name__} of their sizes", remedy)
    return model_class.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)


def _check_condition(condition: Mapping[str, Tensor], latent_dim: int) -> None:
    """Checks the projection to the condition, whose width there is no UNet to tell."""
    condition_dim = len(condition.get("condition_proj.bias", ()))
    shapes = {
        "condition_norm.weight": (latent_dim,),
        "condition_norm.bias": (latent_dim,),
        "condition_proj.weight": (condition_dim, latent_dim),
        "condition_proj.bias": (condition_dim,),
    }
    expected = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    check_weights(condition, expected, "UniSkill's latent_norm and latent_proj", _REMEDY)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hilam_hf.models.uniskill.convert_uniskill",
        description="Convert published UniSkill files to a UniSkillIDM and, with --unet and --base, a UniSkillFDM.",
    )
    parser.add_argument("--checkpoint", required=True, type=Path, help="published idm.pth")
    parser.add_argument("--unet", type=Path, help="published folder unet/")
    parser.add_argument("--base", help="Hub id or folder of InstructPix2Pix, for its autoencoder and noise schedule")
    parser.add_argument("--depth-model", default=DEPTH_MODEL, help="Hub id or folder of the depth network")
    parser.add_argument("--heads", type=int, default=PUBLISHED_HEADS, help="attention heads (default: %(default)s)")
    parser.add_argument("--fdm-image-size", type=int, default=256, help="pixels to a side (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, help="folder to write idm and fdm to")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        idm, fdm = convert_uniskill(
            options.checkpoint,
            options.out,
            unet=options.unet,
            base=options.base,
            depth_model=options.depth_model,
            num_attention_heads=options.heads,
            fdm_image_size=options.fdm_image_size,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(size_line(options.out / "idm", idm))
    if fdm is not None:
        print(size_line(options.out / "fdm", fdm))
    return 0


if __name__ == "__main__":
    sys.exit(main())
