"""One writer a folder: a lock that its holder keeps while it writes, and that a process which died does not hold.

The operating system holds it, on a hidden file of the folder that tells who writes there. When the writer ends well the
file is removed again; after a crash it stays, held by nobody, and the next writer takes it over.
"""

from __future__ import annotations

import atexit
import errno
import json
import logging
import os
import socket
import weakref
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from filelock import FileLock, Timeout

from .files import disk_errors, read_json

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
"""Name of the hidden file in the folder."""

# A holder that is just about to end is waited for; seconds.
_PATIENCE = 0.1
# How often a lock file may be taken away between opening and locking it before something else is wrong.
_ATTEMPTS = 100
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
_NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class FolderInUseError(OSError):
    """Another writer writes in the folder."""


@dataclass(frozen=True)
class _Hold:
    """What a lock that is held has to give back.

    Attributes:
        lock: The operating system's lock; None where the file system has none.
        identity: The file that is locked.
        made_folder: Whether the folder was made for it.
        process: The process that holds it.
    """

    lock: FileLock | None
    identity: tuple[int, int] | None
    made_folder: bool
    process: int


class FolderLock:
    """The right to write in one folder; its sub-folders have locks of their own.

    Two locks of one folder exclude each other wherever they are held: in one process, in two, in a forked child. A lock
    that is dropped without `release` is released when it is collected, or when the process ends.

    Where the file system has no locks (some network mounts), `acquire` warns and goes on: nothing then keeps a second
    writer away.

    Args:
        folder: The folder.
        writer: What writes there, for the error of whoever comes second, such as "a training run".
        file: Where the writer owns a single file of the folder and not the folder: its name. Locks of other files of
            the folder, and of the folder itself, do not exclude this one.

    Example:
        >>> with FolderLock("results", "an evaluation"):  # doctest: +SKIP
        ...     write_results("results")
    """

    def __init__(self, folder: str | Path, writer: str, *, file: str | None = None) -> None:
        self._hold: _Hold | None = None
        self.folder = Path(folder)
        self.writer = writer
        self._what = self.folder if file is None else self.folder / file
        # Absolute: the process may change its folder before it releases the lock.
        self._path = Path(os.path.abspath(self.folder)) / (LOCK_FILE if file is None else f".{file}{LOCK_FILE}")

    def __enter__(self) -> FolderLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()

    @property
    def held(self) -> bool:
        """Whether this lock is held, in this process: a forked child has a copy of it and not the lock."""
        return self._hold is not None and self._hold.process == os.getpid()

    def check_held(self) -> None:
        """Sees that the writer has not been closed.

        Raises:
            ValueError: It was, so that another one may write in the folder.
        """
        if not self.held:
            raise ValueError(f"{self._what}: {self.writer} was closed: open another one to go on writing")

    def acquire(self) -> None:
        """Takes the lock, making the folder when it is absent.

        Raises:
            FolderInUseError: Another writer holds it; the error names it.
            NotADirectoryError: A file is in the folder's place.
            OSError: The folder cannot be made or written.
        """
        assert not self.held
        for _ in range(_ATTEMPTS):
            made = self._make_folder()
            try:
                lock = self._lock()
                identity = None if lock is None else _identity(os.stat(self._path))
            # The holder before removed the folder that it had made, or the file that was about to be locked.
            except (FileNotFoundError, _GoneError):
                continue
            except BaseException:
                if made:
                    _remove_empty(self._path.parent)
                raise
            break
        else:
            raise OSError(f"{self._what}: its lock file {self._path} is removed again and again: find out by what")
        self._hold = _Hold(lock, identity, made, os.getpid())
        _held.add(self)

    def release(self) -> None:
        """Gives the lock back and removes its file, and the folder where `acquire` made it and it is still empty.

        A lock that is not held, and a forked child's copy of one, are left alone.
        """
        hold, self._hold = self._hold, None
        if hold is None or hold.process != os.getpid():
            return
        # While it is held: afterwards the file may be another holder's. Nor is it ours where somebody removed ours.
        with suppress(OSError):
            if hold.lock is None or (hold.lock.is_locked and _identity(os.stat(self._path)) == hold.identity):
                self._path.unlink()
        if hold.lock is not None:
            hold.lock.release()
        if hold.made_folder:
            _remove_empty(self._path.parent)

    def _make_folder(self) -> bool:
        """Makes the folder; whether it was absent."""
        try:
            with disk_errors(self.folder):
                self._path.parent.mkdir(parents=True)
        except (FileExistsError, NotADirectoryError) as error:
            if self._path.parent.is_dir():
                return False
            raise NotADirectoryError(
                f"{self.folder}: expected a folder for {self.writer}, got a file: choose another name"
            ) from error
        except OSError as error:
            self._refuse(error)
        return True

    def _lock(self) -> FileLock | None:
        """Takes the lock of the operating system; None where the file system has none."""
        # Without `thread_local=False`, another thread could not release it; without `fallback_to_soft=False`, a file
        # system without locks would get one that a killed process holds for ever.
        lock = FileLock(
            self._path,
            timeout=_PATIENCE,
            poll_interval=_PATIENCE / 10,
            thread_local=False,
            fallback_to_soft=False,
            on_acquired=partial(_sign, self._path, self.writer),
        )
        try:
            with disk_errors(self.folder):
                lock.acquire()
        except Timeout:
            raise FolderInUseError(self._in_use()) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                self._refuse(error)
            logger.warning(
                "%s: this file system has no locks (%s), so nothing keeps a second writer away: see to it that only "
                "one process writes here",
                self._what,
                error,
            )
            return None
        return lock

    def _in_use(self) -> str:
        try:
            holder = read_json(self._path)
        # The holder has just ended, or is about to say who it is.
        except (OSError, ValueError):
            holder = {}
        writer, process, host, since = (holder.get(name, "unknown") for name in ("writer", "process", "host", "since"))
        own = (process, host) == (os.getpid(), socket.gethostname())
        remedy = "close it first, as it is of this process," if own else "wait until it has ended,"
        return (
            f"{self._what} is in use by another writer ({writer}, process {process} on {host}, since {since}): "
            f"{remedy} or choose another folder"
        )

    def _refuse(self, error: OSError) -> NoReturn:
        if error.errno in _NOT_WRITABLE:
            raise PermissionError(
                f"{self.folder}: cannot be written ({error.strerror}): choose another folder for {self.writer}, or "
                "change who may write there"
            ) from error
        raise error


_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


# After the import of filelock, which releases its locks at the end of the process, too: what is registered last comes
# first, and without the lock its file could not be removed.
@atexit.register
def _release_all() -> None:
    for lock in list(_held):
        lock.release()


class _GoneError(Exception):
    """The file that was locked is no longer the one in the folder."""


def _sign(path: Path, writer: str, descriptor: int) -> None:
    """Says in the lock file, which was just locked, who holds it."""
    # The holder before removes the file while it holds the lock: who had opened it by then has locked a file that
    # nobody else will ever find.
    try:
        there = _identity(os.stat(path))
    except FileNotFoundError as error:
        raise _GoneError from error
    if there != _identity(os.fstat(descriptor)):
        raise _GoneError
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    record = {"writer": writer, "process": os.getpid(), "host": socket.gethostname(), "since": since}
    try:
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(record).encode())
    except OSError:
        path.unlink()
        raise


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
