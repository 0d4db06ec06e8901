"""Segmentations without learning, to compare HiLAM's with: windows, chance, change points, clusters, speed.

All take the same arguments: sequences (T, D) standardised by the caller, a rate of boundaries a step (that of
`segmentation.boundary_rate`), training sequences for what has to be fitted, and a seed. All return one bool array (T,)
a sequence, True at the first step of every segment, its first entry included.

Shapes: N sequences, T steps of a sequence, D their width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import find_peaks
from sklearn.cluster import KMeans

from ...optional import require
from .metrics import Boundaries, BoundaryCounts, as_boundaries, boundary_rate, count_boundaries, segment_ids

Sequences = Sequence[NDArray[np.floating]]
CLUSTER_COUNTS = (2, 3, 4, 6, 8, 12, 16, 24)
MAX_FITTED_WINDOWS = 4096


class Baseline(Protocol):
    """What every function of this module that segments looks like."""

    def __call__(
        self, sequences: Sequences, rate: float, *, training: Sequences | None = None, seed: int = 0
    ) -> list[Boundaries]:
        """Segments N sequences (T, D) at about `rate` boundaries a step; fits to `training`, or to the sequences."""


def fixed_windows(
    sequences: Sequences, rate: float, *, training: Sequences | None = None, seed: int = 0
) -> list[Boundaries]:
    """Segments of one length, 1 / rate steps (rounded), counted from the first step."""
    _check(sequences, rate)
    length = max(1, round(1 / rate))
    return [np.arange(len(sequence)) % length == 0 for sequence in sequences]


def random_boundaries(
    sequences: Sequences, rate: float, *, training: Sequences | None = None, seed: int = 0
) -> list[Boundaries]:
    """Boundaries drawn uniformly without replacement, `rate` times T - 1 of them (rounded)."""
    _check(sequences, rate)
    generator = np.random.default_rng(seed)
    return [
        _from_steps(1 + generator.permutation(len(sequence) - 1)[: _budget(sequence, rate)], len(sequence))
        for sequence in sequences
    ]


def latent_speed(
    sequences: Sequences, rate: float, *, training: Sequences | None = None, seed: int = 0, smoothing: int = 1
) -> list[Boundaries]:
    """The highest peaks of the distance between neighbouring latents, `rate` times T - 1 of them (rounded).

    Args:
        sequences: N times (T, D).
        rate: Boundaries a step.
        training: Not used.
        seed: Not used.
        smoothing: Latents that are averaged on either side before the distance is taken; fewer at the ends.
    """
    _check(sequences, rate)
    return [_highest_peaks(_speed(sequence, smoothing), _budget(sequence, rate)) for sequence in sequences]


def change_points(
    sequences: Sequences,
    rate: float,
    *,
    training: Sequences | None = None,
    seed: int = 0,
    kernel: Literal["linear", "rbf", "cosine"] = "linear",
    budget: Literal["sequence", "corpus"] = "sequence",
    min_size: int = 2,
) -> list[Boundaries]:
    """Optimal change points of `ruptures.KernelCPD` (Truong, Oudre and Vayatis 2020).

    Args:
        sequences: N times (T, D).
        rate: Boundaries a step.
        training: Sequences on which the penalty is found for `budget="corpus"`.
        seed: Not used.
        kernel: "linear" finds changes of the mean (least squares), "rbf" those of the distribution (kernel width by the
            median heuristic), "cosine" those of the direction.
        budget: "sequence" gives each sequence `rate` times T - 1 change points (rounded), by dynamic programming;
            "corpus" gives all sequences one penalty a change point, by PELT (Killick et al. 2012), so that those with
            more changes get more.
        min_size: Least length of a segment in steps.

    Raises:
        ImportError: If `ruptures` is not installed.
    """
    _check(sequences, rate)

    def prepare(items: Sequences) -> list[_ChangePoints]:
        return [_ChangePoints(item, kernel, min_size) for item in items]

    detectors = prepare(sequences)
    if budget == "sequence":
        return [detector.best(_budget(sequence, rate)) for detector, sequence in zip(detectors, sequences, strict=True)]
    fitted_to = detectors if training is None else prepare(training)
    penalty = _penalty_for_rate(lambda value: boundary_rate([item.worth(value) for item in fitted_to]), rate)
    return [detector.worth(penalty) for detector in detectors]


def window_clusters(
    sequences: Sequences,
    rate: float,
    *,
    training: Sequences | None = None,
    seed: int = 0,
    window: int = 5,
    num_clusters: int | None = None,
) -> list[Boundaries]:
    """Boundaries where the k-means cluster of the window around a step changes.

    Args:
        sequences: N times (T, D).
        rate: Boundaries a step.
        training: Sequences whose windows the clusters are fitted to.
        seed: Seed of k-means.
        window: Latents in a window, centred on the step and put one after the other; the ends are repeated.
        num_clusters: k. None: the one of `CLUSTER_COUNTS` whose rate is nearest to `rate` on the training sequences.
    """
    _check(sequences, rate)
    fitted_to = sequences if training is None else training
    windows = np.concatenate([_windows(sequence, window) for sequence in fitted_to])
    drawn = np.random.default_rng(seed).permutation(len(windows))[:MAX_FITTED_WINDOWS]
    counts = [count for count in CLUSTER_COUNTS if count < len(drawn)] if num_clusters is None else [num_clusters]
    models = [KMeans(count, n_init=1, random_state=seed).fit(windows[drawn]) for count in counts]
    lengths = [len(sequence) for sequence in fitted_to]
    nearest = min(models, key=lambda model: abs(boundary_rate(_cut(model.predict(windows), lengths)) - rate))
    scored = np.concatenate([_windows(sequence, window) for sequence in sequences])
    return _cut(nearest.predict(scored), [len(sequence) for sequence in sequences])


def _cut(labels: NDArray[Any], lengths: Sequence[int]) -> list[Boundaries]:
    """Boundaries where labels change, of sequences that lie one after the other."""
    return [as_boundaries(part) for part in np.split(labels, np.cumsum(lengths)[:-1])]


BASELINES: Mapping[str, Baseline] = {
    "fixed windows": fixed_windows,
    "random": random_boundaries,
    "latent speed": latent_speed,
    "latent speed, smoothed": partial(latent_speed, smoothing=5),
    "k-means of windows (1)": partial(window_clusters, window=1),
    "k-means of windows (5)": partial(window_clusters, window=5),
    "k-means of windows (9)": partial(window_clusters, window=9),
    "change points, l2": partial(change_points, kernel="linear"),
    "change points, rbf": partial(change_points, kernel="rbf"),
    "change points, l2, one penalty": partial(change_points, kernel="linear", budget="corpus"),
    "change points, rbf, one penalty": partial(change_points, kernel="rbf", budget="corpus"),
}
"""The baselines of a study by name."""


def best_rate(
    baseline: Baseline,
    training: Sequences,
    truth: Sequence[ArrayLike],
    rates: Sequence[float],
    *,
    tolerance: int,
    seed: int = 0,
) -> float:
    """The rate with which a baseline reaches its highest F1 on training sequences.

    Args:
        baseline: One of this module's functions.
        training: N times (T, D).
        truth: N true segmentations (T,).
        rates: Rates to try.
        tolerance: Steps that a matched pair of boundaries may be apart.
        seed: Seed of the baseline.
    """

    def f1(rate: float) -> float:
        predicted = baseline(training, rate, training=training, seed=seed)
        counts = (count_boundaries(*pair, tolerance) for pair in zip(predicted, truth, strict=True))
        return sum(counts, BoundaryCounts(0, 0, 0)).f1

    return max(rates, key=f1)


def label_segments(
    sequences: Sequences,
    segmentations: Sequence[ArrayLike],
    num_labels: int,
    *,
    training: tuple[Sequences, Sequence[ArrayLike]] | None = None,
    seed: int = 0,
) -> list[NDArray[np.int64]]:
    """Clusters segments by their mean latents, so that segmentations without labels can be compared with labelled ones.

    Args:
        sequences: N times (T, D).
        segmentations: N segmentations (T,) of them.
        num_labels: Clusters of k-means; fewer where there are fewer segments.
        training: Sequences and segmentations that the clusters are fitted to; None: the ones given.
        seed: Seed of k-means.

    Returns:
        N times (T,) cluster of each step's segment.
    """
    pairs = zip(*(training or (sequences, segmentations)), strict=True)
    means = np.concatenate([_segment_means(*pair) for pair in pairs])
    model = KMeans(min(num_labels, len(np.unique(means, axis=0))), n_init=3, random_state=seed).fit(means)
    scored = [_segment_means(*pair) for pair in zip(sequences, segmentations, strict=True)]
    clusters = model.predict(np.concatenate(scored))
    # Segments are numbered from 0 in every sequence; `clusters` holds them one sequence after the other.
    first = np.cumsum([0, *map(len, scored)])
    return [
        clusters[start + segment_ids(item)].astype(np.int64)
        for start, item in zip(first[:-1], segmentations, strict=True)
    ]


def _segment_means(sequence: NDArray[np.floating], segmentation: ArrayLike) -> NDArray[np.floating]:
    starts = np.flatnonzero(as_boundaries(segmentation))
    return np.add.reduceat(sequence, starts) / np.diff([*starts, len(sequence)])[:, None]


def _check(sequences: Sequences, rate: float) -> None:
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0 and at most 1 boundary a step, got {rate}")
    for sequence in sequences:
        if np.ndim(sequence) != 2 or len(sequence) == 0:
            raise ValueError(f"a sequence must have shape (T, D) with T >= 1, got {np.shape(sequence)}")


def _budget(sequence: NDArray[np.floating], rate: float) -> int:
    return round(rate * (len(sequence) - 1))


def _from_steps(steps: ArrayLike, length: int) -> Boundaries:
    boundaries = np.zeros(length, dtype=np.bool_)
    boundaries[np.asarray(steps, dtype=np.int64)] = True
    boundaries[0] = True
    return boundaries


def _speed(sequence: NDArray[np.floating], smoothing: int) -> NDArray[np.float64]:
    """(T - 1,) for every step but the first: how far the means of the latents before it and from it on differ."""
    sums = np.concatenate((np.zeros((1, sequence.shape[1])), np.cumsum(sequence, axis=0, dtype=np.float64)))
    steps = np.arange(1, len(sequence))
    first, last = np.maximum(steps - smoothing, 0), np.minimum(steps + smoothing, len(sequence))
    before = (sums[steps] - sums[first]) / (steps - first)[:, None]
    after = (sums[last] - sums[steps]) / (last - steps)[:, None]
    return np.linalg.norm(after - before, axis=1)


def _highest_peaks(speed: NDArray[np.float64], count: int) -> Boundaries:
    """Boundaries at the highest local maxima, and at the highest other values where there are too few."""
    peaks, _ = find_peaks(np.concatenate(([-np.inf], speed, [-np.inf])))
    is_peak = np.isin(np.arange(len(speed)), peaks - 1)
    order = np.lexsort((-speed, ~is_peak))
    return _from_steps(1 + order[:count], len(speed) + 1)


class _ChangePoints:
    """`ruptures.KernelCPD` on one sequence, which may be too short to be cut."""

    def __init__(self, sequence: NDArray[np.floating], kernel: str, min_size: int):
        ruptures = require("ruptures", extra="segmentation")
        self.length = len(sequence)
        self.most = len(sequence) // min_size - 1
        self._detector = ruptures.KernelCPD(kernel=kernel, min_size=min_size)
        if self.most > 0:
            self._detector.fit(np.ascontiguousarray(sequence))

    def best(self, count: int) -> Boundaries:
        """The `count` change points of least cost; fewer where there is no room."""
        return self._predict(n_bkps=min(count, self.most)) if count > 0 else self._predict()

    def worth(self, penalty: float) -> Boundaries:
        """The change points of least cost plus `penalty` times their number."""
        return self._predict(pen=penalty)

    def _predict(self, **stop: Any) -> Boundaries:
        ends = self._detector.predict(**stop) if stop and self.most > 0 else [self.length]
        return _from_steps(ends[:-1], self.length)


def _penalty_for_rate(rate_of: Callable[[float], float], rate: float) -> float:
    """The penalty whose rate is nearest to the one wanted; the rate falls as it grows, so its logarithm is bisected."""
    low, high = np.log(1e-3), np.log(1e5)
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (middle, high) if rate_of(np.exp(middle)) > rate else (low, middle)
    return float(min(np.exp([low, high]), key=lambda penalty: abs(rate_of(penalty) - rate)))


def _windows(sequence: NDArray[np.floating], window: int) -> NDArray[np.floating]:
    """(T, window * D) the latents around each step."""
    offsets = np.arange(window) - window // 2
    around = np.clip(np.arange(len(sequence))[:, None] + offsets, 0, len(sequence) - 1)
    return np.asarray(sequence)[around].reshape(len(sequence), -1)
