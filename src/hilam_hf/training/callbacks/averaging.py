"""Exponential moving average of the weights: what is kept of a run is smoother than the weights of its last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .base import Callback, TrainingState


class WeightAveraging(Callback):
    """The average of a model's trainable parameters, by diffusers' `EMAModel`.

    After n updates it is d_n * average + (1 - d_n) * weights with d_n = min(decay, n / (n + 9)) and d_1 = 0, so that it
    starts at the weights after the first step and follows them closely at first. Frozen parameters are neither copied
    nor averaged. Nor are buffers (batch-norm statistics, use of codes), which are averages or counts by themselves: a
    model with averaged weights has the buffers of the last step. Of sharded parameters each process averages its shard.

    Args:
        decay: Weight of the average so far, in (0, 1).
    """

    name = "average"

    def __init__(self, decay: float):
        self.decay = decay
        self._names: list[str] = []
        self._parameters: list[nn.Parameter] = []
        self._average: Any = None

    def on_setup(self, state: TrainingState) -> None:
        # It takes seconds to import, so that only runs that average do it.
        from diffusers.training_utils import EMAModel

        trainable = {name: each for name, each in state.model.named_parameters() if each.requires_grad}
        self._names, self._parameters = list(trainable), list(trainable.values())
        self._average = EMAModel(self._parameters, decay=self.decay, foreach=True)

    def on_step_end(self, state: TrainingState) -> None:
        if not getattr(state.optimizer, "step_was_skipped", False):
            self._average.step(self._parameters)

    @property
    def num_updates(self) -> int:
        """Updates so far."""
        return self._average.optimization_step

    def copy_to_model(self) -> None:
        """Puts the average in the place of the model's weights, for good."""
        if self.num_updates:
            self._average.copy_to(self._parameters)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the model has the averaged weights; afterwards its own, bit for bit."""
        own = [parameter.detach().clone() for parameter in self._parameters]
        self.copy_to_model()
        try:
            yield
        finally:
            for parameter, value in zip(self._parameters, own, strict=True):
                parameter.data.copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        return dict(zip(self._names, self._average.shadow_params, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"num_updates": self.num_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._average.optimization_step = state["num_updates"]
