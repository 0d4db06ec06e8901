"""Spread, rank and codes of latent actions, against closed forms."""

import numpy as np
import pytest

from hilam_hf.evaluation.lam.latents import appearance_statistics, code_statistics, latent_statistics, perplexity

# Columns that are orthogonal and of mean 0, so the covariance of their multiples is exactly diagonal.
SIGNS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)


def test_ranks_of_a_known_covariance() -> None:
    statistics = latent_statistics(SIGNS * [2, 1, 1] + [3, 0, 0])
    # Eigenvalues 4, 1, 1: shares 2/3, 1/6, 1/6.
    assert statistics.variance_shares == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    assert statistics.participation_ratio == pytest.approx(36 / 18)
    assert statistics.entropy_rank == pytest.approx((3 / 2) ** (2 / 3) * 6 ** (1 / 3))
    assert statistics.std == pytest.approx([2, 1, 1])
    # Variance 6; mean square norm 6 + 9.
    assert statistics.relative_spread == pytest.approx((6 / 15) ** 0.5)
    assert statistics.dead_dimensions == 0


@pytest.mark.parametrize("width", [1, 2, 3])
def test_ranks_count_directions_of_equal_variance_in_any_basis(width: int) -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    statistics = latent_statistics((SIGNS * (np.arange(3) < width)) @ rotation)
    assert statistics.participation_ratio == pytest.approx(width)
    assert statistics.entropy_rank == pytest.approx(width)


def test_a_constant_has_no_rank_and_no_spread() -> None:
    for value in (0.0, 0.1):
        statistics = latent_statistics(np.full((50, 3), value))
        assert statistics.participation_ratio is None and statistics.entropy_rank is None
        assert statistics.variance_shares == ()
        assert statistics.dead_dimensions == 3
        assert not statistics.relative_spread or statistics.relative_spread < 1e-12


def test_vectors_that_are_not_finite_are_counted_and_left_out() -> None:
    rows = np.concatenate([SIGNS, [[np.nan, 0, 0], [0, np.inf, 0]]])
    statistics = latent_statistics(rows)
    assert (statistics.num_latents, statistics.num_not_finite) == (6, 2)
    assert statistics.std == pytest.approx([1, 1, 1])
    assert latent_statistics(np.full((3, 2), np.nan)).num_not_finite == 3


def test_perplexity_of_known_counts() -> None:
    assert perplexity(np.array([5, 5, 5, 5])) == pytest.approx(4)
    assert perplexity(np.array([7, 0, 0])) == pytest.approx(1)
    # Entropy of 1/2, 1/4, 1/4 is 1.5 bits.
    assert perplexity(np.array([2, 1, 1, 0])) == pytest.approx(2**1.5)


def test_code_use_by_position_and_together() -> None:
    codes = np.array([[0, 3], [0, 3], [1, 3], [2, 3]])
    statistics = code_statistics(codes, codebook_size=5)
    assert statistics.counts == ((2, 1, 1, 0, 0), (0, 0, 0, 4, 0))
    assert statistics.perplexity == pytest.approx([2**1.5, 1])
    assert statistics.used == (3, 1)
    assert statistics.dead_codes == (4,)
    assert statistics.distinct_sequences == 3
    assert statistics.possible_sequences == 25
    assert statistics.sequence_perplexity == pytest.approx(2**1.5)


def test_codes_outside_the_codebook_are_refused() -> None:
    with pytest.raises(ValueError, match=r"codes must be in \[0, 5\), got 0 to 5"):
        code_statistics(np.array([[0, 5]]), codebook_size=5)


def test_shares_of_looks() -> None:
    # Two videos with means -1 and 1, and a variance of 1 within each: half of the variance lies between them.
    vectors = np.array([[-2.0], [0.0], [0.0], [2.0]])
    statistics = appearance_statistics(vectors, vectors / 2, np.array([0, 0, 1, 1]))
    assert statistics.between_episode_share == pytest.approx(0.5)
    assert statistics.between_episode_share_by_chance == pytest.approx(1 / 3)
    assert statistics.still_share == pytest.approx(0.25)


def test_the_share_by_chance_is_that_of_independent_latents() -> None:
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(20), 5)
    shares = []
    for _ in range(200):
        vectors = rng.normal(size=(100, 8))
        shares.append(appearance_statistics(vectors, vectors, episode).between_episode_share)
    assert np.mean(shares) == pytest.approx(19 / 99, rel=0.03)


def test_looks_of_constant_latents_are_unknown() -> None:
    statistics = appearance_statistics(np.ones((4, 2)), np.ones((4, 2)), np.array([0, 0, 1, 1]))
    assert statistics.still_share is None and statistics.between_episode_share is None
