"""How long segments are: what a boundary rate alone hides, such as one-step segments beside very long ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ONE_STEP_WARNING = 0.5
"""Share of one-step segments above which a segmentation is said to have collapsed."""


@dataclass(frozen=True, kw_only=True)
class SegmentLengths:
    """Lengths of the segments of one stage, in latent actions (video frames).

    Attributes:
        one_step_share: Share of the segments that are one step long.
        median_length: The least length that at least half of the segments do not exceed.
        length_90: The same for 90 % of them.
        segments_per_episode: Mean number of segments of an episode.
    """

    one_step_share: float
    median_length: int
    length_90: int
    segments_per_episode: float

    def warning(self, stage: int) -> str | None:
        """A sentence where most segments are one step long; None otherwise."""
        if self.one_step_share <= ONE_STEP_WARNING:
            return None
        return (
            f"stage {stage}: {self.one_step_share:.0%} of the segments are one step long (more than "
            f"{ONE_STEP_WARNING:.0%}), so they are hardly skills, whatever the boundary rate says"
        )


class SegmentLengthCounts:
    """Collects the lengths of one stage's segments, an episode at a time."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._num_episodes = 0

    def add(self, boundaries: NDArray[np.bool_]) -> None:
        """Takes in an episode's boundaries (T,), True where a segment starts, as one does at 0."""
        starts = np.flatnonzero(boundaries)
        self._counts.update(np.diff(starts, append=len(boundaries)).tolist())
        self._num_episodes += 1

    def summary(self) -> SegmentLengths:
        """The lengths of all episodes together.

        Raises:
            ValueError: There was no episode.
        """
        if not self._num_episodes:
            raise ValueError("lengths of no segments: add at least one episode")
        lengths = np.array(sorted(self._counts))
        counts = np.array([self._counts[length] for length in lengths.tolist()])
        total = int(counts.sum())
        median, length_90 = (int(lengths[np.searchsorted(counts.cumsum(), share * total / 10)]) for share in (5, 9))
        return SegmentLengths(
            one_step_share=self._counts[1] / total,
            median_length=median,
            length_90=length_90,
            segments_per_episode=total / self._num_episodes,
        )
