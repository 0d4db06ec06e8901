"""Random numbers as a function of the seed and of where a run stands, so that no random state has to be kept."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def derived_seed(seed: int, *position: int) -> int:
    """A seed in [0, 2**63) for one place of a run; another place or another seed gives an unrelated one.

    Example:
        >>> derived_seed(0, 12, 0) == derived_seed(0, 12, 0) != derived_seed(0, 12, 1)
        True
    """
    return int(np.random.SeedSequence([seed, *position]).generate_state(1, np.uint64)[0] >> 1)


def seed_everything(seed: int, device: torch.device | None = None) -> None:
    """Starts the random streams of torch, numpy and Python at a seed.

    Args:
        seed: The seed.
        device: The device that is computed on, besides the CPU. None: all devices.
    """
    if device is None:
        torch.manual_seed(seed)
    else:
        # Much cheaper than asking every kind of device, and done for every part of a step.
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def random_streams_kept(device: torch.device) -> Iterator[None]:
    """Whatever is drawn within it, the caller's random streams go on afterwards as if nothing had been.

    Args:
        device: The device that is computed on.
    """
    sources: list[Any] = [torch] if device.type == "cpu" else [torch, torch.get_device_module(device)]
    torch_states = [source.get_rng_state() for source in sources]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        for source, torch_state in zip(sources, torch_states, strict=True):
            source.set_rng_state(torch_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
