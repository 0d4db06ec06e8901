"""Segmentation measures against brute force, closed forms and values worked out by hand."""

import math

import networkx as nx
import numpy as np
import pytest

from hilam_hf.evaluation.segmentation.labels import edit_score, match_labels
from hilam_hf.evaluation.segmentation.metrics import (
    BoundaryCounts,
    as_boundaries,
    boundary_rate,
    count_boundaries,
    coverage,
    evaluate_segmentation,
    f1_difference_interval,
    f1_interval,
    segment_ids,
    segment_lengths,
    segmentation_nmi,
)


def boundaries(*steps, length=20):
    """A segmentation with boundaries at 0 and at the given steps."""
    return np.isin(np.arange(length), [0, *steps])


def random_segmentation(generator, length=30):
    return boundaries(*generator.choice(length, generator.integers(0, 12), replace=False), length=length)


def test_labels_have_boundaries_where_they_change():
    assert as_boundaries(["a", "a", "b", "a"]).tolist() == [True, False, True, True]
    assert as_boundaries([3, 3, 3]).tolist() == [True, False, False]
    assert segment_ids(["a", "a", "b", "a"]).tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("bad", "message"),
    [([], "T >= 1"), (np.ones((2, 3)), "T >= 1"), ([False, True], "must start a segment")],
)
def test_malformed_segmentations_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        as_boundaries(bad)


@pytest.mark.parametrize("tolerance", [0, 1, 2, 4])
def test_matching_is_as_large_as_a_maximum_bipartite_matching(tolerance):
    generator = np.random.default_rng(tolerance)
    for _ in range(60):
        predicted, truth = random_segmentation(generator), random_segmentation(generator)
        found, wanted = np.flatnonzero(predicted)[1:], np.flatnonzero(truth)[1:]
        graph = nx.Graph()
        left = [("predicted", int(step)) for step in found]
        graph.add_nodes_from(left)
        graph.add_edges_from(
            (("predicted", int(p)), ("true", int(t))) for p in found for t in wanted if abs(p - t) <= tolerance
        )
        pairs = len(nx.bipartite.hopcroft_karp_matching(graph, left)) // 2
        assert count_boundaries(predicted, truth, tolerance) == BoundaryCounts(pairs, len(found), len(wanted))


def test_a_boundary_is_matched_once():
    assert count_boundaries(boundaries(9, 10, 11), boundaries(10), 2) == BoundaryCounts(1, 3, 1)
    assert count_boundaries(boundaries(10), boundaries(9, 11), 2) == BoundaryCounts(1, 1, 2)
    # Greedy choice of the nearest (10 with 11) would leave 8 without a partner.
    assert count_boundaries(boundaries(10, 13), boundaries(8, 11), 2) == BoundaryCounts(2, 2, 2)


def test_the_start_is_not_scored():
    assert count_boundaries(boundaries(), boundaries(1), 3) == BoundaryCounts(0, 0, 1)


def test_measures_of_counts():
    counts = BoundaryCounts(matched=3, predicted=4, true=6)
    assert (counts.precision, counts.recall, counts.f1) == (0.75, 0.5, 0.6)
    assert counts + BoundaryCounts(1, 2, 3) == BoundaryCounts(4, 6, 9)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (BoundaryCounts(0, 0, 0), (1, 1, 1, 1)),
        (BoundaryCounts(0, 5, 0), (0, 0, 0, -math.inf)),
        # HR 0, OS -1: 1 - (sqrt(2) + 0) / 2.
        (BoundaryCounts(0, 0, 5), (0, 0, 0, 1 - math.sqrt(2) / 2)),
    ],
)
def test_measures_where_there_is_nothing(counts, expected):
    assert (counts.precision, counts.recall, counts.f1, counts.r_value) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (BoundaryCounts(10, 10, 10), 1.0),
        # HR 1, OS 1: r1 = 1, r2 = 1 / sqrt(2).
        (BoundaryCounts(10, 20, 10), 1 - (1 + 1 / math.sqrt(2)) / 2),
        # HR 0.8, OS -0.1: r1 = sqrt(0.04 + 0.01), r2 = 0.1 / sqrt(2).
        (BoundaryCounts(8, 9, 10), 1 - (math.sqrt(0.05) + 0.1 / math.sqrt(2)) / 2),
    ],
)
def test_r_value_follows_its_formula(counts, expected):
    assert counts.r_value == pytest.approx(expected)


def test_over_segmentation_raises_recall_but_lowers_the_r_value():
    truth = boundaries(30, 60, 90, length=120)
    every_fourth = np.arange(120) % 4 == 0
    counts = count_boundaries(every_fourth, truth, 2)
    assert counts.recall == 1.0
    assert counts.r_value < count_boundaries(boundaries(30, 60, length=120), truth, 2).r_value


@pytest.mark.parametrize(
    ("predicted", "truth", "tolerance", "message"),
    [([True], [True, True], 1, "1 steps and the true one 2"), ([True], [True], -1, "tolerance must be at least 0")],
)
def test_counting_refuses_what_does_not_fit(predicted, truth, tolerance, message):
    with pytest.raises(ValueError, match=message):
        count_boundaries(predicted, truth, tolerance)


def nmi_of_tables(first, second):
    """Mutual information over the arithmetic mean of the entropies, from the definition."""
    joint = np.zeros((max(first) + 1, max(second) + 1))
    for pair in zip(first, second, strict=True):
        joint[pair] += 1 / len(first)

    def entropy(probabilities):
        return -sum(p * math.log(p) for p in np.ravel(probabilities) if p > 0)

    rows, columns = entropy(joint.sum(1)), entropy(joint.sum(0))
    return (rows + columns - entropy(joint)) / ((rows + columns) / 2)


def test_nmi_follows_its_definition():
    generator = np.random.default_rng(0)
    for _ in range(10):
        first, second = boundaries(*generator.integers(1, 20, 3)), boundaries(*generator.integers(1, 20, 5))
        expected = nmi_of_tables(segment_ids(first), segment_ids(second))
        assert segmentation_nmi(first, second) == pytest.approx(expected)


def test_nmi_tells_a_returning_phase_from_its_first_time():
    truth = ["a"] * 5 + ["b"] * 5 + ["a"] * 5
    assert segmentation_nmi(boundaries(5, 10, length=15), truth) == pytest.approx(1)
    assert segmentation_nmi(boundaries(), boundaries()) == 1
    assert segmentation_nmi(boundaries(), boundaries(7)) == 0


def test_coverage_and_purity_by_hand():
    # True segments 0-9 and 10-19; predicted 0-3, 4-12, 13-19. Largest overlaps 6 and 7.
    predicted, truth = boundaries(4, 13), boundaries(10)
    assert coverage(predicted, truth) == pytest.approx(13 / 20)
    # From the predicted ones: 4, 6, 7.
    assert coverage(truth, predicted) == pytest.approx(17 / 20)
    assert coverage(boundaries(), truth) == 1
    assert coverage(truth, boundaries()) == pytest.approx(0.5)


def test_rates_and_lengths():
    segmentations = [boundaries(5, 10), boundaries(length=7)]
    assert boundary_rate(segmentations) == pytest.approx(2 / (19 + 6))
    assert segment_lengths(segmentations).tolist() == [5, 5, 10, 7]
    with pytest.raises(ValueError, match="no sequence has two steps"):
        boundary_rate([[True]])


def test_edit_score_by_hand():
    assert edit_score(list("aabbcc"), list("abc")) == 1
    # kitten -> sitting takes three edits of seven.
    assert edit_score(list("kiten"), list("siting")) == pytest.approx(1 - 3 / 6)
    assert edit_score(list("aaaa"), list("bbbb")) == 0
    # One inserted segment of four.
    assert edit_score(list("aaxabb"), list("aaabbb")) == pytest.approx(0.5)


def test_clusters_are_matched_to_the_labels_they_cover_most():
    truth = [list("aaabbb"), list("aaaccc")]
    predicted = [[7, 7, 7, 2, 2, 2], [7, 7, 2, 9, 9, 9]]
    assert [item.tolist() for item in match_labels(predicted, truth)] == [list("aaabbb"), list("aabccc")]


def test_matching_maximises_the_whole_and_not_each_cluster():
    # Cluster 0 covers a 4 times and b 3 times, cluster 1 covers a 3 times: 0 -> b, 1 -> a agrees in 6 steps.
    truth = [list("aaaabbb") + list("aaa")]
    predicted = [[0] * 7 + [1] * 3]
    assert match_labels(predicted, truth)[0].tolist() == ["b"] * 7 + ["a"] * 3


def test_surplus_clusters_stay_without_a_label():
    matched = match_labels([[0, 0, 1, 2, 2]], [list("aaabb")])[0].tolist()
    assert matched == ["a", "a", None, "b", "b"]
    with pytest.raises(ValueError, match="differ in length"):
        match_labels([[0, 1]], [["a"]])


def test_scores_of_a_small_corpus():
    truth = [["a"] * 10 + ["b"] * 10, ["a"] * 5 + ["b"] * 5 + ["c"] * 10]
    predicted = [boundaries(11), boundaries(2, 10)]
    labels = [[0] * 11 + [1] * 9, [0] * 2 + [1] * 8 + [2] * 10]
    scores = evaluate_segmentation(predicted, truth, tolerance=1, predicted_labels=labels)
    assert scores.counts == (BoundaryCounts(1, 1, 1), BoundaryCounts(1, 2, 2))
    assert (scores.precision, scores.recall, scores.f1) == (2 / 3, 2 / 3, 2 / 3)
    assert scores.f1_per_sequence == pytest.approx((1 + 0.5) / 2)
    assert scores.boundary_rate == scores.true_boundary_rate == pytest.approx(3 / 38)
    assert (scores.mean_segment_length, scores.median_segment_length) == (8, 9)
    assert scores.true_mean_segment_length == 8
    # 10 of 10, 9 of 10; 3 of 5 (predicted 2-9), 5 of 5, 10 of 10.
    assert scores.coverage == pytest.approx((19 + 18) / 40)
    assert scores.purity == pytest.approx((10 + 9 + 2 + 5 + 10) / 40)
    assert scores.edit == 1
    assert 0 < scores.label_nmi < 1
    assert scores.f1_interval[0] <= scores.f1 <= scores.f1_interval[1]
    assert "counts" not in scores.to_dict()


def test_the_longer_sequence_counts_more_in_coverage():
    truth = [boundaries(10, length=20), boundaries(40, length=80)]
    predicted = [boundaries(length=20), boundaries(40, length=80)]
    assert evaluate_segmentation(predicted, truth, tolerance=0).purity == pytest.approx((10 + 80) / 100)
    assert evaluate_segmentation(truth, predicted, tolerance=0).coverage == pytest.approx((10 + 80) / 100)


@pytest.mark.parametrize(
    ("predicted", "truth", "labels", "message"),
    [
        ([], [], None, "expected as many, not 0"),
        ([[True]], [], None, "got 1 predicted and 0 true"),
        ([[True, True]], [[True, False]], None, "nothing to find"),
        ([[True, True]], [[True, True]], [[0, 1]], "need true labels"),
    ],
)
def test_evaluation_refuses_what_does_not_fit(predicted, truth, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate_segmentation(predicted, truth, tolerance=1, predicted_labels=labels)


def test_bootstrap_of_equal_sequences_has_no_width():
    assert f1_interval([BoundaryCounts(1, 2, 2)] * 5) == (0.5, 0.5)


def test_bootstrap_interval_is_that_of_a_mean_where_every_sequence_counts_alike():
    # With one predicted and one true boundary each, F1 is the mean of 200 draws of 0 or 1.
    counts = [BoundaryCounts(index % 2, 1, 1) for index in range(200)]
    margin = 1.96 * math.sqrt(0.25 / 200)
    assert f1_interval(counts, resamples=20000) == pytest.approx((0.5 - margin, 0.5 + margin), abs=0.01)


def test_differences_are_taken_on_the_same_sequences():
    better = [BoundaryCounts(index % 2, 1, 1) for index in range(50)]
    worse = [BoundaryCounts(0, 1, 1)] * 50
    assert f1_difference_interval(better, better) == (0, 0)
    assert f1_difference_interval(better, worse) == pytest.approx(f1_interval(better))
    with pytest.raises(ValueError, match="50 and of 1 sequences"):
        f1_difference_interval(better, worse[:1])
    with pytest.raises(ValueError, match="confidence must be within"):
        f1_interval(better, confidence=95)
