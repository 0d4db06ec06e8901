"""Frames of many videos in batches of one size, decoded and sent to the device ahead of the computation.

Shapes: N frames, C = 3 channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing

import torch
from torch import Tensor

from ...models.latent_actions.pair_encoding import FrameBatch, FrameRun
from ...video import VideoError, VideoReader
from ...video.prefetch import DeviceFeed, prefetch
from ..episodes import Episode

# Frames decoded at a time; a batch may be of several such pieces, or of a part of one.
PIECE = 64
# Batches that wait for the computation. One more is in the making, one in use.
AHEAD = 2


class EpisodeFrames:
    """The frames of videos, one after the other, each piece decoded when it is asked for.

    Args:
        episodes: The videos.
        strides: k of each.
        image_size: Side in pixels of the square that frames are squashed to.

    Attributes:
        rejected: Why a video was given up, by its number; filled before any frame of a later video is given. Some of
            its frames may have been given before.
    """

    def __init__(self, episodes: Sequence[Episode], strides: Sequence[int], image_size: int) -> None:
        self.episodes = episodes
        self.strides = strides
        self.image_size = image_size
        self.rejected: dict[int, str] = {}

    def batches(self, batch_size: int) -> Iterator[FrameBatch]:
        """All frames as uint8 batches of `batch_size`; the last one may be smaller."""
        return pack(self._runs(min(batch_size, PIECE)), batch_size)

    def _runs(self, length: int) -> Iterator[tuple[FrameRun, Tensor]]:
        for number, (episode, stride) in enumerate(zip(self.episodes, self.strides, strict=True)):
            try:
                reader = VideoReader(episode.path, self.image_size)
                _check_length(reader, stride)
                for frames in reader.chunks(length):
                    yield FrameRun(number, stride, len(frames)), frames
            except VideoError as error:
                self.rejected[number] = error.reason


def _check_length(reader: VideoReader, stride: int) -> None:
    if len(reader) <= stride:
        reason = f"it holds {len(reader)} frames; a latent action spans {stride}: use a smaller stride"
        raise VideoError.about(reader.path, reason)


def pack(runs: Iterable[tuple[FrameRun, Tensor]], batch_size: int) -> Iterator[FrameBatch]:
    """Joins and cuts runs of frames (N, C, H, W) into batches of `batch_size`; the last one may be smaller."""
    held: list[tuple[FrameRun, Tensor]] = []
    room = batch_size
    for run, frames in runs:
        while len(frames):
            head, frames = frames[:room], frames[room:]
            held.append((FrameRun(run.video, run.stride, len(head)), head))
            room -= len(head)
            if not room:
                yield _batch(held)
                held, room = [], batch_size
            del head
    if held:
        yield _batch(held)


def _batch(held: Sequence[tuple[FrameRun, Tensor]]) -> FrameBatch:
    pieces = [frames for _, frames in held]
    frames = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    runs: list[FrameRun] = []
    for run, _ in held:
        if runs and runs[-1].video == run.video:
            run = FrameRun(run.video, run.stride, runs.pop().length + run.length)
        runs.append(run)
    return FrameBatch(frames, tuple(runs))


def send_ahead(batches: Iterable[FrameBatch], device: torch.device) -> Generator[FrameBatch, None, None]:
    """Batches on the device; while one is in use, the next ones are made and copied in a background thread.

    Close it, or go through it, to end the thread. At most `AHEAD` + 2 batches are in memory.

    Raises:
        Exception: Whatever `batches` raises.
    """
    feed = DeviceFeed(device)
    sent = ((feed.send(batch.frames), batch.runs) for batch in batches)
    with closing(prefetch(sent, AHEAD)) as ready:
        for copy, runs in ready:
            yield FrameBatch(feed.receive(*copy), runs)
            del copy
