"""Skills of a video: segments at every stage, and their expansion to the video's resolution (eq. 5).

Shapes: T time steps of the latent actions (row t belongs to frame t), S segments, d width of a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

SkillToken = Literal["first", "last", "mean"]
"""Which of a segment's features stands for it: the first (the paper), the last, or their mean."""


def segment_ids(boundaries: Tensor) -> Tensor:
    """k_t of eq. 5: (T,) bool boundaries to (T,) int64 segment numbers, counted from 1."""
    return boundaries.long().cumsum(0)


def unfold(skills: Tensor, boundaries: Tensor) -> Tensor:
    """Expands one vector a segment to one a time step: z̄_t = z_{k_t} (eq. 5).

    Args:
        skills: (S, d) one vector a segment.
        boundaries: (T,) bool, True at the first step of every segment; S of them, the first at t = 0.

    Returns:
        (T, d).

    Raises:
        ValueError: If the first step starts no segment, or the numbers of boundaries and skills differ.
    """
    ids = segment_ids(boundaries)
    if len(ids) == 0 or not bool(boundaries[0]):
        raise ValueError("boundaries: the first step must start a segment, got none there. Set boundaries[0] to True.")
    if ids[-1] != len(skills):
        raise ValueError(f"skills: got {len(skills)} rows for {int(ids[-1])} boundaries, expected one row a boundary.")
    return skills[ids - 1]


def unfold_boundaries(stage_boundaries: Sequence[Tensor]) -> list[Tensor]:
    """Expresses the boundaries of every stage at the resolution of the outermost one.

    Args:
        stage_boundaries: b^1, b^2, ...; b^(s+1) has one entry for each True of b^s.

    Returns:
        b̄^1, b̄^2, ..., each (T,) bool: a step starts a stage-(s+1) segment if it starts a stage-s segment whose token
        does.

    Raises:
        ValueError: If the length of one stage is not the number of boundaries of the stage before it.
    """
    unfolded: list[Tensor] = []
    for stage, boundaries in enumerate(stage_boundaries, start=1):
        if not unfolded:
            unfolded.append(boundaries.bool())
            continue
        steps = unfolded[-1].nonzero().squeeze(1)
        if len(steps) != len(boundaries):
            raise ValueError(
                f"stage_boundaries: got {len(boundaries)} entries at stage {stage}, expected {len(steps)}, one for "
                f"each boundary of stage {stage - 1}."
            )
        at_resolution = torch.zeros_like(unfolded[-1])
        at_resolution[steps[boundaries.bool()]] = True
        unfolded.append(at_resolution)
    return unfolded


class SegmentPieces:
    """One vector for each segment of a sequence whose features arrive in pieces.

    Memory grows with the segments and the pieces, not with the features.

    Args:
        token: How a segment's features make its vector.

    Example:
        >>> pieces = SegmentPieces("mean")
        >>> pieces.add(torch.tensor([[1.0], [2.0]]), torch.tensor([True, False]))
        >>> pieces.add(torch.tensor([[6.0], [7.0]]), torch.tensor([False, True]))
        >>> pieces.tokens()[:, 0]
        tensor([3., 7.])
    """

    def __init__(self, token: SkillToken) -> None:
        self.token = token
        self._num_segments = 0
        self._values: list[Tensor] = []
        self._counts: list[Tensor] = []
        self._ids: list[Tensor] = []

    def add(self, features: Tensor, boundaries: Tensor) -> None:
        """Takes the next features (T, d) and their boundaries (T,); the very first one must start a segment."""
        if len(features) == 0:
            return
        ids = self._num_segments + segment_ids(boundaries)
        self._num_segments = int(ids[-1])
        values = features.double() if self.token == "mean" else features
        reduced = _reduce_segments(values, torch.ones_like(ids), ids, self.token)
        for parts, part in zip((self._values, self._counts, self._ids), reduced, strict=True):
            parts.append(part)

    def tokens(self) -> Tensor:
        """(S, d) in float32, one row a segment so far."""
        values, counts, _ = _reduce_segments(
            torch.cat(self._values), torch.cat(self._counts), torch.cat(self._ids), self.token
        )
        return (values / counts[:, None] if self.token == "mean" else values).float()


def _reduce_segments(values: Tensor, counts: Tensor, ids: Tensor, token: SkillToken) -> tuple[Tensor, Tensor, Tensor]:
    """Merges neighbouring rows (T, d) of the same segment: the first, the last, or the sum; and the counts' sums."""
    unique, run, lengths = torch.unique_consecutive(ids, return_inverse=True, return_counts=True)
    total = torch.zeros_like(unique).index_add(0, run, counts)
    if token == "mean":
        return values.new_zeros(len(unique), values.shape[1]).index_add(0, run, values), total, unique
    last = lengths.cumsum(0) - 1
    return values[last if token == "last" else last - lengths + 1], total, unique


@dataclass(frozen=True)
class SkillStage:
    """The segments of one stage."""

    boundaries: Tensor
    """(T,) bool at the resolution of the latent actions, True at the first step of a segment."""
    skills: Tensor
    """(S, d) z^s: the encoder feature of each segment that the model's `skill_token` says, by default the first; at
    stage 0 the latent actions themselves."""

    @property
    def segment_ids(self) -> Tensor:
        """(T,) int64 segment of each step, counted from 1."""
        return segment_ids(self.boundaries)

    def unfold(self) -> Tensor:
        """(T, d) the skill of the segment that each step belongs to."""
        return unfold(self.skills, self.boundaries)


@dataclass(frozen=True)
class SkillExtraction:
    """Segments and skills of one sequence of latent actions, on the CPU."""

    stages: tuple[SkillStage, ...]
    """Stage 0, the latent actions (every step a segment), then one entry a chunking stage, outermost first."""
    skill_stage: int
    """The stage whose tokens are the skills by default."""

    @classmethod
    def from_tokens(
        cls, latent_actions: Tensor, stage_boundaries: Sequence[Tensor], skills: Sequence[Tensor], skill_stage: int
    ) -> SkillExtraction:
        """Builds it from what the stages produce at their own resolutions.

        Args:
            latent_actions: (T, D) stage 0, in its original units.
            stage_boundaries: b^s of stages 1, 2, ..., each as long as its own token sequence.
            skills: (S, d) tokens z^s of stages 1, 2, ...
            skill_stage: The default stage.
        """
        every_step = torch.ones(len(latent_actions), dtype=torch.bool)
        pairs = zip(unfold_boundaries(stage_boundaries), skills, strict=True)
        return cls((SkillStage(every_step, latent_actions), *(SkillStage(*pair) for pair in pairs)), skill_stage)

    @property
    def num_stages(self) -> int:
        """Number of stages above the latent actions; the last one is `stages[num_stages]`."""
        return len(self.stages) - 1

    def __len__(self) -> int:
        """T, the number of latent actions."""
        return len(self.stages[0].boundaries)

    def unfold(self, stage: int | None = None) -> Tensor:
        """(T, d) the unfolded tokens z̄ of a stage, by default the skill stage.

        Raises:
            ValueError: If there is no such stage.
        """
        stage = self.skill_stage if stage is None else stage
        if not 0 <= stage <= self.num_stages:
            raise ValueError(
                f"stage: got {stage}, expected 0 (the latent actions) to {self.num_stages}. Pick one of them."
            )
        return self.stages[stage].unfold()

    def boundary_rates(self) -> tuple[float, ...]:
        """For each stage from 1: its segments divided by the tokens of the stage below, to be compared with 1 / N."""
        counts = [len(stage.skills) for stage in self.stages]
        return tuple(count / below for below, count in pairwise(counts))
