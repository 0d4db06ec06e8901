"""Conditions under which a run is validated, so that it goes on as if it had not been."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from .callbacks import TrainingState
from .ema import AveragedWeights

Validate = Callable[[TrainingState], Mapping[str, float]]
"""Measures `state.model`, as it stands, on held-out data; returns metrics by name."""


@contextmanager
def validating(model: nn.Module, average: AveragedWeights | None, *, device: torch.device, seed: int) -> Iterator[None]:
    """Within it `model` is in evaluation mode, has its averaged weights if there are any, and draws from `seed`.

    Afterwards weights, mode and every random stream are as they were.
    """
    was_training = model.training
    with nullcontext() if average is None else average.applied(), _random_numbers_from(seed, device):
        model.eval()
        try:
            yield
        finally:
            model.train(was_training)


@contextmanager
def _random_numbers_from(seed: int, device: torch.device) -> Iterator[None]:
    sources: list[Any] = [torch] if device.type == "cpu" else [torch, torch.get_device_module(device)]
    torch_states = [source.get_rng_state() for source in sources]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        for source, torch_state in zip(sources, torch_states, strict=True):
            source.set_rng_state(torch_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
