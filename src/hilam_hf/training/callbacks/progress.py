"""A progress bar."""

from __future__ import annotations

from tqdm.auto import tqdm

from .base import Callback, TrainingState


class ProgressBar(Callback):
    """A tqdm bar with rate, loss and the share of time spent waiting for samples, on the main process."""

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
        if state.seconds_running:
            self._shown["waiting for data"] = f"{state.seconds_waiting / state.seconds_running:.0%}"
        if self._bar is not None:
            self._bar.set_postfix(self._shown)

    def on_train_end(self, state: TrainingState) -> None:
        if self._bar is not None:
            self._bar.close()
