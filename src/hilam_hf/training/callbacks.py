"""Features of the training loop as callbacks with state, so that resuming is exact."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from tqdm.auto import tqdm


@dataclass(kw_only=True)
class TrainingState:
    """What a callback sees.

    Attributes:
        step: Optimiser steps done so far.
        max_steps: Optimiser steps of the whole run.
        model: The model being trained, unwrapped.
        is_main_process: Whether this process may write and print.
        output_dir: Folder of the run, or None when nothing is written.
        metrics: What was logged last, by name: means over the last `log_every` steps, what callbacks and validation
            measured, or both.
    """

    step: int
    max_steps: int
    model: nn.Module
    is_main_process: bool
    output_dir: Path | None
    metrics: dict[str, float]


class Callback:
    """Base of the training loop's callbacks; every method may be left out."""

    def on_train_begin(self, state: TrainingState) -> None:
        """Called once before the first step, after a checkpoint has been loaded."""

    def on_step_end(self, state: TrainingState) -> Mapping[str, float] | None:
        """Called after every optimiser step, before the weights are averaged; may return metrics to be logged."""
        return None

    def on_log(self, state: TrainingState) -> None:
        """Called every `log_every` steps, and when something else was measured, with fresh `state.metrics`."""

    def on_train_end(self, state: TrainingState) -> None:
        """Called once at the end, also when training fails."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-serialisable state to be kept in checkpoints."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""


class ProgressBar(Callback):
    """A tqdm bar with rate and loss, on the main process."""

    def __init__(self, description: str):
        self.description = description
        self._bar: tqdm | None = None
        self._shown: dict[str, str] = {}

    def on_train_begin(self, state: TrainingState) -> None:
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.step,
            desc=self.description,
            unit="step",
            disable=not state.is_main_process,
            dynamic_ncols=True,
        )

    def on_step_end(self, state: TrainingState) -> None:
        if self._bar is not None:
            self._bar.update()

    def on_log(self, state: TrainingState) -> None:
        self._shown |= {name: f"{value:.4g}" for name, value in state.metrics.items() if "loss" in name}
        if self._bar is not None:
            self._bar.set_postfix(self._shown)

    def on_train_end(self, state: TrainingState) -> None:
        if self._bar is not None:
            self._bar.close()


class History(Callback):
    """Keeps every logged metric as (step, value) pairs, and writes them to `history.json` in the output folder."""

    def __init__(self) -> None:
        self.entries: dict[str, list[tuple[int, float]]] = {}

    def on_log(self, state: TrainingState) -> None:
        for name, value in state.metrics.items():
            self.entries.setdefault(name, []).append((state.step, value))

    def on_train_end(self, state: TrainingState) -> None:
        if state.is_main_process and state.output_dir is not None:
            (state.output_dir / "history.json").write_text(json.dumps(self.entries))

    def state_dict(self) -> dict[str, Any]:
        return {"entries": self.entries}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.entries = {name: [(step, value) for step, value in pairs] for name, pairs in state["entries"].items()}
