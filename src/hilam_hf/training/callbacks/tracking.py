"""Logging to an experiment tracker, by accelerate's trackers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator

from .base import Callback, TrainingState


class Tracking(Callback):
    """Sends options, what the run is of, and every logged metric to a tracker.

    Args:
        accelerator: Made with the tracker.
        options: Options of the run.
        identity: Its data and model, see `run_identity`.
    """

    def __init__(self, accelerator: Accelerator, options: Mapping[str, Any], identity: Mapping[str, Any]):
        self._accelerator = accelerator
        self._told = {**_flat(options), **_flat(identity)}

    def on_train_begin(self, state: TrainingState) -> None:
        # A run that goes on computes steps again that were logged after its checkpoint: these replace them.
        options = {"tensorboard": {"purge_step": state.step + 1}} if state.step else {}
        self._accelerator.init_trackers("hilam", config=self._told, init_kwargs=options)

    def on_log(self, state: TrainingState) -> None:
        self._accelerator.log(state.metrics, step=state.step)

    def on_train_end(self, state: TrainingState) -> None:
        self._accelerator.end_training()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted names; what is no number or text as text, since trackers take nothing else."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, (int, float, str, bool)) else str(value)
    return flat
