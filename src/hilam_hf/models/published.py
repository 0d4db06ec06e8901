"""Checkpoints published elsewhere: read without executing anything, renamed, and compared with what a model expects."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

_SHOWN = 5


def read_checkpoint(path: str | Path, kind: str) -> dict[str, Tensor]:
    """The tensors of a `.pt`, `.pth`, `.bin` or `.safetensors` file by name, read without executing anything.

    Args:
        path: The file.
        kind: What it should hold the state dict of, for errors: "an H-Net".

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it can't be read, or holds anything but named tensors.
    """
    path = existing_file(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Only PyTorch's present format can be mapped into memory.
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: holds something else than tensors, or is no checkpoint; nothing of it was executed. Expected the "
            f"state dict of {kind}, saved with torch.save."
        ) from error
    except OSError:
        raise
    except Exception as error:  # what reading damaged bytes ends in depends on the bytes
        raise ValueError(f"{path}: damaged, or no checkpoint ({error}). Download it again.") from error
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"{path}: got {type(values).__name__}, expected a state dict: tensors by name.")
    others = [name for name, value in values.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"{path}: got {listed(others)} that are no tensors, expected a state dict: tensors by name.")
    return dict(values)


def rename(name: str, renames: Sequence[tuple[str, str]]) -> str | None:
    """The name that the first fitting (pattern, replacement) of `renames` gives to all of `name`; None if none fits."""
    for pattern, replacement in renames:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    return None


def check_weights(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], model: str, remedy: str) -> None:
    """Checks names, shapes and number formats against a model's own state dict, which may lie on the meta device.

    Args:
        weights: What the checkpoint holds, under the model's names.
        expected: The model's state dict.
        model: What the weights should be those of, for errors.
        remedy: What to do otherwise, a sentence.

    Raises:
        ValueError: If they differ; it lists what is missing, unexpected, of another shape, or quantised.
    """
    problems = {
        "missing": [name for name in expected if name not in weights],
        "unexpected": [name for name in weights if name not in expected],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
            for name, value in expected.items()
            if name in weights and weights[name].shape != value.shape
        ],
        "of integers": [
            name
            for name, value in expected.items()
            if name in weights and value.is_floating_point() and not weights[name].is_floating_point()
        ],
    }
    found = [f"{len(names)} {kind}: {listed(names)}" for kind, names in problems.items() if names]
    if found:
        raise ValueError(f"checkpoint: its weights are not those of {model}; {'; '.join(found)}. {remedy}")


def size_line(folder: str | Path, model: PreTrainedModel) -> str:
    """What a converter prints of a model that it has written."""
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{folder}: {count / 1e6:.1f} M parameters, {model.dtype}"


def existing_file(path: str | Path) -> Path:
    """`path`, if there is such a file.

    Raises:
        FileNotFoundError: If there is none.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file. Download it first.")
    return Path(path)


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(map(str, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
