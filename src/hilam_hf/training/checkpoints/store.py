"""Checkpoints of a run in its folder: written whole or not at all, and read only if they are what was written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ...files import permit_by_umask, read_json, write_text
from ..processes import gathered, main_process_does
from .files import Groups, needs_shards, prepare_sharded, prepare_whole, sha256

STATE_FILE = "training_state.json"
FORMAT = 1
_PARTIAL = ".partial"


@dataclass(frozen=True)
class _Pending:
    """A checkpoint that is being written."""

    target: Path
    partial: Path
    state: dict[str, Any]
    written: Future[dict[str, str]]


class CheckpointStore:
    """The folders `checkpoint-{step}` of a run.

    A checkpoint is written beside its name and takes it when it is complete, so that a run that dies at any moment
    leaves only whole ones. All methods but `written` are called by every process.

    Args:
        folder: Of the run.
        keep: Number of latest checkpoints that stay.
        in_background: Let the run go on while a checkpoint is written; `settle` gives it its name.
    """

    def __init__(self, folder: Path, *, keep: int, in_background: bool = False):
        self.folder = folder
        self.keep = keep
        self.in_background = in_background
        self._pending: _Pending | None = None
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")

    def save(self, step: int, groups: Groups, state: Mapping[str, Any]) -> None:
        """Writes `checkpoint-{step}`, then drops the oldest ones.

        Args:
            step: Optimiser steps done.
            groups: The tensors.
            state: What else there is to know, as JSON.

        Raises:
            OSError: It can't be written (a full disk, say); earlier checkpoints are untouched.
        """
        self.settle()
        target = self.folder / f"checkpoint-{step}"
        partial = target.with_name(target.name + _PARTIAL)
        main_process_does(lambda: _empty_folder(partial))
        prepare = prepare_sharded if needs_shards(groups) else prepare_whole
        written: Future[dict[str, str]] = Future()
        try:
            write = prepare(partial, groups, copied=self.in_background)
        except Exception as error:
            written.set_exception(error)
        else:
            written = self._threads.submit(write)
        # A copy, as the run goes on with what it is made of.
        self._pending = _Pending(target, partial, json.loads(json.dumps(state)), written)
        if not self.in_background:
            self.settle()

    @property
    def written(self) -> bool:
        """Whether this process has nothing left to write, or nothing to write at all."""
        return self._pending is None or self._pending.written.done()

    def settle(self) -> None:
        """Waits for a checkpoint that is being written and gives it its name.

        Raises:
            OSError: It can't be written.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        hashes, problem = _outcome(pending.written)
        outcomes = gathered((hashes, problem))
        problems = [told for _, told in outcomes if told is not None]
        files = {name: digest for part, _ in outcomes for name, digest in part.items()}

        def finish() -> None:
            try:
                if problems:
                    raise OSError(problems[0])
                self._name(pending, files)
            except OSError as error:
                shutil.rmtree(pending.partial, ignore_errors=True)
                raise OSError(
                    f"cannot write the checkpoint {pending.target}: {error}; free some space, then resume from the "
                    "one before"
                ) from error

        main_process_does(finish)

    def close(self) -> None:
        """Ends the thread that writes."""
        self._threads.shutdown(wait=True)

    def _name(self, pending: _Pending, files: dict[str, str]) -> None:
        for folder in {(pending.partial / name).parent for name in files}:
            permit_by_umask(folder)
        sizes = {
            name: {"size": (pending.partial / name).stat().st_size, "sha256": files[name]} for name in sorted(files)
        }
        state = {"format": FORMAT, **pending.state, "files": sizes}
        write_text(pending.partial / STATE_FILE, json.dumps(state))
        if pending.target.exists():
            shutil.rmtree(pending.target)
        pending.partial.rename(pending.target)
        for old in checkpoints_in(self.folder)[: -self.keep]:
            shutil.rmtree(old)


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step in a run's folder, or None."""
    found = checkpoints_in(folder)
    return found[-1] if found else None


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a run's folder, by step."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, once all its files have been found to be those that were written.

    Raises:
        ValueError: A file is missing, truncated or another one, or a newer version wrote it; with what to do.
    """

    def verified() -> dict[str, Any]:
        with naming_damage(checkpoint):
            state = read_json(checkpoint / STATE_FILE)
            if state.get("format") != FORMAT:
                raise _NewerError(
                    f"{checkpoint} has format {state.get('format')} and was written by hilam-hf "
                    f"{state.get('identity', {}).get('library')}; this version reads format {FORMAT}. Install that one"
                )
            for name, expected in state["files"].items():
                _verify(checkpoint / name, expected)
            return state

    return main_process_does(verified)


class _NewerError(ValueError):
    """The checkpoint is whole, but of a version that is not known here."""


def _verify(path: Path, expected: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise ValueError(f"{path.name} is missing")
    size = path.stat().st_size
    if size != expected["size"]:
        raise ValueError(f"{path.name} has {size} bytes, expected {expected['size']}")
    if sha256(path) != expected["sha256"]:
        raise ValueError(f"{path.name} is not the file that was written")


@contextmanager
def naming_damage(checkpoint: Path) -> Iterator[None]:
    """Turns whatever the readers of a checkpoint's files say into one line with the remedy."""
    try:
        yield
    except (torch.OutOfMemoryError, _NewerError):
        raise
    except (ValueError, KeyError, TypeError, OSError, SafetensorError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        before = [path.name for path in checkpoints_in(checkpoint.parent) if path != checkpoint]
        after = f"resume from the one before, {before[-1]}" if before else "start afresh"
        raise ValueError(f"{checkpoint} cannot be read ({reason}); remove this folder, then {after}") from error


def _empty_folder(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _outcome(written: Future[dict[str, str]]) -> tuple[dict[str, str], str | None]:
    try:
        return written.result(), None
    except Exception as error:
        # Told to all processes; whatever it is, this checkpoint does not exist.
        return {}, next(iter(str(error).splitlines()), type(error).__name__)
