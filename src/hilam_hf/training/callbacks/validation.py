"""Validation while a run goes on, and the weights that did best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..randomness import derived_seed, seed_everything
from .averaging import WeightAveraging
from .base import Callback, TrainingState

Validate = Callable[[TrainingState], Mapping[str, float]]
"""Measures `state.model`, as it stands, on held-out data; returns metrics by name."""
BEST_BY = "validation/loss"


class Validation(Callback):
    """Measures the model every so many steps, in evaluation mode, and keeps the weights with the lowest loss so far.

    The model has its averaged weights meanwhile, if there are any; those are then kept, too.

    Args:
        measure: Called in every process; what it draws at random starts from the same seed each time.
        every: Steps between two validations; the last step is one, too.
        average: The averaged weights of the run.
        seed: Of the draws.

    Attributes:
        best_step: Step of the best weights; None before the first validation with a loss.
        best_loss: Their loss.
    """

    name = "best"

    def __init__(self, measure: Validate, every: int, *, average: WeightAveraging | None, seed: int):
        self._measure = measure
        self._every = every
        self._average = average
        self._seed = seed
        self._model: nn.Module | None = None
        self._best: dict[str, Tensor] = {}
        self.best_step: int | None = None
        self.best_loss = math.inf

    def on_setup(self, state: TrainingState) -> None:
        self._model = state.model

    def on_step_end(self, state: TrainingState) -> Mapping[str, float] | None:
        if not state.is_due(self._every):
            return None
        was_training = state.model.training
        with nullcontext() if self._average is None else self._average.applied():
            state.model.eval()
            try:
                seed_everything(derived_seed(self._seed, state.step))
                metrics = self._measure(state)
            finally:
                state.model.train(was_training)
            if metrics.get(BEST_BY, math.inf) < self.best_loss:
                self.best_loss, self.best_step = metrics[BEST_BY], state.step
                self._best = {name: each.detach().clone() for name, each in self._present().items()}
        return metrics

    def copy_to_model(self) -> None:
        """Puts the best weights in the place of the model's, for good."""
        with torch.no_grad():
            for name, value in self._present().items():
                value.copy_(self._best[name])

    def tensors(self) -> dict[str, Tensor]:
        return self._best

    def state_dict(self) -> dict[str, Any]:
        # JSON has no infinity.
        return {"best_step": self.best_step, "best_loss": None if self.best_step is None else self.best_loss}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best_step = state["best_step"]
        self.best_loss = math.inf if self.best_step is None else state["best_loss"]
        # To be read back into.
        self._best = (
            {} if self.best_step is None else {n: torch.zeros_like(each) for n, each in self._present().items()}
        )

    def _present(self) -> dict[str, Tensor]:
        """What may differ from the weights that training starts from: frozen parameters stay as they are."""
        assert self._model is not None
        trained = {name: each.data for name, each in self._model.named_parameters() if each.requires_grad}
        return {**trained, **dict(self._model.named_buffers())}
