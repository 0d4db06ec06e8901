"""Files written whole or not at all and readable by whom the umask allows, JSON whose errors name the file, paths that
stay inside their folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import ntpath
import os
import posixpath
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
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
            flush_to_disk(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8 to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def permit_by_umask(folder: str | Path, pattern: str = "*.safetensors") -> None:
    """Gives files of a folder the permissions that the umask allows, as files that Python opens have them.

    safetensors writes a temporary file that only its owner may read, as such files are made, and renames it: without
    this nobody else could load the weights, whatever the umask.

    Args:
        folder: The folder; its sub-folders are left alone.
        pattern: Names of the files.
    """
    files = [path for path in Path(folder).glob(pattern) if path.is_file() and not path.is_symlink()]
    if not files:
        return
    mode = _mode_of_new_files(Path(folder))
    for path in files:
        if stat.S_IMODE(path.stat().st_mode) != mode:
            # Weights that are written are not lost for a file that is another user's, or a disk without permissions.
            with suppress(OSError):
                path.chmod(mode)


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


def path_inside(root: str | Path, relative: Any, *, where: str, follow_links: bool = True) -> Path:
    """The file below `root` that a file of somebody else names, which cannot lead out of `root`.

    Args:
        root: The folder that the path is relative to.
        relative: What was read: a relative path, on any system's terms; `..` may stand in it but not climb out.
        where: What says so, for the error: a file, and a line or an episode of it.
        follow_links: Whether links on the way may lead out, as those of the Hub's cache do and those to a disk of
            videos; False where the file is to be deleted.

    Raises:
        ValueError: It is no path, absolute, or leads out of `root`.
    """
    if not isinstance(relative, str) or not relative or "\0" in relative:
        raise ValueError(f"{where}: got {relative!r}, expected the path of a file in {root}")
    kinds = (PurePosixPath(posixpath.normpath(relative)), PureWindowsPath(ntpath.normpath(relative)))
    path = Path(root) / os.path.normpath(relative)
    is_inside = not any(kind.is_absolute() or kind.drive or kind.root or kind.parts[:1] == ("..",) for kind in kinds)
    if not is_inside or not (follow_links or path.parent.resolve().is_relative_to(Path(root).resolve())):
        raise ValueError(f"{where}: names {relative!r}, which lies outside of {root}; nothing was read or changed")
    return path


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


def _mode_of_new_files(folder: Path) -> int:
    """The permissions of a new file in a folder.

    Seen on one that is made for it: asking for the umask sets it, for all threads, for as long as the asking takes.
    """
    path = folder / f".{uuid.uuid4().hex[:12]}.tmp"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        path.unlink()


def add_file(digest: hashlib._Hash, path: str | Path) -> None:
    """Adds a file's content to a hash.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)


def flush_to_disk(path: str | Path) -> None:
    """Sees that a file's content has reached the disk: some file systems report a full one only then.

    Raises:
        OSError: It has not.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
