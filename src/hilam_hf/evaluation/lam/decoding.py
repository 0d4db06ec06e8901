"""What a forward dynamics model makes of latent actions: its error, and whether it listens to them.

Shapes: M pairs, E episodes, D width of a latent action, C, H, W frames.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...models.latent_actions.dynamics import ForwardDynamicsModel
from ...video import as_float_frames
from .pairs import EncodedPairs


@dataclass(frozen=True, kw_only=True)
class EpisodeError:
    """Error on one video.

    Attributes:
        id: The episode.
        num_pairs: Pairs measured.
        next_frame_error: Mean squared error with each pair's own latent action, pixels in [0, 1].
        copy_error: Of repeating the current frame.
    """

    id: str
    num_pairs: int
    next_frame_error: float
    copy_error: float

    @property
    def error_vs_copy(self) -> float | None:
        """`next_frame_error` / `copy_error`; None where nothing moves."""
        return _ratio(self.next_frame_error, self.copy_error)


@dataclass(frozen=True, kw_only=True)
class DecodingErrors:
    """Mean squared errors of predicted frames, pixels in [0, 1].

    Attributes:
        num_pairs: M.
        next_frame_error: With each pair's own latent action.
        copy_error: Of repeating the current frame.
        shuffled_error: With the latent action of a pair of another video.
        constant_error: With one and the same latent action for all pairs.
        constant_latent: Which one: "mean", or "most frequent codes" where latent actions are codes.
        shuffled_within_episode: Pairs whose other pair had to come from the same video, as one video has more than half
            of all pairs.
        error_vs_copy_interval: 95 % bootstrap interval of `error_vs_copy` over episodes; None with fewer than two.
        shuffled_vs_own_interval: The same of `shuffled_vs_own`.
        episodes: The error on each video.
    """

    num_pairs: int
    next_frame_error: float
    copy_error: float
    shuffled_error: float
    constant_error: float
    constant_latent: str
    shuffled_within_episode: int
    error_vs_copy_interval: tuple[float, float] | None
    shuffled_vs_own_interval: tuple[float, float] | None
    episodes: tuple[EpisodeError, ...]

    @property
    def error_vs_copy(self) -> float | None:
        """`next_frame_error` / `copy_error`; lower is better, 1 is no better than a copy, None where nothing moves."""
        return _ratio(self.next_frame_error, self.copy_error)

    @property
    def shuffled_vs_own(self) -> float | None:
        """`shuffled_error` / `next_frame_error`; 1 where the decoder does not listen."""
        return _ratio(self.shuffled_error, self.next_frame_error)

    @property
    def constant_vs_own(self) -> float | None:
        """`constant_error` / `next_frame_error`; 1 where latent actions say nothing that one of them would not."""
        return _ratio(self.constant_error, self.next_frame_error)

    @property
    def improvement_lost_shuffled(self) -> float | None:
        """(shuffled - own) / (copy - own): 0 does not listen, 1 is back at copying; None if no better than a copy."""
        return self._improvement_lost(self.shuffled_error)

    @property
    def improvement_lost_constant(self) -> float | None:
        """The same with one latent action for all pairs."""
        return self._improvement_lost(self.constant_error)

    def _improvement_lost(self, error: float) -> float | None:
        improvement = self.copy_error - self.next_frame_error
        return (error - self.next_frame_error) / improvement if improvement > 0 else None


def decoding_errors(
    fdm: ForwardDynamicsModel, pairs: EncodedPairs, *, batch_size: int = 32, seed: int = 0
) -> DecodingErrors:
    """Measures next-frame errors on the pairs whose frames were kept.

    A model that samples draws the same noise for a pair's own, the shuffled and the constant latent action, so that
    their errors differ by the latent action alone.

    Args:
        fdm: Forward dynamics model.
        pairs: The pairs.
        batch_size: Pairs decoded at a time; for a model that samples, part of what fixes the noise.
        seed: Seed of the shuffling, of sampling models and of the bootstrap.

    Raises:
        ValueError: If fewer than two pairs were kept.
    """
    if len(pairs.kept) < 2:
        raise ValueError(f"got {len(pairs.kept)} pairs to decode; shuffling their latent actions takes at least 2")
    episode, latents = pairs.episode[pairs.kept], pairs.latents[pairs.kept]
    partners = episode_derangement(episode, seed)
    constant = typical_latent(pairs.latents[pairs.finite]) if pairs.finite.any() else latents[0]
    errors = np.empty((4, len(latents)))
    for start in range(0, len(latents), batch_size):
        rows = slice(start, start + batch_size)
        frames, target = as_float_frames(pairs.frames[rows]), as_float_frames(pairs.next_frames[rows])
        own, other = latents[rows], latents[partners[rows]]
        with_latents = [predict(fdm, frames, z, seed + start) for z in (own, other, constant.expand_as(own))]
        for row, prediction in enumerate([frames, *with_latents]):
            errors[row, rows] = (prediction - target).double().square().mean((1, 2, 3)).numpy()
    sums = np.stack([np.bincount(episode, error, len(pairs.episodes)) for error in errors], axis=1)
    counts = np.bincount(episode, minlength=len(pairs.episodes))
    measured = counts > 0
    copied, own_sums, shuffled, _ = sums[measured].T
    means = errors.mean(axis=1)
    return DecodingErrors(
        num_pairs=len(latents),
        copy_error=float(means[0]),
        next_frame_error=float(means[1]),
        shuffled_error=float(means[2]),
        constant_error=float(means[3]),
        constant_latent="mean" if latents.is_floating_point() else "most frequent codes",
        shuffled_within_episode=int((episode == episode[partners]).sum()),
        error_vs_copy_interval=ratio_interval(own_sums, copied, seed=seed),
        shuffled_vs_own_interval=ratio_interval(shuffled, own_sums, seed=seed),
        episodes=tuple(
            EpisodeError(
                id=pairs.episodes[row].id,
                num_pairs=int(counts[row]),
                next_frame_error=float(sums[row, 1] / counts[row]),
                copy_error=float(sums[row, 0] / counts[row]),
            )
            for row in np.flatnonzero(measured)
        ),
    )


@torch.no_grad()
def predict(fdm: ForwardDynamicsModel, frames: Tensor, latents: Tensor, seed: int) -> Tensor:
    """Predicted frames on the CPU, the same each time for models that sample.

    Args:
        fdm: Forward dynamics model, on any device and of any floating dtype.
        frames: (B, C, H, W) floats in [0, 1].
        latents: (B, D) latent actions as the inverse dynamics model gives them.
        seed: Seed of the noise; torch's own random numbers are left as they were.

    Returns:
        (B, C, H, W) float32.
    """
    latents = latents.to(fdm.device, fdm.dtype if latents.is_floating_point() else latents.dtype)
    with _seeded(fdm.device, seed):
        return fdm.predict(frames.to(fdm.device, fdm.dtype), latents).float().cpu()


def episode_derangement(episode: NDArray[np.int64], seed: int = 0) -> NDArray[np.int64]:
    """A random permutation that gives each pair one of another episode.

    Pairs are ordered by episode, in random order within and between episodes, and moved on by the size of the largest
    episode. Where that one has more than half of all pairs, some must stay within it; then they are moved by half of
    all, and none stays in its place.

    Args:
        episode: (M,) the episode of each pair, M >= 2.
        seed: Seed of the order.

    Returns:
        (M,) the other pair of each.
    """
    rng = np.random.default_rng(seed)
    names, rows, sizes = np.unique(episode, return_inverse=True, return_counts=True)
    rank = rng.permutation(len(names))
    order = np.lexsort((rng.random(len(episode)), rank[rows]))
    result = np.empty_like(order)
    result[order] = np.roll(order, -min(int(sizes.max()), len(episode) // 2))
    return result


def typical_latent(latents: Tensor) -> Tensor:
    """The mean (D,) of latent actions (N, D), or their most frequent row where they are codes (the first of equals)."""
    if latents.is_floating_point():
        return latents.double().mean(0).to(latents.dtype)
    rows, counts = torch.unique(latents, dim=0, return_counts=True)
    return rows[counts.argmax()]


def ratio_interval(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval (Efron 1979) of a ratio of sums, episodes being drawn with replacement.

    Args:
        numerators: (E,) what each episode adds above.
        denominators: (E,) what it adds below, at least 0.
        confidence: Coverage, within (0, 1).
        resamples: Bootstrap samples.
        seed: Seed of the draws.

    Returns:
        The bounds; None with fewer than two episodes, or where a number is not finite or all below is 0.
    """
    values = np.stack([numerators, denominators])
    if values.shape[1] < 2 or not np.isfinite(values).all() or not denominators.any():
        return None
    drawn = np.random.default_rng(seed).integers(values.shape[1], size=(resamples, values.shape[1]))
    above, below = values[:, drawn].sum(axis=2)
    ratios = above[below > 0] / below[below > 0]
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def psnr(error: float) -> float | None:
    """Peak signal-to-noise ratio in dB of a mean squared error of pixels in [0, 1]; None for an error of 0."""
    return -10 * math.log10(error) if error > 0 else None


def _ratio(above: float, below: float) -> float | None:
    return above / below if below > 0 else None


@contextlib.contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
