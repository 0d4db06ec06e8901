"""Checkpoints every so many steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoints import CheckpointStore
from ..processes import greatest_of_all, process_state
from .base import Callback, TrainingState

Snapshot = Callable[[], tuple[Mapping[str, dict[str, Tensor]], Mapping[str, Any]]]
"""Gives the tensors of the run in groups, and what else there is to know as JSON; in every process."""


class Checkpointing(Callback):
    """Saves a checkpoint every so many steps, and when it is asked to.

    Args:
        store: Where they go.
        every: Steps between two checkpoints; 0 saves none by itself.
        snapshot: What they hold.
        told: Callbacks that are told of every complete checkpoint.
    """

    def __init__(self, store: CheckpointStore, every: int, snapshot: Snapshot, told: Sequence[Callback]):
        self._store = store
        self._every = every
        self._snapshot = snapshot
        self._told = told
        self._saved_step: int | None = None
        self._untold = False

    def on_step_done(self, state: TrainingState) -> None:
        # Not `is_due`: a run's last step is saved as its model.
        if self._every and state.step % self._every == 0:
            self.save(state)

    def on_log(self, state: TrainingState) -> None:
        # Processes talk to each other now anyway.
        if self._untold and not greatest_of_all(int(not self._store.written)):
            self.settle(state)

    def save(self, state: TrainingState) -> None:
        """Saves a checkpoint of the run as it stands, unless there is one of this step."""
        if self._saved_step == state.step:
            return
        self.settle(state)
        self._store.save(state.step, *self._snapshot())
        self._saved_step, self._untold = state.step, True
        if not self._store.in_background:
            self.settle(state)

    def on_train_end(self, state: TrainingState) -> None:
        if process_state().num_processes == 1:
            # Where the run failed; processes that fail together cannot wait for each other.
            self.settle(state)
        self._store.close()

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self._store.folder

    def settle(self, state: TrainingState) -> None:
        """Waits for a checkpoint that is being written, and tells of it."""
        if not self._untold:
            return
        self._store.settle()
        self._untold = False
        for callback in self._told:
            callback.on_checkpoint(state, self._store.folder / f"checkpoint-{self._saved_step}")
