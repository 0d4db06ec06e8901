"""The files of a checkpoint: tensors as safetensors, whole or one part a process, and what tells damaged files.

Nothing is pickled, so that reading a checkpoint from anywhere executes nothing. `torch.distributed.checkpoint` writes
sharded tensors, in its safetensors format, since its usual one keeps a pickle beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from ...files import add_file, flush_to_disk
from ..processes import process_state
from .tensors import Tensors, is_sharded, mismatch, put, whole

SUFFIX = ".safetensors"

Groups = Mapping[str, Tensors]
"""The tensors of a run in groups, each a file: model, optimizer, average and so on."""
Write = Callable[[], dict[str, str]]
"""Writes what was prepared, on any thread; returns the SHA-256 of each file that this process wrote, by its name."""


def prepare_whole(folder: Path, groups: Groups, *, copied: bool) -> Write:
    """A write of every group as one file by the main process.

    Args:
        folder: Where they go; it exists.
        groups: The tensors, the same names in every process.
        copied: Take a copy, so that the run may go on while it is written.
    """
    is_main = process_state().is_main_process
    kept: dict[str, Tensors] = {}
    for group, tensors in groups.items():
        for name, tensor in tensors.items():
            # Putting shards together takes every process, and is done before any of them goes on.
            value = whole(tensor)
            if is_main:
                # In main memory, as one process's device need not hold the tensors of all.
                held = value.to("cpu", copy=copied).contiguous()
                kept.setdefault(group, {})[name] = held

    def write() -> dict[str, str]:
        return {
            f"{group}{SUFFIX}": _write_file(folder / f"{group}{SUFFIX}", tensors) for group, tensors in kept.items()
        }

    return write


def prepare_sharded(folder: Path, groups: Groups, *, copied: bool) -> Write:
    """A write of every group as a folder, to which each process adds the shards that it holds."""
    number = process_state().process_index + 1
    # On the device, which a checkpoint in the background costs the memory of this process' shards.
    chosen = {
        name: {key: each.detach().clone() if copied else each.detach() for key, each in group.items()}
        for name, group in groups.items()
        if group
    }
    processes = _writing_group()

    def write() -> dict[str, str]:
        for group, tensors in chosen.items():
            (folder / group).mkdir(exist_ok=True)
            writer = HuggingFaceStorageWriter(str(folder / group), save_distributed=True)
            dcp.save(tensors, storage_writer=writer, process_group=processes)
        files = sorted(folder.glob(f"*/shard-{number:05d}-*{SUFFIX}"))
        for path in files:
            flush_to_disk(path)
        return {path.relative_to(folder).as_posix(): sha256(path) for path in files}

    return write


@cache
def _writing_group() -> Any:
    """The processes, talking about what they write on another channel than the run itself uses at the same time."""
    return dist.new_group(backend="gloo")


def read_group(folder: Path, group: str, targets: Tensors) -> None:
    """Puts one group of a checkpoint into the tensors of the run, whichever way either is shared out.

    Raises:
        ValueError: The checkpoint holds other tensors.
    """
    file = folder / f"{group}{SUFFIX}"
    if file.is_file():
        with safe_open(file, framework="pt") as opened:
            shapes = {name: torch.Size(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
            _check(targets, shapes, file)
            for name, target in targets.items():
                put(target, opened.get_tensor(name))
    elif targets:
        reader = HuggingFaceStorageReader(str(folder / group))
        metadata = reader.read_metadata().state_dict_metadata
        kept = {name: each.size for name, each in metadata.items() if isinstance(each, TensorStorageMetadata)}
        _check(targets, kept, folder / group)
        # Each process reads what it needs by itself.
        dcp.load(dict(targets), storage_reader=HuggingFaceStorageReader(str(folder / group)), no_dist=True)


def group_names(folder: Path, group: str) -> set[str]:
    """Names of the tensors that a checkpoint has in a group; empty where it has no such group."""
    file = folder / f"{group}{SUFFIX}"
    if file.is_file():
        with safe_open(file, framework="pt") as opened:
            return set(opened.keys())
    if (folder / group).is_dir():
        return set(HuggingFaceStorageReader(str(folder / group)).read_metadata().state_dict_metadata)
    return set()


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    add_file(digest, path)
    return digest.hexdigest()


def _check(targets: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], path: Path) -> None:
    problem = mismatch(targets, shapes)
    if problem is not None:
        raise ValueError(f"{path} is of another model: {problem}")


def _write_file(path: Path, tensors: Tensors) -> str:
    save_file(tensors, path)
    flush_to_disk(path)
    return sha256(path)


def needs_shards(groups: Groups) -> bool:
    """Whether some tensor is shared out over the processes."""
    return any(is_sharded(tensors) for tensors in groups.values())
