"""Writing files so that a crash or a full disk never leaves half a file under the final name."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def walk_files(root: str | Path) -> Iterator[Path]:
    """Files below a folder, at any depth, in an order that depends only on the names.

    Links to folders are followed, each folder once; names that begin with a dot are passed over.

    Raises:
        OSError: A folder cannot be read.
    """
    seen: set[str] = set()
    # Links come last: a folder that is there itself is not known by another name.
    folders, links = [Path(root)], list[Path]()
    while folders or links:
        folder = (folders or links).pop(0)
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(folder) as entries:
            visible = sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
        for entry in visible:
            # Unlike an entry's own method, it takes a link to itself for no folder instead of failing.
            if not os.path.isdir(entry.path):
                yield Path(entry.path)
            else:
                (links if entry.is_symlink() else folders).append(Path(entry.path))


def is_hidden(name: str) -> bool:
    """Whether a name is of a hidden file or folder."""
    return name.startswith(".") and name not in (".", "..")


def _flush_to_disk(path: Path) -> None:
    """Some file systems report a full disk only when the data reach it."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
