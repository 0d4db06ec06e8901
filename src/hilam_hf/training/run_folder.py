"""The folder that a run writes into: its own, held by one run at a time, and what the run leaves there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..files import read_json, write_text
from ..locks import FolderLock
from .checkpoints import checkpoints_in, latest_checkpoint
from .errors import TrainingInterrupted
from .processes import failing_together, main_process_does, process_state

RUN_FILE = "run.json"
# What runs write, whatever they train.
TRACKING = "tracking"
_LITTLE = (RUN_FILE, "history.json", "validation", TRACKING)
_COMMON = (*_LITTLE, "config.json", "model.safetensors", "adapter", "checkpoint-*")


class RunFolder:
    """A folder while a run writes into it. Made by `open_run_folder`.

    Attributes:
        path: The folder.
        resume: Whether the run that is in it goes on.
        has_begun: Whether the run has been recorded: until then it leaves nothing, whatever happens.
    """

    def __init__(self, path: Path, *, resume: bool):
        self.path = path
        self.resume = resume
        self.has_begun = False

    def latest_checkpoint(self) -> Path | None:
        """The checkpoint to go on from; None where the run starts."""
        return latest_checkpoint(self.path) if self.resume else None

    def read(self) -> dict[str, Any]:
        """What `run.json` says."""
        return read_json(self.path / RUN_FILE)

    def record(self, status: str, **facts: Any) -> None:
        """Notes in `run.json` how the run stands, for whoever starts, resumes or queues it.

        Args:
            status: "running", "interrupted", "failed" or "finished".
            **facts: What else there is to tell, as JSON; facts noted before stay.
        """
        self.has_begun = True
        if process_state().is_main_process:
            before = self.read() if holds_run(self.path) else {}
            write_text(self.path / RUN_FILE, json.dumps({**before, "status": status, **facts}, indent=2))


@contextmanager
def open_run_folder(
    folder: str | Path | RunFolder,
    *,
    resume: bool = False,
    overwrite: bool = False,
    inputs: Sequence[str | Path | None] = (),
    writes: Sequence[str] = (),
) -> Iterator[RunFolder]:
    """Holds a folder for one run; called by every process, of which the main one holds it.

    Args:
        folder: The folder; one that is open already is passed through.
        resume: Go on with the run that is in it.
        overwrite: Remove what a run has left in it.
        inputs: Folders and files that the run reads; Hub ids and None are passed over.
        writes: Names of what this kind of run writes besides checkpoints, such as "policy".

    Raises:
        ValueError: It holds another run, is or contains an input, there is nothing to resume, or options contradict
            each other.
        OSError: It is no folder, cannot be written, or another process writes there.
    """
    if isinstance(folder, RunFolder):
        yield folder
        return
    path = Path(folder)

    def prepare(held: ExitStack) -> None:
        _check_options(path, resume=resume, overwrite=overwrite, inputs=inputs)
        held.enter_context(FolderLock(path, "a training run"))
        if overwrite:
            _clear(path, (*_COMMON, *writes))
        elif not resume:
            _check_free(path, writes)
            _clear(path, _LITTLE)
        for partial in path.glob("checkpoint-*.partial"):
            shutil.rmtree(partial)

    run = RunFolder(path, resume=resume)
    with failing_together(), ExitStack() as held:
        main_process_does(lambda: prepare(held))
        try:
            yield run
        except Exception as error:
            if run.has_begun:
                run.record("interrupted" if isinstance(error, TrainingInterrupted) else "failed")
            raise
        if run.has_begun:
            run.record("finished")


def holds_run(folder: str | Path) -> bool:
    """Whether a folder holds a run that can be resumed."""
    return (Path(folder) / RUN_FILE).is_file()


def _check_options(path: Path, *, resume: bool, overwrite: bool, inputs: Sequence[str | Path | None]) -> None:
    if resume and overwrite:
        raise ValueError("resume and overwrite contradict each other; give one of them")
    for source in inputs:
        if source is not None and Path(source).exists() and _is_above(path, Path(source)):
            raise ValueError(
                f"{path} is, or contains, {source}, which this run reads and would overwrite; choose another folder "
                "to write to"
            )
    if resume and not holds_run(path):
        raise ValueError(f"{path} holds no run to go on with; leave out resume=True to start one there")


def _check_free(path: Path, writes: Sequence[str]) -> None:
    left = _left_by_run(path, (*_COMMON, *writes))
    if left and not (holds_run(path) and _left_little(path, left)):
        raise ValueError(
            f"{path} holds {_described(path, left)}; pass resume=True to go on with it, overwrite=True to replace it, "
            "or choose another folder"
        )


def _is_above(folder: Path, other: Path) -> bool:
    return other.resolve().is_relative_to(folder.resolve())


def _left_little(path: Path, left: Sequence[Path]) -> bool:
    """Whether a run ended before its first checkpoint, so that nobody could go on with what it left."""
    return {each.name for each in left} <= set(_LITTLE) and read_json(path / RUN_FILE).get("status") != "finished"


def _left_by_run(path: Path, names: Sequence[str]) -> list[Path]:
    return sorted({found for name in names for found in path.glob(name)})


def _described(path: Path, left: Sequence[Path]) -> str:
    if not holds_run(path):
        return f"{left[0].name} of another run"
    record: Mapping[str, Any] = read_json(path / RUN_FILE)
    steps = checkpoints_in(path)
    at = f", at {steps[-1].name}" if steps else ""
    return f"another run ({record.get('stage', 'training')}, {record.get('status', 'unknown')}{at})"


def _clear(path: Path, names: Sequence[str]) -> None:
    for found in _left_by_run(path, names):
        if found.is_dir() and not found.is_symlink():
            shutil.rmtree(found)
        else:
            found.unlink()
