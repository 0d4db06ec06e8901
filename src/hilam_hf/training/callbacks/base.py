"""What a callback of the training loop is, and what it sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn


@dataclass(kw_only=True)
class TrainingState:
    """What a callback sees.

    Attributes:
        step: Optimiser steps done so far.
        max_steps: Optimiser steps of the whole run.
        model: The model being trained, unwrapped.
        optimizer: Its optimiser, as accelerate wraps it.
        device: The device that is computed on.
        is_main_process: Whether this process may write and print.
        output_dir: Folder of the run, or None when nothing is written.
        output: What the model gave for the last part of the step's batch.
        metrics: What was logged last, by name: means over the last `log_every` steps, what callbacks and validation
            measured, or both.
        seconds_waiting: Time since the start of this process' run in which it waited for samples.
        seconds_running: Time since the start of this process' run.
        stop_reason: Why the run ends early, if a callback asked for that.
    """

    step: int
    max_steps: int
    model: nn.Module
    optimizer: AcceleratedOptimizer
    device: torch.device
    is_main_process: bool
    output_dir: Path | None
    output: Any = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds_waiting: float = 0.0
    seconds_running: float = 0.0
    stop_reason: str | None = None

    def stop(self, reason: str) -> None:
        """Ends the run after this step, in every process, as if it had been its last one."""
        self.stop_reason = reason

    def is_due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens now; 0 means never."""
        return every > 0 and (self.step % every == 0 or self.step == self.max_steps)


class Callback:
    """Base of the training loop's callbacks; every method may be left out.

    All of them are called in every process, in the order of the callbacks.

    Attributes:
        name: By which checkpoints know its state; the name of the class where that does not say.
    """

    name: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        if "name" not in cls.__dict__:
            cls.name = cls.__name__

    def on_setup(self, state: TrainingState) -> None:
        """Called once model and optimiser stand, before a checkpoint is loaded."""

    def on_train_begin(self, state: TrainingState) -> None:
        """Called once before the first step, after a checkpoint has been loaded."""

    def on_step_end(self, state: TrainingState) -> Mapping[str, float] | None:
        """Called after every optimiser step; may return metrics to be logged."""
        return None

    def on_log(self, state: TrainingState) -> None:
        """Called every `log_every` steps, and when something else was measured, with fresh `state.metrics`."""

    def on_step_done(self, state: TrainingState) -> None:
        """Called after every optimiser step once what was measured has been logged."""

    def on_checkpoint(self, state: TrainingState, folder: Path) -> None:
        """Called once a checkpoint is complete."""

    def on_train_end(self, state: TrainingState) -> None:
        """Called once at the end, also when training fails."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-serialisable state to be kept in checkpoints."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""

    def tensors(self) -> dict[str, Tensor]:
        """Tensors to be kept in checkpoints, in a file named after the callback; they are read back in place."""
        return {}
