"""How well sequences are cut into segments: boundaries, segments and segment labels against the true ones.

A segmentation of T steps is a bool array (T,), True at the first step of every segment, so that its first entry is
always True; that first boundary is given and never scored. True segments may also be given as T labels (the phases of a
scripted expert, say), which have a boundary wherever the label changes.

Shapes: N sequences, T steps of a sequence, S segments of a sequence.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import normalized_mutual_info_score

from .labels import edit_score, match_labels

Boundaries = NDArray[np.bool_]


def as_boundaries(segmentation: ArrayLike) -> Boundaries:
    """Boundaries of a segmentation that is given as such, or as one label a step.

    Args:
        segmentation: (T,) bool, True at the first step of every segment; or (T,) labels of any other type.

    Returns:
        (T,) bool.

    Raises:
        ValueError: If it is not one-dimensional, or empty, or its first step starts no segment.

    Example:
        >>> as_boundaries(["reach", "reach", "pull"])
        array([ True, False,  True])
    """
    values = np.asarray(segmentation)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"a segmentation must have shape (T,) with T >= 1, got {values.shape}; give one entry a step")
    if values.dtype != np.bool_:
        return np.concatenate(([True], values[1:] != values[:-1]))
    if not values[0]:
        raise ValueError("the first step of a segmentation must start a segment; set its first boundary to True")
    return values


def segment_ids(boundaries: ArrayLike) -> NDArray[np.int64]:
    """(T,) number of the segment that each step belongs to, from 0."""
    return np.cumsum(as_boundaries(boundaries)) - 1


@dataclass(frozen=True)
class BoundaryCounts:
    """Predicted and true boundaries, and how many of them belong together; counts of several sequences add up.

    With nothing to find and nothing found every measure is 1; with only one of the two, precision, recall and F1 are 0.

    Attributes:
        matched: Pairs of a predicted and a true boundary.
        predicted: Predicted boundaries.
        true: True boundaries.
    """

    matched: int
    predicted: int
    true: int

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        return BoundaryCounts(self.matched + other.matched, self.predicted + other.predicted, self.true + other.true)

    @property
    def precision(self) -> float:
        """Fraction of the predicted boundaries that are true."""
        return self.matched / self.predicted if self.predicted else float(self.true == 0)

    @property
    def recall(self) -> float:
        """Fraction of the true boundaries that are found."""
        return self.matched / self.true if self.true else float(self.predicted == 0)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.predicted + self.true
        return 2 * self.matched / total if total else 1.0

    @property
    def r_value(self) -> float:
        """The R-value of Räsänen, Laine and Altosaar (2009), which unlike F1 does not reward over-segmentation.

        With hit rate HR (the recall) and over-segmentation OS = predicted / true - 1, it is
        `1 - (sqrt((1 - HR)^2 + OS^2) + |HR - 1 - OS| / sqrt(2)) / 2`: 1 at HR = 1, OS = 0, and without a lower bound.
        """
        if self.true == 0:
            return 1.0 if self.predicted == 0 else -math.inf
        over = self.predicted / self.true - 1
        to_ideal = math.hypot(1 - self.recall, over)
        to_line = abs(self.recall - 1 - over) / math.sqrt(2)
        return 1 - (to_ideal + to_line) / 2


def count_boundaries(predicted: ArrayLike, truth: ArrayLike, tolerance: int) -> BoundaryCounts:
    """Matches boundaries one to one, as many as possible, none further apart than the tolerance.

    On a line, pairing the earliest boundaries that fit is a maximum matching. It is how hits are counted in word and
    phone segmentation and in music structure analysis (Turnbull et al. 2007, as in mir_eval).

    Args:
        predicted: (T,) segmentation.
        truth: (T,) segmentation.
        tolerance: Steps that a matched pair may be apart, at least 0.

    Raises:
        ValueError: If lengths differ or the tolerance is negative.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance must be at least 0 steps, got {tolerance}")
    found, wanted = (_scored_steps(segmentation) for segmentation in _same_length(predicted, truth))
    matched = i = j = 0
    while i < len(found) and j < len(wanted):
        distance = found[i] - wanted[j]
        matched += abs(distance) <= tolerance
        i, j = i + (distance <= tolerance), j + (distance >= -tolerance)
    return BoundaryCounts(int(matched), len(found), len(wanted))


def _scored_steps(boundaries: Boundaries) -> NDArray[np.int64]:
    return np.flatnonzero(boundaries[1:]) + 1


def _same_length(predicted: ArrayLike, truth: ArrayLike) -> tuple[Boundaries, Boundaries]:
    first, second = as_boundaries(predicted), as_boundaries(truth)
    if len(first) != len(second):
        raise ValueError(
            f"the predicted segmentation has {len(first)} steps and the true one {len(second)}; give both at the "
            "same resolution, such as that of the latent actions"
        )
    return first, second


def segmentation_nmi(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Normalised mutual information between the segment that a step belongs to in either segmentation.

    I(P; Q) / ((H(P) + H(Q)) / 2), each segment being a class of its own (arithmetic normalisation; Strehl and Ghosh
    2002, Vinh et al. 2010). 1 for equal segmentations, a single segment in both included; 0 if only one is cut.
    """
    first, second = _same_length(predicted, truth)
    return float(normalized_mutual_info_score(segment_ids(second), segment_ids(first), average_method="arithmetic"))


def coverage(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Share of the steps in the predicted segment that overlaps most with their true segment, 0 to 1.

    Segmentation coverage of pyannote.metrics (Bredin 2017): the largest overlap of each true segment with a predicted
    one, summed and divided by T. Cutting more lowers it; with the arguments exchanged it is the purity, which cutting
    less lowers.
    """
    first, second = _same_length(predicted, truth)
    overlap = np.zeros((second.sum(), first.sum()), dtype=np.int64)
    np.add.at(overlap, (segment_ids(second), segment_ids(first)), 1)
    return float(overlap.max(axis=1).sum() / len(first))


def boundary_rate(segmentations: Sequence[ArrayLike]) -> float:
    """Boundaries a step over all sequences, the given first boundary of a sequence not counted.

    Raises:
        ValueError: If no sequence has two steps.
    """
    boundaries = [as_boundaries(segmentation) for segmentation in segmentations]
    steps = sum(len(item) - 1 for item in boundaries)
    if steps == 0:
        raise ValueError("no sequence has two steps, so there is no place for a boundary; give longer sequences")
    return float(sum(item[1:].sum() for item in boundaries) / steps)


def segment_lengths(segmentations: Sequence[ArrayLike]) -> NDArray[np.int64]:
    """Lengths in steps of all segments of all sequences."""
    return np.concatenate([np.bincount(segment_ids(segmentation)) for segmentation in segmentations])


def f1_interval(
    counts: Sequence[BoundaryCounts], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979) of the corpus' F1, sequences being drawn with replacement.

    Args:
        counts: N counts, one a sequence.
        confidence: Coverage, within (0, 1).
        resamples: Bootstrap samples.
        seed: Seed of the draws.
    """
    return _percentiles(_bootstrap_f1(counts, resamples, seed), confidence)


def f1_difference_interval(
    counts: Sequence[BoundaryCounts],
    other: Sequence[BoundaryCounts],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the difference of two methods' F1 on the same sequences (paired).

    Args:
        counts: N counts of one method.
        other: N counts of the other, which is subtracted, of the same sequences in the same order.
        confidence: Coverage, within (0, 1).
        resamples: Bootstrap samples.
        seed: Seed of the draws.

    Raises:
        ValueError: If the numbers of sequences differ.
    """
    if len(counts) != len(other):
        raise ValueError(f"got counts of {len(counts)} and of {len(other)} sequences; give those of the same ones")
    return _percentiles(_bootstrap_f1(counts, resamples, seed) - _bootstrap_f1(other, resamples, seed), confidence)


def _bootstrap_f1(counts: Sequence[BoundaryCounts], resamples: int, seed: int) -> NDArray[np.float64]:
    table = np.array([dataclasses.astuple(count) for count in counts])
    drawn = np.random.default_rng(seed).integers(len(table), size=(resamples, len(table)))
    matched, predicted, true = table[drawn].sum(axis=1).T
    total = predicted + true
    return np.divide(2 * matched, total, out=np.ones(resamples), where=total > 0)


def _percentiles(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be within (0, 1), such as 0.95; got {confidence}")
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class SegmentationScores:
    """Agreement of predicted with true segmentations of a corpus.

    Attributes:
        tolerance: Steps that a matched pair of boundaries may be apart.
        num_sequences: N.
        precision: Of the boundaries of all sequences together, as are recall, f1 and r_value.
        recall: See `BoundaryCounts`.
        f1: See `BoundaryCounts`.
        f1_interval: 95 % bootstrap interval of `f1` over sequences.
        f1_per_sequence: Mean of each sequence's own F1.
        r_value: See `BoundaryCounts`.
        nmi: `segmentation_nmi`, mean over sequences.
        coverage: `coverage` over all steps.
        purity: The same with prediction and truth exchanged.
        boundary_rate: Predicted boundaries a step, as `boundary_rate`.
        true_boundary_rate: The same of the true ones.
        mean_segment_length: Of the predicted segments, in steps.
        median_segment_length: The same, the median.
        true_mean_segment_length: Of the true segments.
        edit: `edit_score` after `match_labels`, mean over sequences; None without labels.
        label_nmi: Normalised mutual information of predicted and true labels over all steps; None without labels.
        counts: Boundary counts of each sequence, for paired comparisons.
    """

    tolerance: int
    num_sequences: int
    precision: float
    recall: float
    f1: float
    f1_interval: tuple[float, float]
    f1_per_sequence: float
    r_value: float
    nmi: float
    coverage: float
    purity: float
    boundary_rate: float
    true_boundary_rate: float
    mean_segment_length: float
    median_segment_length: float
    true_mean_segment_length: float
    edit: float | None = None
    label_nmi: float | None = None
    counts: tuple[BoundaryCounts, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What a JSON report holds of the scores: all but the counts."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "counts"}
        return {**values, "f1_interval": list(self.f1_interval)}


def evaluate_segmentation(
    predicted: Sequence[ArrayLike],
    truth: Sequence[ArrayLike],
    *,
    tolerance: int,
    predicted_labels: Sequence[ArrayLike] | None = None,
    seed: int = 0,
) -> SegmentationScores:
    """Compares segmentations of a corpus with the true ones.

    Args:
        predicted: N segmentations (T,).
        truth: N true segmentations (T,), bool or labels.
        tolerance: Steps that a matched pair of boundaries may be apart; for a tolerance in seconds multiply by the
            latent actions a second.
        predicted_labels: N times (T,) cluster of each step (`label_segments`), for `edit` and `label_nmi`; `truth` must
            then hold labels. Clusters are matched to true labels over all sequences.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: If there are no sequences, numbers or lengths differ, no true boundary exists in any sequence, or
            labels are compared with a truth that has none.

    Example:
        >>> scores = evaluate_segmentation([[True, False, True, False]], [["a", "a", "a", "b"]], tolerance=1)
        >>> scores.f1, scores.coverage
        (1.0, 0.75)
    """
    if len(predicted) != len(truth) or not len(truth):
        raise ValueError(f"got {len(predicted)} predicted and {len(truth)} true segmentations, expected as many, not 0")
    counts = [count_boundaries(*pair, tolerance) for pair in zip(predicted, truth, strict=True)]
    total = sum(counts, BoundaryCounts(0, 0, 0))
    if total.true == 0:
        raise ValueError("the true segmentations have no boundary after the first step, so there is nothing to find")
    lengths, true_lengths = segment_lengths(predicted), segment_lengths(truth)
    steps = [len(np.asarray(item)) for item in truth]
    edit, label_nmi = (None, None) if predicted_labels is None else _label_scores(predicted_labels, truth)
    return SegmentationScores(
        tolerance=tolerance,
        num_sequences=len(counts),
        precision=total.precision,
        recall=total.recall,
        f1=total.f1,
        f1_interval=f1_interval(counts, seed=seed),
        f1_per_sequence=float(np.mean([count.f1 for count in counts])),
        r_value=total.r_value,
        nmi=float(np.mean([segmentation_nmi(*pair) for pair in zip(predicted, truth, strict=True)])),
        coverage=float(np.average([coverage(*pair) for pair in zip(predicted, truth, strict=True)], weights=steps)),
        purity=float(np.average([coverage(*pair) for pair in zip(truth, predicted, strict=True)], weights=steps)),
        boundary_rate=boundary_rate(predicted),
        true_boundary_rate=boundary_rate(truth),
        mean_segment_length=float(lengths.mean()),
        median_segment_length=float(np.median(lengths)),
        true_mean_segment_length=float(true_lengths.mean()),
        edit=edit,
        label_nmi=label_nmi,
        counts=tuple(counts),
    )


def _label_scores(predicted: Sequence[ArrayLike], truth: Sequence[ArrayLike]) -> tuple[float, float]:
    """Edit score and label NMI."""
    if any(np.asarray(item).dtype == np.bool_ for item in truth):
        raise ValueError("predicted_labels need true labels, got true boundaries; give truth as one label a step")
    matched = match_labels(predicted, truth)
    edit = float(np.mean([edit_score(*pair) for pair in zip(matched, truth, strict=True)]))
    pooled = [np.concatenate([np.asarray(item) for item in items]) for items in (truth, predicted)]
    return edit, float(normalized_mutual_info_score(*pooled, average_method="arithmetic"))
