"""Parts of HiLAM's loss (eq. 4) over packed rows, without a transfer from the device.

Shapes: P packed rows, R time steps of the reconstruction loss, C, H, W a frame, k stride.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..hnet.packing import SequenceLayout
from ..numerics import masked_mean


def neighbours(layout: SequenceLayout) -> Tensor:
    """(P - 1,) bool: whether rows t and t + 1 follow each other in one sequence."""
    is_pair = ~layout.is_start[1:]
    return is_pair if layout.valid_rows is None else is_pair & layout.valid_rows[1:]


def one_step_share(boundary_mask: Tensor, layout: SequenceLayout) -> Tensor:
    """Share of the chunks of packed rows (P,) that hold one row: a boundary, and another or the end right after it."""
    ends = F.pad(boundary_mask[1:] | ~neighbours(layout), (0, 1), value=True)
    valid = boundary_mask if layout.valid_rows is None else boundary_mask & layout.valid_rows
    return masked_mean(ends.float(), valid)


class Reconstruction(NamedTuple):
    """Time steps (R, 2), and the frames (R, C, H, W) I_(t+1) and I_(t+1+k) of each."""

    steps: Tensor
    frames: Tensor
    targets: Tensor


def check_reconstruction(steps: Tensor | None, frames: Tensor | None, targets: Tensor | None) -> Reconstruction:
    """The three inputs of the reconstruction loss together.

    Raises:
        ValueError: If one is missing, or shapes do not fit.
    """
    given = {"reconstruction_steps": steps, "reconstruction_frames": frames, "reconstruction_targets": targets}
    complete = steps is not None and frames is not None and targets is not None
    if complete and steps.shape == (len(frames), 2) and frames.ndim == 4 and frames.shape == targets.shape:
        return Reconstruction(steps, frames, targets)
    shapes = ", ".join(f"{name} {'none' if each is None else tuple(each.shape)}" for name, each in given.items())
    raise ValueError(
        f"reconstruction: got {shapes}, expected (R, 2), (R, C, H, W) and (R, C, H, W). Give R time steps with the "
        "two frames of each."
    )


def rows_of_steps(layout: SequenceLayout, steps: Tensor) -> Tensor:
    """(R,) packed rows of time steps (R, 2), pairs of a sequence and a time t in it that has a next one.

    A wrong time is found on the device, and is a RuntimeError.
    """
    sequence, time = steps.to(layout.cu_seqlens.device).long().unbind(1)
    torch._assert_async(
        ((sequence >= 0) & (time >= 0) & (time + 1 < layout.lengths[sequence])).all(),
        "reconstruction_steps: expected times t of a sequence from 0 to its length - 2, since t + 1 is reconstructed.",
    )
    return layout.cu_seqlens[sequence] + time
