"""Latent actions of frames that come in batches, video after video, each frame's features computed once.

Frames of several short videos share a batch; pairs never cross videos. Shapes: N frames of a batch, C channels, H and W
pixels, P pairs, D width of a latent action, k stride in frames.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ...video import as_float_frames, check_pixel_range

logger = logging.getLogger(__name__)

_FIRST_ROWS = 1024


class FrameEncoder(Protocol):
    """What pair encoding, and choosing a batch size for it, needs of an inverse dynamics model."""

    @property
    def config(self) -> Any:
        """The configuration, whose `image_size` is the side of a frame in pixels."""

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""

    @property
    def dtype(self) -> torch.dtype:
        """What frames are turned into."""

    def extract_features(self, frames: Tensor) -> Tensor:
        """Features (N, ...) of frames (N, C, H, W), each frame's on their own."""

    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        """Latent actions (P, D) from the features of both frames of each pair."""


@dataclass(frozen=True)
class FrameRun:
    """Consecutive frames of one video in a batch.

    Attributes:
        video: Number of the video; runs of one video follow each other, in one batch or over several.
        stride: k of this video.
        length: Frames.
    """

    video: int
    stride: int
    length: int


@dataclass(frozen=True)
class FrameBatch:
    """Frames of one or more videos.

    Attributes:
        frames: (N, C, H, W), uint8 or floats in [0, 1].
        runs: Which videos they are of, in order; their lengths add up to N.
    """

    frames: Tensor
    runs: tuple[FrameRun, ...]

    def part(self, start: int, stop: int) -> FrameBatch:
        """The frames from `start` up to `stop`."""
        runs, position = [], 0
        for run in self.runs:
            length = min(position + run.length, stop) - max(position, start)
            if length > 0:
                runs.append(FrameRun(run.video, run.stride, length))
            position += run.length
        return FrameBatch(self.frames[start:stop], tuple(runs))


class PairEncoder:
    """Gives the latent actions of frames that come in order, and remembers features whose partners are still to come.

    Args:
        idm: Inverse dynamics model.
        batch_size: Frames, and pairs, computed at a time; None: those of a batch.
        halve: When memory runs out, go on with half as many instead of raising.
    """

    def __init__(self, idm: FrameEncoder, batch_size: int | None = None, *, halve: bool = False) -> None:
        self.idm = idm
        self.batch_size = batch_size
        self.halve = halve
        self._video: int | None = None
        self._waiting: Tensor | None = None  # features of the video's last k frames

    def encode(self, batch: FrameBatch) -> Iterator[tuple[int, Tensor]]:
        """Latent actions that a batch completes.

        Yields:
            (number of the video, consecutive latent actions of it (P, D)), on the model's device.

        Raises:
            torch.OutOfMemoryError: If not even one frame fits, or `halve` is off.
        """
        start = 0
        while start < len(batch.frames):
            size = len(batch.frames) if self.batch_size is None else self.batch_size
            part = batch.part(start, start + size)
            encoded = self._encode_or_halve(part)
            if encoded is not None:
                yield from encoded
                start += len(part.frames)

    def _encode_or_halve(self, part: FrameBatch) -> list[tuple[int, Tensor]] | None:
        """What `_encode` gives, or None when memory ran out and the batch size was halved."""
        from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

        try:
            return self._encode(part)
        except RuntimeError as error:
            if not self.halve or len(part.frames) == 1 or not should_reduce_batch_size(error):
                raise
            self.batch_size = len(part.frames) // 2
            logger.warning("out of memory with %d frames at a time; now %d", len(part.frames), self.batch_size)
        # Only here, since until now the error held on to the tensors of the attempt.
        clear_device_cache(garbage_collection=True)
        return None

    def _encode(self, part: FrameBatch) -> list[tuple[int, Tensor]]:
        features = self.idm.extract_features(self._as_input(part.frames))
        video, waiting = self._video, self._waiting
        counts: list[tuple[int, int]] = []
        firsts: list[Tensor] = []
        seconds: list[Tensor] = []
        for run, known in zip(part.runs, features.split([run.length for run in part.runs]), strict=True):
            if waiting is not None and run.video == video:
                known = torch.cat([waiting, known])
            if len(known) > run.stride:
                counts.append((run.video, len(known) - run.stride))
                firsts.append(known[: -run.stride])
                seconds.append(known[run.stride :])
            video, waiting = run.video, known[-run.stride :]
        encoded = self._encode_pairs(counts, firsts, seconds) if counts else []
        # A copy, so that the other features are freed. Kept last: an attempt that fails must leave no trace.
        self._waiting = None if waiting is None else waiting.clone()
        self._video = video
        return encoded

    def _encode_pairs(
        self, counts: Sequence[tuple[int, int]], firsts: Sequence[Tensor], seconds: Sequence[Tensor]
    ) -> list[tuple[int, Tensor]]:
        # No more pairs than frames: with the first of each pair already there, every new frame completes at most one.
        latents = self.idm.encode_features(_joined(firsts), _joined(seconds))
        videos, lengths = zip(*counts, strict=True)
        return list(zip(videos, latents.split(lengths), strict=True))

    def _as_input(self, frames: Tensor) -> Tensor:
        # Bytes travel to the device, where they become floats: a quarter of the transfer.
        device = self.idm.device
        if frames.is_floating_point() and device.type != "cpu":
            # The model looks at what lies in the CPU's memory only.
            check_pixel_range(frames)
        frames = frames.to(device, non_blocking=device.type == "cuda")
        return as_float_frames(frames, self.idm.dtype)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def join_pieces(pieces: Iterable[Tensor]) -> Tensor:
    """The rows of all pieces (P, ...) in one tensor, like `torch.cat`, but piece by piece.

    Many small tensors that stay would scatter over the heap, and keep the large ones between them from reusing it: an
    hour of video then takes hundreds of megabytes more than its latent actions.

    Raises:
        ValueError: If there are no pieces.
    """
    rows: Tensor | None = None
    count = 0
    for piece in pieces:
        stop = count + len(piece)
        if rows is None or stop > len(rows):
            larger = piece.new_empty(max(stop, 2 * count, _FIRST_ROWS), *piece.shape[1:])
            if rows is not None:
                larger[:count] = rows[:count]
            rows = larger
        rows[count:stop] = piece
        count = stop
    if rows is None:
        raise ValueError("pieces: got none, expected at least one")
    return rows[:count].clone()
