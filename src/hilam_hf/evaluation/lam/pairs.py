"""Pairs of frames for a report: sampled evenly over videos and encoded once, in memory that the limits bound.

Shapes: N pairs, M of them kept for decoding, D width of a latent action, V width of its vector, C, H, W frames of the
forward model's size, G numbers of a thumbnail; k the stride in frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...data.episodes import Episode, RejectedVideo
from ...models.latent_actions.dynamics import InverseDynamicsModel
from ...video import VideoError, VideoReader, as_float_frames, resize_frames

THUMBNAIL_SIZE = 16
"""Side in pixels of the differences that latent actions are compared with: an arm's motion is still visible."""


@dataclass(frozen=True, kw_only=True)
class EncodedPairs:
    """Sampled pairs (I_t, I_{t+k}) and their latent actions.

    Attributes:
        episodes: Videos that pairs come from.
        strides: k of each of them, in frames.
        episode: (N,) row of each pair in `episodes`, ascending.
        index: (N,) t.
        latents: (N, D) as the inverse dynamics model gives them; codes are int64.
        vectors: (N, V) what they stand for, as floats.
        still_vectors: (N, V) the same for (I_t, I_t), between which nothing happens.
        changes: (N,) mean squared difference of the two frames, pixels in [0, 1].
        thumbnails: (N, G) their difference at 16 x 16 pixels.
        kept: (M,) rows of the pairs whose frames are kept.
        frames: (M, C, H, W) uint8, their first frames.
        next_frames: (M, C, H, W) uint8, their second frames.
        rejected: Videos that turned out to be damaged.
    """

    episodes: list[Episode]
    strides: list[int]
    episode: NDArray[np.int64]
    index: NDArray[np.int64]
    latents: Tensor
    vectors: NDArray[np.float64]
    still_vectors: NDArray[np.float64]
    changes: NDArray[np.float64]
    thumbnails: NDArray[np.float32]
    kept: NDArray[np.int64]
    frames: Tensor
    next_frames: Tensor
    rejected: list[RejectedVideo]

    def __len__(self) -> int:
        return len(self.episode)

    @property
    def finite(self) -> NDArray[np.bool_]:
        """(N,) whether a pair's vector is free of NaN and infinities."""
        return np.isfinite(self.vectors).min(axis=1)


def encode_pairs(
    idm: InverseDynamicsModel,
    episodes: Sequence[Episode],
    strides: Sequence[int],
    *,
    kept_size: int | tuple[int, int] | None,
    max_pairs: int,
    max_kept: int,
    batch_size: int = 32,
) -> EncodedPairs:
    """Samples pairs evenly over and within videos, and encodes them.

    Args:
        idm: Inverse dynamics model.
        episodes: Videos with more than k frames each.
        strides: k of each.
        kept_size: Size of the frames that are kept, the forward model's; None keeps none.
        max_pairs: The most pairs.
        max_kept: The most pairs whose frames are kept.
        batch_size: Pairs decoded and encoded at a time.

    Raises:
        ValueError: If no video can be decoded.
    """
    counts = allot([episode.num_frames - k for episode, k in zip(episodes, strides, strict=True)], max_pairs)
    kept_counts = allot(counts, max_kept if kept_size is not None else 0)
    batches: list[_Batch] = []
    used: list[int] = []
    rejected: list[RejectedVideo] = []
    for row, (episode, k, count, kept) in enumerate(zip(episodes, strides, counts, kept_counts, strict=True)):
        if count == 0:
            continue
        index = spread(episode.num_frames - k, count)
        keep = np.isin(np.arange(count), spread(count, kept))
        chunks = [slice(start, start + batch_size) for start in range(0, count, batch_size)]
        try:
            reader = VideoReader(episode.path)
            encoded = [_encode(idm, reader, len(used), index[c], k, keep[c], kept_size) for c in chunks]
        except VideoError as error:
            rejected.append(RejectedVideo(episode.path, error.reason))
            continue
        batches += encoded
        used.append(row)
    if not batches:
        raise ValueError(f"none of the {len(episodes)} videos can be used; the first: {rejected[0].reason}")
    return _joined(batches, [episodes[row] for row in used], [strides[row] for row in used], rejected)


def allot(available: Sequence[int], budget: int) -> list[int]:
    """Shares a budget as evenly as what is available allows; what one cannot take goes to the others.

    Where the budget is smaller than the number of takers, those that get one are spread evenly.

    Example:
        >>> allot([10, 2, 10], 12)
        [5, 2, 5]
    """
    shares = [0] * len(available)
    left = min(budget, sum(available))
    while left:
        open_rows = [row for row, limit in enumerate(available) if shares[row] < limit]
        each = left // len(open_rows)
        takers = open_rows if each else [open_rows[i] for i in spread(len(open_rows), left)]
        for row in takers:
            share = min(max(each, 1), available[row] - shares[row])
            shares[row] += share
            left -= share
    return shares


def spread(total: int, count: int) -> NDArray[np.int64]:
    """`count` of the numbers 0 to `total` - 1: the middles of equal parts, all different while count <= total."""
    return (2 * np.arange(count, dtype=np.int64) + 1) * total // (2 * max(count, 1))


@dataclass(frozen=True, kw_only=True)
class _Batch:
    episode: NDArray[np.int64]
    index: NDArray[np.int64]
    keep: NDArray[np.bool_]
    latents: Tensor
    vectors: Tensor
    still_vectors: Tensor
    changes: Tensor
    thumbnails: Tensor
    kept_frames: Tensor | None


@torch.no_grad()
def _encode(
    idm: InverseDynamicsModel,
    reader: VideoReader,
    row: int,
    index: NDArray[np.int64],
    k: int,
    keep: NDArray[np.bool_],
    kept_size: int | tuple[int, int] | None,
) -> _Batch:
    full = reader.read([*index.tolist(), *(index + k).tolist()])
    frames = as_float_frames(resize_frames(full, idm.config.image_size))
    # The features of I_t serve the still pair (I_t, I_t), too.
    features, next_features = idm.extract_features(frames.to(idm.device, idm.dtype)).chunk(2)
    latents, still = idm.encode_features(features, next_features), idm.encode_features(features, features)
    difference = frames[len(index) :] - frames[: len(index)]
    kept = None
    if kept_size is not None:
        kept = resize_frames(full[torch.from_numpy(np.tile(keep, 2))], kept_size)
    return _Batch(
        episode=np.full(len(index), row, dtype=np.int64),
        index=index,
        keep=keep,
        latents=latents.cpu(),
        vectors=idm.latent_vectors(latents).cpu().double(),
        still_vectors=idm.latent_vectors(still).cpu().double(),
        changes=difference.double().square().mean((1, 2, 3)),
        thumbnails=F.interpolate(difference, THUMBNAIL_SIZE, mode="bilinear", antialias=True).flatten(1),
        kept_frames=kept,
    )


def _joined(
    batches: Sequence[_Batch], episodes: list[Episode], strides: list[int], rejected: list[RejectedVideo]
) -> EncodedPairs:
    halves = [batch.kept_frames.chunk(2) for batch in batches if batch.kept_frames is not None and batch.keep.any()]
    none = torch.empty(0, 3, 1, 1, dtype=torch.uint8)
    return EncodedPairs(
        episodes=episodes,
        strides=strides,
        episode=np.concatenate([batch.episode for batch in batches]),
        index=np.concatenate([batch.index for batch in batches]),
        latents=torch.cat([batch.latents for batch in batches]),
        vectors=torch.cat([batch.vectors for batch in batches]).numpy(),
        still_vectors=torch.cat([batch.still_vectors for batch in batches]).numpy(),
        changes=torch.cat([batch.changes for batch in batches]).numpy(),
        thumbnails=torch.cat([batch.thumbnails for batch in batches]).numpy(),
        kept=np.flatnonzero(np.concatenate([batch.keep for batch in batches])),
        frames=torch.cat([first for first, _ in halves]) if halves else none,
        next_frames=torch.cat([second for _, second in halves]) if halves else none,
        rejected=rejected,
    )
