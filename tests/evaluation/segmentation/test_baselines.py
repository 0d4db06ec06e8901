"""Baselines on sequences whose segments are known."""

import itertools

import numpy as np
import pytest

from hilam_hf.evaluation.segmentation.baselines import (
    BASELINES,
    best_rate,
    change_points,
    fixed_windows,
    label_segments,
    latent_speed,
    random_boundaries,
    window_clusters,
)
from hilam_hf.evaluation.segmentation.metrics import (
    BoundaryCounts,
    as_boundaries,
    boundary_rate,
    count_boundaries,
    evaluate_segmentation,
)

LEVELS = np.array([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]])


def piecewise(seed, noise=0.2):
    """A sequence of 30 to 60 steps in three segments of constant mean, and its labels."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(generator.permutation(3), generator.integers(10, 21, 3))
    return LEVELS[labels] + noise * generator.normal(size=(len(labels), 3)), labels


@pytest.fixture(scope="module")
def corpus():
    sequences, labels = zip(*(piecewise(seed) for seed in range(12)), strict=True)
    return list(sequences), list(labels)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_gives_segmentations_of_about_the_rate(corpus, name):
    sequences, labels = corpus
    rate = boundary_rate(labels)
    segmented = BASELINES[name](sequences[:6], rate, training=sequences[6:], seed=0)
    assert [len(item) for item in segmented] == [len(sequence) for sequence in sequences[:6]]
    assert all(item.dtype == np.bool_ and item[0] for item in segmented)
    # Clusters can't be cut more finely than one at a time.
    assert boundary_rate(segmented) == pytest.approx(rate, rel=0.3 if "k-means" not in name else 1.0)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_is_a_function_of_its_seed(corpus, name):
    sequences, _ = corpus
    first, second = (BASELINES[name](sequences[:3], 0.1, training=sequences[3:6], seed=5) for _ in range(2))
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_takes_the_shortest_sequences(name):
    generator = np.random.default_rng(0)
    sequences = [generator.normal(size=(length, 2)) for length in (1, 2, 3, 12)]
    segmented = BASELINES[name](sequences, 0.5, training=[generator.normal(size=(20, 2))])
    assert [len(item) for item in segmented] == [1, 2, 3, 12]
    assert all(item[0] for item in segmented)


@pytest.mark.parametrize("name", [name for name in BASELINES if "windows" not in name and name != "random"])
def test_methods_that_look_at_the_latents_find_clear_changes(corpus, name):
    sequences, labels = corpus
    # One more than there are, where two of 45 steps are rounded: recall only.
    segmented = BASELINES[name](sequences, boundary_rate(labels) * 1.4, training=sequences)
    assert evaluate_segmentation(segmented, labels, tolerance=1).recall > 0.95


def test_optimal_change_points_are_those_of_an_exhaustive_search():
    sequence, _ = piecewise(3, noise=2.0)
    sequence = sequence[:24]

    def cost(edges):
        return sum(((part - part.mean(0)) ** 2).sum() for part in np.split(sequence, edges))

    fitting = (e for e in itertools.combinations(range(2, 23), 3) if min(np.diff((0, *e, 24))) >= 2)
    best = min(fitting, key=cost)
    found = change_points([sequence], 3 / 23)[0]
    assert np.flatnonzero(found)[1:].tolist() == list(best)


def test_one_penalty_gives_more_changes_to_sequences_that_have_more(corpus):
    sequences, labels = corpus
    flat = [0.2 * np.random.default_rng(seed).normal(size=(40, 3)) for seed in range(12)]
    rate = boundary_rate([*labels, *(np.zeros(40, dtype=int) for _ in flat)])
    segmented = change_points([*sequences, *flat], rate, budget="corpus")
    counts = [int(item[1:].sum()) for item in segmented]
    assert counts == [2] * 12 + [0] * 12


def test_the_penalty_is_that_of_the_training_sequences(corpus):
    sequences, labels = corpus
    flat = [0.05 * np.random.default_rng(seed).normal(size=(40, 3)) for seed in range(3)]
    segmented = change_points(flat, boundary_rate(labels), training=sequences, budget="corpus")
    assert [int(item[1:].sum()) for item in segmented] == [0, 0, 0]


def test_the_penalty_gives_the_rate_where_nothing_stands_out():
    noise = [np.random.default_rng(seed).normal(size=(60, 2)) for seed in range(20)]
    for rate in (0.05, 0.1, 0.2):
        assert boundary_rate(change_points(noise, rate, budget="corpus")) == pytest.approx(rate, rel=0.05)


def test_fixed_windows_have_the_length_of_the_rate():
    assert np.flatnonzero(fixed_windows([np.zeros((20, 1))], 0.15)[0]).tolist() == [0, 7, 14]


def test_random_boundaries_are_uniform_and_at_the_rate():
    sequence = [np.zeros((11, 1))] * 4000
    segmented = np.array(random_boundaries(sequence, 0.3, seed=1))
    assert (segmented[:, 1:].sum(axis=1) == 3).all()
    # Four standard deviations of a frequency of 0.3 in 4000 draws.
    assert np.abs(segmented[:, 1:].mean(axis=0) - 0.3).max() < 4 * np.sqrt(0.21 / 4000)
    assert not np.array_equal(segmented, random_boundaries(sequence, 0.3, seed=2))


def test_latent_speed_takes_peaks_before_their_flanks():
    # Distances 1, 5, 4, 0, 3, 0: the peaks are at the second and fifth, though the third is higher than the fifth.
    sequence = np.cumsum([0, 1, 5, 4, 0, 3, 0]).astype(float)[:, None]
    assert np.flatnonzero(latent_speed([sequence], 2 / 6)[0]).tolist() == [0, 2, 5]
    assert np.flatnonzero(latent_speed([sequence], 3 / 6)[0]).tolist() == [0, 2, 3, 5]


def test_smoothing_compares_means_on_both_sides():
    # Alternating noise is fastest everywhere but at the step of the mean (-1 to -0.8), and vanishes in a mean of two.
    sequence = (np.array([1.0, -1.0] * 6) + np.repeat([0.0, -1.8], 6))[:, None]
    assert latent_speed([sequence], 1 / 11, smoothing=2)[0][6]
    assert not latent_speed([sequence], 1 / 11)[0][6]


def test_clusters_of_windows_are_fitted_to_the_training_sequences():
    # In training 0 and 10 were told apart: 4 is still a kind of 0. On its own the sequence has two levels.
    training = [np.repeat([[0.0], [10.0]], 10, axis=0)]
    sequence = np.repeat([[0.0], [4.0]], 10, axis=0)
    found = window_clusters([sequence], 0.05, training=training, window=1, num_clusters=2)[0]
    assert np.flatnonzero(found).tolist() == [0]
    found = window_clusters([sequence], 0.05, window=1, num_clusters=2)[0]
    assert np.flatnonzero(found).tolist() == [0, 10]


def test_a_window_reaches_to_both_sides():
    # A single odd step changes the cluster of a window of one, and is outvoted in one of five.
    sequence = np.repeat([[0.0], [10.0]], 10, axis=0)
    sequence[4] = 10.0
    one, five = (window_clusters([sequence], 0.1, window=window, num_clusters=2)[0] for window in (1, 5))
    assert np.flatnonzero(one).tolist() == [0, 4, 5, 10]
    assert count_boundaries(five, as_boundaries([0] * 10 + [1] * 10), 1) == BoundaryCounts(1, 1, 1)


@pytest.mark.parametrize("rate", [0, -0.1, 1.1])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(ValueError, match="rate must be above 0"):
        fixed_windows([np.zeros((5, 1))], rate)


def test_sequences_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(T, D\)"):
        random_boundaries([np.zeros(5)], 0.1)


def test_the_best_rate_is_the_true_one_of_a_method_that_finds_all(corpus):
    sequences, labels = corpus
    true_rate = boundary_rate(labels)
    rates = [0.3 * true_rate, 0.6 * true_rate, true_rate, 2 * true_rate, 4 * true_rate]
    assert best_rate(change_points, sequences, labels, rates, tolerance=1) == true_rate


def test_segments_of_one_level_get_one_label(corpus):
    sequences, labels = corpus
    segmented = [as_boundaries(item) for item in labels]
    clusters = label_segments(sequences, segmented, 3, training=(sequences[:6], segmented[:6]))
    scores = evaluate_segmentation(segmented, labels, tolerance=0, predicted_labels=clusters)
    assert (scores.edit, scores.label_nmi) == (1, pytest.approx(1))


def test_labels_are_constant_within_a_segment(corpus):
    sequences, _ = corpus
    segmented = random_boundaries(sequences, 0.2)
    for boundaries, clusters in zip(segmented, label_segments(sequences, segmented, 3), strict=True):
        assert not (as_boundaries(clusters) & ~boundaries).any()


def test_more_labels_than_segments_are_asked_for():
    sequence = np.repeat([[0.0], [1.0]], 5, axis=0)
    clusters = label_segments([sequence], [as_boundaries([0] * 5 + [1] * 5)], 10)[0]
    assert count_boundaries(as_boundaries(clusters), as_boundaries([0] * 5 + [1] * 5), 0).f1 == 1
