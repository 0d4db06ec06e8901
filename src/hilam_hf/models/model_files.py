"""Checkpoints that are absent or have damaged files, told in one line that names them and the remedy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open

from ..hints import absent

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@contextmanager
def naming_damaged_files(name_or_path: Any, source: dict[str, Any]) -> Iterator[None]:
    """Where loading a checkpoint fails because of a damaged file, says so in place of what the reader of it says.

    Args:
        name_or_path: Folder or Hub id.
        source: `revision`, `cache_dir` and `subfolder` as given to `from_pretrained`.

    Raises:
        OSError: With the file and the remedy.
    """
    try:
        yield
    except Exception as error:
        folder = _folder_of(name_or_path, source)
        problem = None if folder is None else damage_in(folder) or _only_pickled(folder)
        if problem is None:
            raise
        raise OSError(problem) from error


class AbsentModelError(FileNotFoundError):
    """There is no such checkpoint."""


@contextmanager
def naming_absent_model(name_or_path: Any, source: dict[str, Any]) -> Iterator[None]:
    """Where loading fails because there is no such checkpoint, says which one was asked for, and what to do.

    Args:
        name_or_path: Folder or Hub id.
        source: `revision`, `cache_dir` and `subfolder` as given to `from_pretrained`.

    Raises:
        AbsentModelError: With the name and the remedy.
    """
    try:
        yield
    except AbsentModelError:
        # Said by a part of what loads it.
        raise
    except (OSError, HFValidationError) as error:
        is_there = name_or_path is None or Path(name_or_path).exists()
        if is_there or _folder_of(name_or_path, source) is not None:
            raise
        raise AbsentModelError(absent(name_or_path, "model", error, source.get("revision"))) from error


def damage_in(folder: Path) -> str | None:
    """What is wrong with the first damaged file of a folder, and the remedy; None where nothing is found.

    Looks at JSON, and at the beginning and the size of safetensors.
    """
    for file in _files(folder):
        damage = _damage_of(file)
        if damage is not None:
            return f"{file}: {damage}"
    return None


def _only_pickled(folder: Path) -> str | None:
    files = _files(folder)
    pickled = next((file for file in files if file.suffix in _PICKLED), None)
    if pickled is None or any(file.suffix == ".safetensors" for file in files):
        return None
    return (
        f"{pickled}: pickled weights can execute code and are not loaded, and there are no safetensors; save the model "
        "as safetensors where you trust it"
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _damage_of(file: Path) -> str | None:
    if file.suffix not in (".safetensors", ".json"):
        return None
    with open(file, "rb") as opened:
        start = opened.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        return "it is a pointer of Git LFS and not the file itself; run `git lfs pull` in its folder"
    if not start:
        return "it is empty; download or copy it again"
    try:
        _read(file)
    except (SafetensorError, ValueError, RecursionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return f"it is damaged or cut off ({reason}); download or copy it again"
    return None


def _read(file: Path) -> None:
    if file.suffix == ".safetensors":
        with safe_open(file, "pt"):
            return
    values = json.loads(file.read_text(encoding="utf-8"))
    if file.name == "config.json" and not isinstance(values, dict):
        raise ValueError("expected a JSON object")


def _folder_of(name_or_path: Any, source: dict[str, Any]) -> Path | None:
    if name_or_path is None:
        return None
    subfolder = source.get("subfolder") or ""
    if Path(name_or_path).is_dir():
        return Path(name_or_path) / subfolder
    file = f"{subfolder}/config.json" if subfolder else "config.json"
    options = {name: source[name] for name in ("revision", "cache_dir") if name in source}
    try:
        cached = try_to_load_from_cache(str(name_or_path), file, **options)
    except ValueError:
        # No Hub id.
        return None
    return Path(cached).parent if isinstance(cached, str) else None
