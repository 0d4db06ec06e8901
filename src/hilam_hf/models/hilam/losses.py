"""Parts of HiLAM's loss (eq. 4) over packed rows, without a transfer from the device.

Shapes: P packed rows, B sequences, R time steps drawn for the reconstruction loss.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..hnet.packing import SequenceLayout


def neighbours(layout: SequenceLayout) -> Tensor:
    """(P - 1,) bool: whether rows t and t + 1 follow each other in one sequence."""
    is_pair = ~layout.is_start[1:]
    return is_pair if layout.valid_rows is None else is_pair & layout.valid_rows[1:]


class DrawnPairs(NamedTuple):
    """Rows drawn for the reconstruction loss."""

    rows: Tensor
    """(R,) rows t, in random order; each pair once while there are R of them, then again from the first."""
    exists: Tensor
    """() bool: whether there was any pair; without one, `rows` mean nothing."""


def draw_pairs(is_pair: Tensor, count: int) -> DrawnPairs:
    """Draws `count` of the rows where `is_pair` (P - 1,) is True, at random and without replacement while they last."""
    # Sorting random keys shuffles the pairs; rows that are none get a key behind all others.
    keys = torch.rand(is_pair.shape, device=is_pair.device).masked_fill(~is_pair, 2.0)
    available = is_pair.sum()
    order = torch.arange(count, device=is_pair.device) % available.clamp(min=1)
    return DrawnPairs(keys.argsort()[order], available > 0)
