"""Pictures of what latent actions carry: one video's latent actions applied to another's frame.

Shapes: J examples, L latent actions in a row, C, H, W frames of the forward model's size; k the stride in frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ...data.episodes import Episode, RejectedVideo
from ...models.latent_actions.dynamics import ForwardDynamicsModel, InverseDynamicsModel
from ...video import VideoError, VideoReader, as_float_frames, resize_frames
from ...viz.frames import plot_next_frames
from .decoding import predict
from .figures import plot_same_frame, plot_transfer
from .pairs import EncodedPairs, spread


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Next frames of some pairs; frames are floats in [0, 1].

    Attributes:
        episodes: J ids.
        frames: (J, C, H, W) I_t.
        predicted: (J, C, H, W), with the pair's own latent action.
        next_frames: (J, C, H, W) I_{t+k}.
    """

    episodes: tuple[str, ...]
    frames: Tensor
    predicted: Tensor
    next_frames: Tensor


@dataclass(frozen=True, kw_only=True)
class SameFrame:
    """The latent actions of several pairs, all applied to the frame of the first; frames are floats in [0, 1].

    Attributes:
        episodes: J ids; the first is that of `frame`.
        frame: (C, H, W).
        frames: (J, C, H, W) first frames of the pairs that latent actions come from.
        next_frames: (J, C, H, W) their second frames.
        predicted: (J, C, H, W) what each latent action makes of `frame`.
        latents: (J, D).
    """

    episodes: tuple[str, ...]
    frame: Tensor
    frames: Tensor
    next_frames: Tensor
    predicted: Tensor
    latents: Tensor


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """L consecutive latent actions of a source video, applied one after another to a frame; floats in [0, 1].

    Each prediction is what the next one starts from.

    Attributes:
        source: Id of the video that the latent actions come from.
        target: Id of the video that the frame comes from.
        first_frame: Index of the source's first frame.
        target_frame: Index of the target's frame.
        stride: k of the source, in frames.
        source_frames: (L + 1, C, H, W) the source's own frames, k apart.
        own: (L + 1, C, H, W) the source's first frame, then predictions from it.
        transferred: (L + 1, C, H, W) the target's frame, then predictions from it.
    """

    source: str
    target: str
    first_frame: int
    target_frame: int
    stride: int
    source_frames: Tensor
    own: Tensor
    transferred: Tensor


@dataclass(frozen=True, kw_only=True)
class LamPictures:
    """What a report shows of a forward dynamics model.

    Attributes:
        predictions: Next frames.
        same_frame: One frame, several latent actions.
        transfers: Latent actions of one video on a frame of another.
    """

    predictions: Predictions
    same_frame: SameFrame
    transfers: tuple[Transfer, ...]

    def figures(self) -> dict[str, tuple[Figure, str]]:
        """Each as a figure and its caption, by the name of its place on the page."""
        shown, same = self.predictions, self.same_frame
        figures = {
            "decoding/next_frames": (
                plot_next_frames(
                    shown.frames,
                    shown.predicted,
                    shown.next_frames,
                    baseline=shown.frames,
                    errors={
                        "squared error, predicted": (shown.predicted - shown.next_frames).square().mean((1, 2, 3)),
                        "squared error, copy": (shown.frames - shown.next_frames).square().mean((1, 2, 3)),
                    },
                ),
                "Predicted next frames of the pairs in which most changes: " + ", ".join(shown.episodes) + ".",
            ),
            "decoding/same_frame": (
                plot_same_frame(
                    same.frame,
                    same.frames,
                    same.next_frames,
                    same.predicted,
                    None if same.latents.is_floating_point() else same.latents.tolist(),
                ),
                f"One frame of {same.episodes[0]} with the latent actions of several pairs (its own first): "
                + ", ".join(same.episodes)
                + ".",
            ),
        }
        for number, transfer in enumerate(self.transfers, start=1):
            figures[f"transfer/{number}"] = (
                plot_transfer(transfer.source_frames, transfer.own, transfer.transferred, transfer.stride),
                f"Latent actions of {transfer.source}, from frame {transfer.first_frame} on, applied to frame "
                f"{transfer.target_frame} of {transfer.target}.",
            )
        return figures


def pick_pairs(pairs: EncodedPairs, count: int) -> NDArray[np.int64]:
    """Rows in `pairs.kept`: of up to `count` videos, evenly spaced, the kept pair in which most changes."""
    episode, changes = pairs.episode[pairs.kept], pairs.changes[pairs.kept]
    names = np.unique(episode)
    chosen = names[np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int))]
    return np.array([_largest(changes, episode == name) for name in chosen], dtype=np.int64)


def _largest(values: NDArray[np.float64], among: NDArray[np.bool_]) -> int:
    rows = np.flatnonzero(among)
    return int(rows[values[rows].argmax()])


def predict_pairs(fdm: ForwardDynamicsModel, pairs: EncodedPairs, rows: NDArray[np.int64], seed: int) -> Predictions:
    """Next frames of the kept pairs `rows`, with their own latent actions."""
    frames, latents = as_float_frames(pairs.frames[rows]), pairs.latents[pairs.kept[rows]]
    return Predictions(
        episodes=_ids(pairs, rows),
        frames=frames,
        predicted=predict(fdm, frames, latents, seed),
        next_frames=as_float_frames(pairs.next_frames[rows]),
    )


def vary_latents(fdm: ForwardDynamicsModel, pairs: EncodedPairs, rows: NDArray[np.int64], seed: int) -> SameFrame:
    """What the latent actions of the kept pairs `rows` make of the frame of the first of them.

    A model that samples draws the same noise for each, so that the pictures differ by the latent action alone.
    """
    frames, latents = as_float_frames(pairs.frames[rows]), pairs.latents[pairs.kept[rows]]
    return SameFrame(
        episodes=_ids(pairs, rows),
        frame=frames[0],
        frames=frames,
        next_frames=as_float_frames(pairs.next_frames[rows]),
        predicted=torch.cat([predict(fdm, frames[:1], latent[None], seed) for latent in latents]),
        latents=latents,
    )


def _ids(pairs: EncodedPairs, rows: NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(pairs.episodes[row].id for row in pairs.episode[pairs.kept[rows]])


def transfer_latents(
    idm: InverseDynamicsModel,
    fdm: ForwardDynamicsModel,
    episodes: Sequence[Episode],
    strides: Sequence[int],
    *,
    count: int,
    length: int,
    seed: int = 0,
) -> tuple[list[Transfer], list[RejectedVideo]]:
    """Applies the latent actions of some videos to frames of others, both from the middle of the video.

    Sources are spaced evenly over the videos, and the target lies half of their number further: where videos are
    ordered by task, that is another task.

    Args:
        idm: Inverse dynamics model.
        fdm: Forward dynamics model; its frames may have another size.
        episodes: Videos with more than k frames each; with fewer than two nothing can be transferred.
        strides: k of each.
        count: The most transfers.
        length: L; less where the source is short.
        seed: Fixes models that sample.

    Returns:
        The transfers, and videos whose frames could not be decoded and which others took the place of.
    """
    first = spread(len(episodes), min(count, len(episodes))).tolist()
    sources = [*first, *(row for row in range(len(episodes)) if row not in first)]
    transfers: list[Transfer] = []
    rejected: list[RejectedVideo] = []
    for source in sources:
        if len(transfers) == count or len(episodes) < 2:
            break
        target = (source + len(episodes) // 2) % len(episodes)
        try:
            transfers.append(_transfer(idm, fdm, episodes, strides, source, target, length, seed))
        except VideoError as error:
            rejected.append(RejectedVideo(str(error.path), error.reason))
    return transfers, rejected


@torch.no_grad()
def _transfer(
    idm: InverseDynamicsModel,
    fdm: ForwardDynamicsModel,
    episodes: Sequence[Episode],
    strides: Sequence[int],
    source: int,
    target: int,
    length: int,
    seed: int,
) -> Transfer:
    k = strides[source]
    num_latents = min(length, (episodes[source].num_frames - 1) // k)
    first = (episodes[source].num_frames - 1 - num_latents * k) // 2
    full = VideoReader(episodes[source].path).read(range(first, first + num_latents * k + 1, k))
    seen = as_float_frames(resize_frames(full, idm.config.image_size).to(idm.device), idm.dtype)
    latents = idm.encode(seen[:-1], seen[1:])
    source_frames = as_float_frames(resize_frames(full, fdm.config.image_size))
    target_frame = (episodes[target].num_frames - 1) // 2
    start = as_float_frames(VideoReader(episodes[target].path, fdm.config.image_size).read([target_frame]))
    states = [torch.cat([source_frames[:1], start])]
    for latent in latents:
        states.append(predict(fdm, states[-1], latent.expand(2, -1), seed + len(states)))
    own, transferred = torch.stack(states, dim=1)
    return Transfer(
        source=episodes[source].id,
        target=episodes[target].id,
        first_frame=first,
        target_frame=target_frame,
        stride=k,
        source_frames=source_frames,
        own=own,
        transferred=transferred,
    )
