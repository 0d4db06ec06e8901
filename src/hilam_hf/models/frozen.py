"""Published networks that a model uses without owning them: loaded by their Hub id, frozen, kept in no checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn

from .loading import check_weight_index, without_code
from .model_files import naming_damaged_files


def load_frozen(auto_class: Any, name_or_path: str, *, role: str, option: str, **options: Any) -> Any:
    """Loads a configuration, a processor or a network that is not part of the checkpoint at hand.

    Args:
        auto_class: One of transformers' Auto classes, or a model class.
        name_or_path: Hub id or folder.
        role: What it is for, such as "depth network".
        option: The option that takes a folder instead of the id.
        **options: Passed on to `from_pretrained`. Code that comes with a checkpoint is never run.

    Raises:
        OSError: If it can't be had, in one line that names the id and says how to give a folder.
    """
    try:
        check_weight_index(name_or_path)
        with naming_damaged_files(name_or_path, options), without_code(name_or_path):
            return auto_class.from_pretrained(name_or_path, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"{role} {name_or_path!r} cannot be loaded ({reason}); where there is a network, run "
            f"`hf download {name_or_path} --local-dir FOLDER`, then give that folder as {option}"
        ) from error


@contextmanager
def naming_option(option: str) -> Iterator[None]:
    """Adds to an error about a network that can't be had which option of the caller takes a folder.

    Raises:
        OSError: The error, with the option's name.
    """
    try:
        yield
    except OSError as error:
        raise OSError(f"{error}, here {option}") from error


class FrozenNetwork:
    """A network that is loaded when it is first used, shared by all models of a process that name it.

    As no `nn.Module`, it is in no model's parameters, state dict or checkpoint, and may be absent until it is needed.

    Args:
        auto_class: One of transformers' Auto classes, or a model class.
        name_or_path: Hub id or folder with safetensors.
        role: What it is for, for errors.
        option: The option that takes a folder instead of the id, for errors.
    """

    def __init__(self, auto_class: Any, name_or_path: str, *, role: str, option: str) -> None:
        self.auto_class = auto_class
        self.name_or_path = name_or_path
        self.role = role
        self.option = option

    def load(self, other_class: Any, **options: Any) -> Any:
        """What belongs to the network, such as its configuration or processor, by another Auto class.

        Raises:
            OSError: If it can't be had.
        """
        return load_frozen(other_class, self.name_or_path, role=self.role, option=self.option, **options)

    def on(self, device: torch.device, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The network on a device, in evaluation mode, without gradients.

        Raises:
            OSError: If it can't be had.
        """
        return _network(self.auto_class, self.name_or_path, self.role, self.option, torch.device(device), dtype)


@cache
def _network(
    auto_class: Any, name_or_path: str, role: str, option: str, device: torch.device, dtype: torch.dtype
) -> nn.Module:
    network = load_frozen(auto_class, name_or_path, role=role, option=option, dtype=dtype, use_safetensors=True)
    return network.to(device).eval().requires_grad_(False)
