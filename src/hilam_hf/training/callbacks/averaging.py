"""Exponential moving average of the weights: what is kept of a run is smoother than the weights of its last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

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
        self._trained: dict[str, nn.Parameter] = {}
        self._parameters: list[Any] = []
        self._average: Any = None

    def on_setup(self, state: TrainingState) -> None:
        # It takes seconds to import, so that only runs that average do it.
        from diffusers.training_utils import EMAModel

        self._trained = {name: each for name, each in state.model.named_parameters() if each.requires_grad}
        self._parameters = [_own(each) for each in self._trained.values()]
        self._average = EMAModel(self._parameters, decay=self.decay, foreach=True)

    def on_step_end(self, state: TrainingState) -> None:
        if not state.optimizer.step_was_skipped:
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
        averages = zip(self._trained.items(), self._average.shadow_params, strict=True)
        return {name: _shared_as(parameter, average) for (name, parameter), average in averages}

    def state_dict(self) -> dict[str, Any]:
        return {"num_updates": self.num_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._average.optimization_step = state["num_updates"]


def _own(parameter: nn.Parameter) -> Tensor:
    """A parameter, or this process' shard of it, in the same memory: averaging takes no others."""
    if not isinstance(parameter, DTensor):
        return parameter
    own: Any = parameter.detach()
    return own.to_local().requires_grad_()


def _shared_as(parameter: nn.Parameter, shard: Tensor) -> Tensor:
    """A tensor that is shared out over the processes as a parameter is."""
    if not isinstance(parameter, DTensor):
        return shard
    return DTensor.from_local(
        shard, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )
