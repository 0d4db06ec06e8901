"""Arithmetic that several models share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

CONSTANT = 1e-5
"""A dimension counts as constant where it deviates by no more than this fraction of its mean, or of the largest
deviation of any dimension: such a deviation is rounding, and dividing by it would make noise of it."""


def upcast(states: Tensor) -> Tensor:
    """`states` in float32, or as they are if wider."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of the values where a mask is true.

    Args:
        values: (...) floats. Where the mask is false they may be anything, NaN too.
        mask: Bool or 0/1, of the shape of `values` or of its leading axes. None: all values count.

    Returns:
        A scalar; 0 if the mask is true nowhere.
    """
    if mask is None:
        return values.mean()
    kept = mask.bool().view(*mask.shape, *(1,) * (values.ndim - mask.ndim)).expand_as(values)
    return torch.where(kept, values, torch.zeros_like(values)).sum() / kept.sum().clamp(min=1)


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Within it fresh weights are a function of the seed; torch's random streams go on afterwards as if nothing had been."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def is_constant(mean: Any, std: Any) -> Any:
    """Which dimensions vary so little that they are not to be divided by their deviation; see `CONSTANT`.

    Args:
        mean: (D,) tensor or numpy array, or any other centre of the values.
        std: (D,), alike, or half of the range of the values.

    Returns:
        (D,) bool.
    """
    return (std <= CONSTANT * abs(mean)) | (std <= CONSTANT * std.max())
