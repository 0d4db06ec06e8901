"""Labels of segments: clusters matched to true labels, and the edit score of the label sequences.

Shapes: N sequences, T steps of a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix


def match_labels(predicted: Sequence[ArrayLike], truth: Sequence[ArrayLike]) -> list[NDArray[Any]]:
    """Renames clusters to true labels, one to one, so that as many steps as possible agree.

    The Hungarian matching over all sequences together with which unsupervised action segmentation is scored (Sener and
    Yao 2018, Kukleva et al. 2019). It belongs to the measure: the true labels are those of the sequences scored.

    Args:
        predicted: N times (T,) clusters.
        truth: N times (T,) labels.

    Returns:
        N times (T,) labels; None where a step's cluster has no partner because there are more clusters than labels.

    Raises:
        ValueError: If lengths differ.
    """
    sizes = [len(np.asarray(item)) for item in predicted]
    if sizes != [len(np.asarray(item)) for item in truth]:
        raise ValueError("predicted and true labels differ in length; give one of each for every step")
    clusters, cluster_ids = np.unique(np.concatenate([np.asarray(item) for item in predicted]), return_inverse=True)
    labels, label_ids = np.unique(np.concatenate([np.asarray(item) for item in truth]), return_inverse=True)
    pairs = linear_sum_assignment(contingency_matrix(cluster_ids, label_ids), maximize=True)
    names = np.full(len(clusters), None, dtype=object)
    names[pairs[0]] = labels[pairs[1]]
    return np.split(names[cluster_ids], np.cumsum(sizes)[:-1])


def edit_score(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Segmental edit score of one sequence (Lea et al. 2016, 2017), 0 to 1.

    `1 - d / max(S, S')`, with d the Levenshtein distance of the two sequences of labels, in which a run of one label is
    one element, and S, S' their lengths. It asks for the right order, not the right times.

    Args:
        predicted: (T,) labels.
        truth: (T,) labels.
    """
    first, second = _runs(predicted), _runs(truth)
    return 1 - _levenshtein(first, second) / max(len(first), len(second))


def _runs(labels: ArrayLike) -> list[Any]:
    values = np.asarray(labels)
    return values[np.concatenate(([True], values[1:] != values[:-1]))].tolist()


def _levenshtein(first: Sequence[Any], second: Sequence[Any]) -> int:
    row = list(range(len(second) + 1))
    for i, label in enumerate(first, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (label != other))
    return row[-1]
