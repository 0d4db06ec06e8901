"""Arithmetic that several models share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

MeanOverParts: TypeAlias = Callable[[str, Tensor], Tensor]
"""(name, count) -> the mean of that count over all parts of a batch.

A batch may reach a model in n parts: one after the other (gradient accumulation), in several processes, or both. The
training loop takes the plain mean of the parts' losses and gradients. Where a loss divides by a count that depends on
the data, such as the number of valid time steps, a part divides by the mean of that count over the parts instead of by
its own: sum_i (s_i / mean(c)) / n = sum_i s_i / sum_i c_i. The mean over the parts is then the loss, and the gradient,
of the whole batch.

Models take it as `mean_over_parts` in `forward`; None says that the batch is whole. It gets a name, unique within the
model, and a float scalar on the device without gradient. It may wait for other processes, so a model calls it with the
same names in the same order for every part, also where a part has nothing to count; all parts have the same arguments.
Accumulation needs all counts before the first backward pass: `count_parts` of a model makes the same calls as `forward`
and computes no loss."""

CONSTANT = 1e-5
"""A dimension counts as constant where it deviates by no more than this fraction of its mean, or of the largest
deviation of any dimension: such a deviation is rounding, and dividing by it would make noise of it."""


def upcast(states: Tensor) -> Tensor:
    """`states` in float32, or as they are if wider."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def masked_mean(values: Tensor, mask: Tensor | None = None, count: Tensor | None = None) -> Tensor:
    """Mean of the values where a mask is true.

    Args:
        values: (...) floats. Where the mask is false they may be anything, NaN too.
        mask: Bool or 0/1, of the shape of `values` or of its leading axes. None: all values count.
        count: () what the sum is divided by, for a part of a batch: `mean_count`. None: the number of these values.

    Returns:
        A scalar; 0 if the mask is true nowhere.
    """
    if mask is None and count is None:
        return values.mean()
    kept = torch.ones_like(values, dtype=torch.bool) if mask is None else _kept(values, mask)
    # A count is 0 where no part has a value, and may lie between 0 and 1 where few of them do.
    divisor = kept.sum().clamp(min=1) if count is None else torch.where(count > 0, count, torch.ones_like(count))
    return torch.where(kept, values, torch.zeros_like(values)).sum() / divisor


def mean_count(name: str, values: Tensor, mask: Tensor | None, mean_over_parts: MeanOverParts | None) -> Tensor | None:
    """The `count` of `masked_mean(values, mask, count)` for a part of a batch.

    Args:
        name: The name of the count within the model.
        values: Of the shape of those to average; only the shape matters.
        mask: As for `masked_mean`.
        mean_over_parts: See `MeanOverParts`.

    Returns:
        () float: how many values the mask keeps, as the mean over the parts; None without `mean_over_parts`.
    """
    if mean_over_parts is None:
        return None
    if mask is None:
        return mean_over_parts(name, constant_count(values.numel(), values))
    return mean_over_parts(name, _kept(values, mask).sum().float())


def constant_count(number: int, like: Tensor) -> Tensor:
    """A count known on the host as a () float on the device of `like`, without a transfer."""
    return torch.full((), number, dtype=torch.float32, device=like.device)


def named_under(prefix: str, mean_over_parts: MeanOverParts) -> MeanOverParts:
    """`mean_over_parts` for a model inside another: its names get a prefix, "prefix/name"."""
    return lambda name, count: mean_over_parts(f"{prefix}/{name}", count)


def _kept(values: Tensor, mask: Tensor) -> Tensor:
    return mask.bool().view(*mask.shape, *(1,) * (values.ndim - mask.ndim)).expand_as(values)


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Within it fresh weights are a function of the seed; torch's streams go on as if nothing had been."""
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
