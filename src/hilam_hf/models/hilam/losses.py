"""Parts of HiLAM's loss (eq. 4) over packed rows, without a transfer from the device.

Shapes: P packed rows, R time steps of the reconstruction loss, C, H, W a frame, k stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...video import as_float_frames
from ..hnet.dynamic_chunking import BoundaryCounts
from ..hnet.modeling_hnet import StageTokens
from ..hnet.packing import SequenceLayout
from ..latent_actions.dynamics import mean_num_pairs, share_of_mean
from ..numerics import MeanOverParts, masked_mean, mean_count, named_under


def neighbours(layout: SequenceLayout) -> Tensor:
    """(P - 1,) bool: whether rows t and t + 1 follow each other in one sequence."""
    is_pair = ~layout.is_start[1:]
    return is_pair if layout.valid_rows is None else is_pair & layout.valid_rows[1:]


class Counts(NamedTuple):
    """What the losses of a part of a batch divide by: means over the parts. All None where the batch is whole."""

    pairs: Tensor | None
    """() time steps with a next one."""
    stages: tuple[BoundaryCounts | None, ...]
    """One entry a chunking stage, outermost first."""


def mean_counts(layout: SequenceLayout, stages: Sequence[StageTokens], mean_over_parts: MeanOverParts | None) -> Counts:
    """The counts of a part, taken over all parts; all of HiLAM's but those of the reconstruction loss."""
    is_pair = neighbours(layout)
    pairs = mean_count("latent_pairs", is_pair, is_pair, mean_over_parts)
    return Counts(pairs, tuple(_stage_counts(n, stage, mean_over_parts) for n, stage in enumerate(stages, start=1)))


def _stage_counts(number: int, stage: StageTokens, mean_over_parts: MeanOverParts | None) -> BoundaryCounts | None:
    mask, boundaries = stage.boundary_mask, _valid_boundaries(stage.boundary_mask, stage.layout)
    rows = mean_count(f"stage{number}/rows", mask, stage.layout.valid_rows, mean_over_parts)
    num_boundaries = mean_count(f"stage{number}/boundaries", mask, boundaries, mean_over_parts)
    return None if rows is None or num_boundaries is None else BoundaryCounts(rows, num_boundaries)


def boundary_rate(boundary_mask: Tensor, layout: SequenceLayout, counts: BoundaryCounts | None = None) -> Tensor:
    """Boundaries per row of packed rows (P,)."""
    return masked_mean(boundary_mask.float(), layout.valid_rows, None if counts is None else counts.rows)


def one_step_share(boundary_mask: Tensor, layout: SequenceLayout, counts: BoundaryCounts | None = None) -> Tensor:
    """Share of the chunks of packed rows (P,) that hold one row: a boundary, and another or the end right after it."""
    ends = F.pad(boundary_mask[1:] | ~neighbours(layout), (0, 1), value=True)
    valid = _valid_boundaries(boundary_mask, layout)
    return masked_mean(ends.float(), valid, None if counts is None else counts.boundaries)


def _valid_boundaries(boundary_mask: Tensor, layout: SequenceLayout) -> Tensor:
    return boundary_mask if layout.valid_rows is None else boundary_mask & layout.valid_rows


class Reconstruction(NamedTuple):
    """Time steps (R, 2), and the frames (R, C, H, W) I_(t+1) and I_(t+1+k) of each."""

    steps: Tensor
    frames: Tensor
    targets: Tensor

    def float_frames(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Both frames of each step as floats in [0, 1], on a device."""
        return as_float_frames(self.frames.to(device)), as_float_frames(self.targets.to(device))


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


def reconstruction_of_part(
    dynamics: Any, frames: Tensor, latents: Tensor, targets: Tensor, mean_over_parts: MeanOverParts
) -> Tensor:
    """The reconstruction loss of a part of a batch, with a model's `loss_of_part` or else a mean over the steps."""
    mean_over_parts = named_under("reconstruction", mean_over_parts)
    if hasattr(dynamics, "loss_of_part"):
        return dynamics.loss_of_part(frames, latents, targets, mean_over_parts)
    return share_of_mean(getattr(dynamics, "loss", dynamics)(frames, latents, targets), frames, mean_over_parts)


def count_reconstruction(dynamics: Any, frames: Tensor, targets: Tensor, mean_over_parts: MeanOverParts) -> None:
    """The calls of `mean_over_parts` that `reconstruction_of_part` makes; R may be 0."""
    mean_over_parts = named_under("reconstruction", mean_over_parts)
    if hasattr(dynamics, "loss_of_part"):
        dynamics.count_parts(mean_over_parts, frames, targets)
    else:
        mean_num_pairs(frames, mean_over_parts)


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
