"""Lengths of segments, in closed form."""

import numpy as np
import pytest

from hilam_hf.data.corpora.segment_lengths import SegmentLengthCounts, SegmentLengths


def lengths_of(*episodes: list[int]) -> SegmentLengths:
    """The summary of episodes that are given as lists of lengths."""
    counts = SegmentLengthCounts()
    for lengths in episodes:
        boundaries = np.zeros(sum(lengths), dtype=bool)
        boundaries[np.cumsum([0, *lengths[:-1]])] = True
        counts.add(boundaries)
    return counts.summary()


def test_equal_segments() -> None:
    assert lengths_of([4] * 10, [4] * 20) == SegmentLengths(
        one_step_share=0, median_length=4, length_90=4, segments_per_episode=15
    )


def test_a_collapse_at_an_ordinary_boundary_rate_is_seen_and_warned_of() -> None:
    """8 segments of one step and 2 of 16: 10 boundaries in 40 steps, as with 10 segments of 4."""
    summary = lengths_of([1] * 4 + [16], [16] + [1] * 4)
    assert summary == SegmentLengths(one_step_share=0.8, median_length=1, length_90=16, segments_per_episode=5)
    assert "stage 1: 80% of the segments are one step long (more than 50%)" in str(summary.warning(1))


def test_half_of_the_segments_is_not_most_of_them() -> None:
    summary = lengths_of([1, 3, 1, 5])
    assert summary == SegmentLengths(one_step_share=0.5, median_length=1, length_90=5, segments_per_episode=4)
    assert summary.warning(2) is None


def test_quantiles_are_lengths_that_occur() -> None:
    summary = lengths_of([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    assert (summary.median_length, summary.length_90) == (5, 9)


def test_no_episode_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one episode"):
        SegmentLengthCounts().summary()
