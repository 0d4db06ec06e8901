"""JSON whose errors name the file, and files that a crash or a full disk never leaves half written under their name."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Rewords a full disk inside the block as one line that names what was being written.

    Args:
        path: The file or folder being written.

    Raises:
        OSError: With the original `errno`; other errors pass unchanged.
    """
    try:
        yield
    except OSError as error:
        # pyarrow keeps the errno only in the message for some of its writers.
        if error.errno in _DISK_FULL or "No space left on device" in str(error):
            code = error.errno or errno.ENOSPC
            message = "the disk is full: free some space or choose another folder, then run again; while writing"
            raise OSError(code, message, str(path)) from error
        raise


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`, which takes its place when the block ends well.

    The temporary file lies in the same folder, so the final rename is atomic, and it is removed when the block fails.

    Args:
        path: The final name; its folder is created when absent.

    Yields:
        The name to write to; there is no such file yet.

    Raises:
        OSError: The file cannot be written; a full disk is said to be full, with `path` named.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            yield temporary
            _flush_to_disk(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8 to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sampled_hash(path: str | Path, *, sample: int = 1 << 20) -> str:
    """SHA-256 of a file's size and of its first and last `sample` bytes: tells files apart without reading them whole.

    Unlike a time of change it stays the same where a folder is copied. Of videos, both ends together hold the index of
    all frames.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(f"{size} ".encode())
        digest.update(file.read(sample))
        file.seek(max(size - sample, file.tell()))
        digest.update(file.read(sample))
    return digest.hexdigest()


def read_json(path: str | Path, text: str | bytes | None = None) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: The file, which errors name.
        text: What was read from it already, such as one of its lines.

    Raises:
        ValueError: It holds no JSON object, or one that is nested too deeply.
        OSError: There is no such file.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8") if text is None else text)
    except RecursionError as error:
        raise ValueError(f"{path}: its JSON is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{path}: no JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _flush_to_disk(path: Path) -> None:
    """Some file systems report a full disk only when the data reach it."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
