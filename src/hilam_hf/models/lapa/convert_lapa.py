"""LAPA's published latent action quantization into [`LapaModel`]: `python -m hilam_hf.models.lapa.convert_lapa --help`.

A published checkpoint (`laq_openx.pt`) is a state dict, with `module.` before each name where it was trained on several
devices. Sizes are read off the weights; the size of the frames and the number of codes are not in them. Nothing that a
file holds besides tensors is ever executed.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from ..published import check_weights, listed, read_checkpoint, rename, size_line
from .configuration_lapa import LapaConfig
from .modeling_lapa import LapaModel

PREFIX = "module."
_STACKS = {
    "enc_spatial_transformer": "spatial_encoder",
    "enc_temporal_transformer": "temporal_encoder",
    "dec_spatial_transformer": "decoder",
}
_ATTENTION = {
    "norm.gamma": "norm.weight",
    "to_q.weight": "query.weight",
    "to_kv.weight": "key_value.weight",
    "to_out.weight": "output.weight",
    "q_scale": "query_gain",
    "k_scale": "key_gain",
}
_CROSS_ATTENTION = {"context_norm.gamma": "context_norm.weight", "null_kv": "null_pairs"}
_LAYER = {
    "0.dsconv.weight": "position_conv.weight",
    "0.dsconv.bias": "position_conv.bias",
    "3.0.weight": "feed_forward.norm.weight",
    "3.0.bias": "feed_forward.norm.bias",
    "3.1.weight": "feed_forward.up.weight",
    "3.4.weight": "feed_forward.down.weight",
    **{f"1.{name}": f"attention.{ours}" for name, ours in _ATTENTION.items()},
    **{f"2.{name}": f"cross_attention.{ours}" for name, ours in (_ATTENTION | _CROSS_ATTENTION).items()},
}
_RENAMES = [
    (r"spatial_rel_pos_bias\.net\.0\.0\.(weight|bias)", r"position_bias.mlp.0.\1"),
    (r"spatial_rel_pos_bias\.net\.1\.0\.(weight|bias)", r"position_bias.mlp.2.\1"),
    (r"spatial_rel_pos_bias\.net\.2\.(weight|bias)", r"position_bias.mlp.4.\1"),
    (r"to_patch_emb_first_frame\.1\.(weight|bias)", r"patch_embedding.patch_norm.\1"),
    (r"to_patch_emb_first_frame\.2\.(weight|bias)", r"patch_embedding.proj.\1"),
    (r"to_patch_emb_first_frame\.3\.(weight|bias)", r"patch_embedding.norm.\1"),
    (r"to_pixels_first_frame\.0\.(weight|bias)", r"pixel_proj.\1"),
    (r"vq\.codebooks", r"quantizer.codebook"),
    (r"vq\.(project_in|project_out)\.(weight|bias)", r"quantizer.\1.\2"),
    (r"vq\.cnn_encoder\.(\d+)\.(weight|bias)", r"quantizer.reducer.\1.\2"),
    *((rf"{stack}\.norm_out\.gamma", f"{ours}.norm.weight") for stack, ours in _STACKS.items()),
    *(
        (rf"{stack}\.layers\.(\d+)\.{re.escape(name)}", rf"{ours}.layers.\1.{our_name}")
        for stack, ours in _STACKS.items()
        for name, our_name in _LAYER.items()
    ),
]
_STACK = f"(?:{'|'.join(_STACKS)})"
# What a published checkpoint holds beside the weights that take part: shifts of norms that have a gain only, ...
_ZERO = re.compile(rf"{_STACK}\.(?:norm_out|layers\.\d+\.[12]\.(?:context_)?norm)\.beta")
# ... the null pairs of self-attention, which has none, ...
_EMPTY = re.compile(rf"{_STACK}\.layers\.\d+\.1\.null_kv")
# ... and the norm of a context, which self-attention doesn't have either.
_UNUSED = re.compile(rf"{_STACK}\.layers\.\d+\.1\.context_norm\.gamma")


def convert_lapa(
    checkpoint: str | Path, output_dir: str | Path, *, image_size: int = 256, num_codes: int = 4
) -> LapaModel:
    """Converts a published checkpoint and saves the model with its image processor.

    Args:
        checkpoint: A `.pt` or `.safetensors` file with the state dict of LAPA's latent action quantization.
        output_dir: Folder that the model is saved to, for `LapaModel.from_pretrained`.
        image_size: Side in pixels of the frames that it was trained on.
        num_codes: Codes of a latent action (published: `code_seq_len`).

    Returns:
        The model, in the dtype of the checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file can't be read, holds anything but tensors, or names or shapes are not LAPA's.

    Example:
        >>> convert_lapa("laq_openx.pt", "lapa-openx")  # doctest: +SKIP
    """
    state_dict = read_checkpoint(checkpoint, "LAPA's latent action quantization")
    model = model_from_published(state_dict, image_size=image_size, num_codes=num_codes)
    model.save_pretrained(output_dir)
    return model


def model_from_published(state_dict: Mapping[str, Tensor], *, image_size: int = 256, num_codes: int = 4) -> LapaModel:
    """The model with published weights; see [`convert_lapa`].

    Args:
        state_dict: Tensors by their published names, with or without `module.` before them.
        image_size: Side in pixels of the frames that it was trained on.
        num_codes: Codes of a latent action.

    Raises:
        ValueError: If names or shapes are not LAPA's.
    """
    weights = rename_published(state_dict)
    config = config_of(weights, image_size, num_codes)
    # The published counts since the last refresh are not kept: a run that goes on counts anew.
    weights["quantizer.codebook_usage"] = torch.zeros(config.codebook_size, dtype=torch.int32)
    with torch.device("meta"):
        expected = LapaModel(config).state_dict()
    check_weights(
        weights,
        expected,
        f"LAPA's latent action quantization on frames of {image_size} px with {num_codes} codes",
        "Give a whole checkpoint, and the image_size and num_codes that it was trained with.",
    )
    dtype = weights["quantizer.codebook"].dtype
    return LapaModel.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)


def rename_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights under our names.

    What a published checkpoint holds without using it is checked and left out: the shifts of norms, which are zero, the
    null pairs of self-attention, which are empty, and the norms of a context that is not there.

    Raises:
        ValueError: If there are other names, or something to be left out is not what it should be.
    """
    prefix = PREFIX if all(name.startswith(PREFIX) for name in state_dict) else ""
    weights: dict[str, Tensor] = {}
    unknown = []
    for published, value in state_dict.items():
        name = published.removeprefix(prefix)
        if (ours := rename(name, _RENAMES)) is not None:
            weights[ours] = value
        elif _ZERO.fullmatch(name):
            _check_left_out(published, not bool(value.any()), "zeros")
        elif _EMPTY.fullmatch(name):
            _check_left_out(published, value.numel() == 0, "an empty tensor")
        elif not _UNUSED.fullmatch(name):
            unknown.append(published)
    if unknown:
        raise ValueError(
            f"checkpoint: got {len(unknown)} unknown names ({listed(unknown)}), expected those of LAPA's latent action "
            "quantization. Give laq_openx.pt, or another file of the same kind."
        )
    return weights


def config_of(weights: Mapping[str, Tensor], image_size: int, num_codes: int) -> LapaConfig:
    """The configuration to which renamed weights belong.

    Raises:
        ValueError: If a weight that tells a size is missing, or the sizes do not fit.
    """
    codebook_size, quant_dim = _shape(weights, "quantizer.codebook", 2)
    (patch_dim,) = _shape(weights, "patch_embedding.patch_norm.weight", 1)
    num_channels = 3
    patch_size = math.isqrt(patch_dim // num_channels)
    if num_channels * patch_size**2 != patch_dim:
        raise ValueError(f"checkpoint: got patches of {patch_dim} numbers, expected {num_channels} times a square.")
    try:
        return LapaConfig(
            image_size=image_size,
            patch_size=patch_size,
            num_channels=num_channels,
            hidden_size=_shape(weights, "quantizer.project_in.weight", 2)[1],
            num_spatial_layers=_num_layers(weights, "spatial_encoder"),
            num_temporal_layers=_num_layers(weights, "temporal_encoder"),
            num_attention_heads=_shape(weights, "position_bias.mlp.4.weight", 2)[0],
            head_dim=_shape(weights, "spatial_encoder.layers.0.attention.query_gain", 1)[0],
            num_codes=num_codes,
            codebook_size=codebook_size,
            quant_dim=quant_dim,
        )
    except StrictDataclassError as error:
        raise ValueError(f"checkpoint with patches of {patch_size} px: {error}") from error


def _shape(weights: Mapping[str, Tensor], name: str, num_axes: int) -> torch.Size:
    """The shape of a weight that tells a size."""
    found = tuple(weights[name].shape) if name in weights else "no such weight"
    if name not in weights or weights[name].ndim != num_axes:
        raise ValueError(
            f"checkpoint: {name}: got {found}, expected a tensor with {num_axes} axes. Give a whole checkpoint of "
            "LAPA's latent action quantization."
        )
    return weights[name].shape


def _num_layers(weights: Mapping[str, Tensor], stack: str) -> int:
    return len({name.split(".")[2] for name in weights if name.startswith(f"{stack}.layers.")})


def _check_left_out(name: str, is_expected: bool, expected: str) -> None:
    if not is_expected:
        raise ValueError(
            f"checkpoint: {name}: got other values, expected {expected}, which a published checkpoint holds there "
            "without using them. Give one that LAPA's released code wrote."
        )


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hilam_hf.models.lapa.convert_lapa",
        description="Convert LAPA's published latent action quantization to a LapaModel.",
    )
    parser.add_argument("--checkpoint", required=True, type=Path, help="published .pt or .safetensors file")
    parser.add_argument("--out", required=True, type=Path, help="folder to write the model to")
    parser.add_argument("--image-size", type=int, default=256, help="side in pixels of its frames (default: 256)")
    parser.add_argument("--num-codes", type=int, default=4, help="codes of a latent action (default: 4)")
    options = parser.parse_args(arguments)
    try:
        model = convert_lapa(
            options.checkpoint, options.out, image_size=options.image_size, num_codes=options.num_codes
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(size_line(options.out, model))
    return 0


if __name__ == "__main__":
    sys.exit(main())
