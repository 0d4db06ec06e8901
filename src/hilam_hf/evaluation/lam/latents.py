"""How latent actions are distributed: their spread, the directions and codes they use, what they say of looks.

Shapes: N latent actions, D positions of codes, K entries of the codebook, V width of a vector, E episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEAD_DIMENSION_STD = 1e-3
"""A dimension is dead when its standard deviation is below this fraction of the largest: a 32-bit float still resolves
it, but no decoder that normalises its input does."""
ROUNDING = 1e-12
"""What 64-bit arithmetic leaves of a difference of equal numbers, relative to them."""


@dataclass(frozen=True, kw_only=True)
class LatentStatistics:
    """Spread of latent vectors.

    Attributes:
        num_latents: N, those that are not finite included.
        num_not_finite: Vectors with NaN or an infinity, which the other numbers leave out.
        width: V.
        std: V standard deviations.
        relative_spread: Root of the total variance over the root mean square norm, in [0, 1]: 0 is a constant, 1 is
            centred on zero. None where all vectors are zero.
        dead_dimensions: Dimensions that hardly vary, see `DEAD_DIMENSION_STD`.
        participation_ratio: (sum of l)² / (sum of l²) over the eigenvalues l of the covariance: V when all directions
            vary alike, 1 when one does. None where nothing varies.
        entropy_rank: exp of the entropy of l / (sum of l), the effective rank (Roy and Vetterli 2007) of the
            covariance; also between 1 and V. None where nothing varies.
        variance_shares: The share of the total variance in each principal component, the largest first.
    """

    num_latents: int
    num_not_finite: int
    width: int
    std: tuple[float, ...]
    relative_spread: float | None
    dead_dimensions: int
    participation_ratio: float | None
    entropy_rank: float | None
    variance_shares: tuple[float, ...]


def latent_statistics(vectors: NDArray[np.floating]) -> LatentStatistics:
    """Statistics of latent vectors.

    Args:
        vectors: (N, V).
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    finite = vectors[np.isfinite(vectors).all(axis=1)]
    rows = finite if len(finite) else np.zeros((1, vectors.shape[1]))
    std = rows.std(axis=0)
    norm = float(np.sqrt(np.square(rows).sum(axis=1).mean()))
    eigenvalues = covariance_spectrum(rows)
    # Rounding leaves a trace of variance in rows that are all equal.
    trace = ROUNDING * norm
    varies = float(np.sqrt(eigenvalues.sum())) > trace
    return LatentStatistics(
        num_latents=len(vectors),
        num_not_finite=len(vectors) - len(finite),
        width=vectors.shape[1],
        std=tuple(map(float, std)),
        relative_spread=float(np.sqrt(std @ std)) / norm if norm > 0 else None,
        dead_dimensions=int((std <= max(DEAD_DIMENSION_STD * std.max(), trace)).sum()),
        participation_ratio=participation_ratio(eigenvalues) if varies else None,
        entropy_rank=perplexity(eigenvalues) if varies else None,
        variance_shares=tuple(map(float, eigenvalues / eigenvalues.sum())) if varies else (),
    )


def covariance_spectrum(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eigenvalues (V,) of the covariance of vectors (N, V), the largest first, none below 0."""
    covariance = np.atleast_2d(np.cov(vectors, rowvar=False, bias=True))
    return np.linalg.eigvalsh(covariance)[::-1].clip(min=0)


def participation_ratio(eigenvalues: NDArray[np.floating]) -> float:
    """(sum of l)² / (sum of l²): how many directions share the variance, 1 to their number."""
    return float(eigenvalues.sum() ** 2 / np.square(eigenvalues).sum())


def perplexity(weights: NDArray[np.floating] | NDArray[np.int64]) -> float:
    """exp of the entropy of weights that are not negative, normalised: how many equal ones would be as spread."""
    shares = weights[weights > 0] / weights.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


@dataclass(frozen=True, kw_only=True)
class CodeStatistics:
    """Use of a codebook.

    Attributes:
        num_latents: N.
        codebook_size: K.
        num_positions: D.
        counts: D rows of K counts.
        perplexity: For each position exp of the entropy of its codes, 1 to K.
        used: For each position the number of entries that come up.
        dead_codes: Entries that come up at no position.
        distinct_sequences: Different rows of D codes.
        possible_sequences: K ** D.
        sequence_perplexity: exp of the entropy of the rows, at most the smaller of N and K ** D. With few latent
            actions it is too low: it can't exceed their number.
    """

    num_latents: int
    codebook_size: int
    num_positions: int
    counts: tuple[tuple[int, ...], ...]
    perplexity: tuple[float, ...]
    used: tuple[int, ...]
    dead_codes: tuple[int, ...]
    distinct_sequences: int
    possible_sequences: int
    sequence_perplexity: float


def code_statistics(codes: NDArray[np.int64], codebook_size: int) -> CodeStatistics:
    """Statistics of discrete latent actions.

    Args:
        codes: (N, D) in [0, K), N at least 1.
        codebook_size: K.

    Raises:
        ValueError: If a code is outside [0, K).
    """
    if codes.min() < 0 or codes.max() >= codebook_size:
        raise ValueError(
            f"codes must be in [0, {codebook_size}), got {codes.min()} to {codes.max()}; give the size of the codebook "
            "that they are entries of"
        )
    counts = np.stack([np.bincount(position, minlength=codebook_size) for position in codes.T])
    rows, row_counts = np.unique(codes, axis=0, return_counts=True)
    return CodeStatistics(
        num_latents=len(codes),
        codebook_size=codebook_size,
        num_positions=codes.shape[1],
        counts=tuple(tuple(map(int, row)) for row in counts),
        perplexity=tuple(perplexity(row) for row in counts),
        used=tuple(int((row > 0).sum()) for row in counts),
        dead_codes=tuple(map(int, np.flatnonzero(counts.sum(axis=0) == 0))),
        distinct_sequences=len(rows),
        possible_sequences=codebook_size ** codes.shape[1],
        sequence_perplexity=perplexity(row_counts),
    )


@dataclass(frozen=True, kw_only=True)
class AppearanceStatistics:
    """How much of the latents' variance may come from how a video looks rather than from what changes in it.

    Attributes:
        still_share: Total variance of the latents of (I_t, I_t), between which nothing happens, over that of the
            latents of (I_t, I_{t+k}). Near 0 where no motion is one latent; near 1 where latents vary as much with
            no motion at all, so describe the frame. None where latents do not vary.
        between_episode_share: Share of the latents' variance that lies between the means of the videos, in [0, 1].
            Videos of other tasks also move otherwise, so a high share alone is no fault. None as above.
        between_episode_share_by_chance: Its expectation were latents independent of the video, (E - 1) / (N - 1).
    """

    still_share: float | None
    between_episode_share: float | None
    between_episode_share_by_chance: float | None


def appearance_statistics(
    vectors: NDArray[np.float64], still_vectors: NDArray[np.float64], episode: NDArray[np.int64]
) -> AppearanceStatistics:
    """Statistics of latents against looks.

    Args:
        vectors: (N, V) latents of (I_t, I_{t+k}), finite.
        still_vectors: (N, V) latents of (I_t, I_t); rows that are not finite are left out.
        episode: (N,) the video of each.
    """
    still = still_vectors[np.isfinite(still_vectors).all(axis=1)]
    total = float(vectors.var(axis=0).sum()) if len(vectors) else 0.0
    scale = float(np.square(vectors).sum(axis=1).mean()) if len(vectors) else 0.0
    if len(vectors) < 2 or len(still) < 2 or not total > ROUNDING**2 * scale:
        return AppearanceStatistics(still_share=None, between_episode_share=None, between_episode_share_by_chance=None)
    episodes = np.unique(episode)
    groups: Sequence[NDArray[np.float64]] = [vectors[episode == name] for name in episodes]
    center = vectors.mean(axis=0)
    between = sum(len(group) * float(np.square(group.mean(axis=0) - center).sum()) for group in groups)
    return AppearanceStatistics(
        still_share=float(still.var(axis=0).sum()) / total,
        between_episode_share=between / (len(vectors) * total),
        between_episode_share_by_chance=(len(episodes) - 1) / (len(vectors) - 1),
    )
