"""Published H-Net checkpoints into [`HNetModel`]: `python -m hilam_hf.models.hnet.convert_hnet --help`.

A published checkpoint is a language model over bytes: `embeddings.weight`, `lm_head.weight` and, under `backbone.`, the
network that `HNetModel` is, with the same names. Nothing that a file holds besides tensors is ever executed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from ..published import check_weights, existing_file, listed, read_checkpoint, size_line
from .configuration_hnet import HNetConfig
from .modeling_hnet import HNetModel

PREFIX = "backbone."
LEFT_OUT = ("embeddings.weight", "lm_head.weight")
"""What a published language model has around the backbone."""
_LOGGER = logging.getLogger(__name__)


def convert_hnet(checkpoint: str | Path, config: str | Path | Mapping[str, Any], output_dir: str | Path) -> HNetModel:
    """Converts a published checkpoint and saves the model.

    Args:
        checkpoint: A `.pt` or `.safetensors` file with the state dict of a published H-Net, or of its backbone alone.
        config: The published JSON file that belongs to it, or its contents.
        output_dir: Folder that the model is saved to, for `HNetModel.from_pretrained`.

    Returns:
        The model, in the dtype of the checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file can't be read, holds anything but tensors, or keys or shapes are not those of the
            configuration.

    Example:
        >>> convert_hnet("hnet_2stage_L.pt", "hnet_2stage_L.json", "hnet-2stage-l")  # doctest: +SKIP
    """
    hnet_config = read_config(config)
    weights, left_out = backbone_weights(read_checkpoint(checkpoint, "an H-Net"))
    check_fit(weights, hnet_config)
    _LOGGER.info("left out: %s", ", ".join(left_out) or "nothing")
    model = HNetModel.from_pretrained(None, config=hnet_config, state_dict=weights, dtype=main_dtype(weights))
    model.save_pretrained(output_dir)
    return model


def read_config(config: str | Path | Mapping[str, Any]) -> HNetConfig:
    """The configuration in a published JSON file, or in its contents.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no configuration of an H-Net.
    """
    source, values = "config", config
    if not isinstance(config, Mapping):
        source = str(config)
        try:
            values = json.loads(existing_file(config).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{source}: could not be read as JSON ({error}). Give the published configuration."
            ) from error
    try:
        return HNetConfig.from_published(values)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{source}: {error} is missing or of another form, expected the published configuration with arch_layout, "
            "d_model, d_intermediate, attn_cfg (num_heads, rotary_emb_dim, window_size) and ssm_cfg."
        ) from error
    except StrictDataclassError as error:
        raise ValueError(f"{source}: {error}") from error


def backbone_weights(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The backbone's part of a published state dict, without the prefix; a backbone's state dict as it is.

    Returns:
        The weights, and the keys that are left out.

    Raises:
        ValueError: If there are other keys than those of a published H-Net.
    """
    if not any(name.startswith(PREFIX) for name in state_dict):
        return dict(state_dict), []
    others = [name for name in state_dict if not name.startswith(PREFIX)]
    unknown = [name for name in others if name not in LEFT_OUT]
    if unknown:
        raise ValueError(
            f"checkpoint: got the unknown keys {listed(unknown)}, expected {PREFIX}* and {', '.join(LEFT_OUT)} only. "
            "Give a published H-Net."
        )
    weights = {name.removeprefix(PREFIX): value for name, value in state_dict.items() if name.startswith(PREFIX)}
    return weights, others


def check_fit(weights: Mapping[str, Tensor], config: HNetConfig) -> None:
    """Checks that `weights` are those of `HNetModel(config)`, by name and shape.

    Raises:
        ValueError: If not; it lists what is missing, unexpected, of another shape, or quantised.
    """
    with torch.device("meta"):
        expected = HNetModel(config).state_dict()
    check_weights(
        weights,
        expected,
        f"arch_layout {config.arch_layout} with d_model {config.d_model}",
        "Give the configuration that was published with it.",
    )


def main_dtype(weights: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype that most weights have; a few are in float32 in every published checkpoint."""
    counts: dict[torch.dtype, int] = {}
    for value in weights.values():
        counts[value.dtype] = counts.get(value.dtype, 0) + value.numel()
    return max(counts, key=counts.__getitem__)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hilam_hf.models.hnet.convert_hnet",
        description="Convert a published H-Net checkpoint to an HNetModel. Embedding and head are left out.",
    )
    parser.add_argument("--checkpoint", required=True, type=Path, help="published .pt or .safetensors file")
    parser.add_argument("--config", required=True, type=Path, help="published .json file that belongs to it")
    parser.add_argument("--out", required=True, type=Path, help="folder to write the model to")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        model = convert_hnet(options.checkpoint, options.config, options.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(size_line(options.out, model))
    return 0


if __name__ == "__main__":
    sys.exit(main())
