"""Frames of many videos at one or more sizes, from memory where they fit and from the files where they do not.

Shapes: E episodes, T frames of an episode, N frames asked for, C = 3 channels, H height, W width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from ...video import VideoError, VideoReader, image_size, resize_frames

DEFAULT_CACHE_BYTES = 2 * 1024**3
"""Memory that decoded frames may take before they are read from the files instead."""

# Open files a process; each holds a decoder with its buffers.
_OPEN_READERS = 16


@dataclass(frozen=True)
class VideoSource:
    """A video and how many frames it is known to hold."""

    path: str
    num_frames: int


class FrameStore:
    """Random access to resized frames.

    When all frames fit into `cache_bytes` they are decoded once, here, into one uint8 tensor a size, which DataLoader
    workers share. Otherwise each process keeps a few files open and decodes what is asked for, once for all sizes.

    Args:
        videos: The videos.
        size: Edge length or (height, width) of the frames.
        other_sizes: Further sizes, each resized from the video's own frames; they count to the memory budget.
        cache_bytes: Memory budget in bytes; 0 always reads from the files.
        num_workers: Threads that fill the memory.
        progress: Show a progress bar while it fills.

    Attributes:
        in_memory: Whether frames come from memory.
        num_bytes: What all frames take, decoded, at all sizes.

    Raises:
        VideoError: A video cannot be decoded, or no longer has the number of frames it had.
    """

    def __init__(
        self,
        videos: Sequence[VideoSource],
        size: int | tuple[int, int],
        *,
        other_sizes: Sequence[int | tuple[int, int]] = (),
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        num_workers: int = 2,
        progress: bool = True,
    ) -> None:
        self.videos = list(videos)
        self.sizes = [image_size(each) for each in (size, *other_sizes)]
        frame_bytes = sum(3 * height * width for height, width in self.sizes)
        self.num_bytes = sum(video.num_frames for video in self.videos) * frame_bytes
        self._readers: OrderedDict[int, VideoReader] = OrderedDict()
        self._starts = _starts([video.num_frames for video in self.videos])
        self._cache: list[Tensor] | None = None
        if self.num_bytes <= cache_bytes:
            self._cache = self._decode_all(num_workers, progress)

    @property
    def in_memory(self) -> bool:
        return self._cache is not None

    def read(self, episode: int, indices: Iterable[int]) -> Tensor:
        """Frames of one episode at the first size.

        Args:
            episode: Row in `videos`.
            indices: Frame indices in [0, T), in any order.

        Returns:
            uint8 (N, C, H, W); a copy, safe to change.

        Raises:
            IndexError: A frame index is outside [0, T).
            VideoError: A frame cannot be decoded.
        """
        return self.read_sizes(episode, indices)[0]

    def read_sizes(self, episode: int, indices: Iterable[int]) -> list[Tensor]:
        """Frames of one episode, decoded once, at every size: the same as `read`, one tensor a size."""
        if self._cache is None:
            return self._resized(self._reader(episode).read(indices))
        video = self.videos[episode]
        wanted = list(indices)
        wrong = next((index for index in wanted if not 0 <= index < video.num_frames), None)
        if wrong is not None:
            raise IndexError(f"{video.path}: frame index {wrong} is outside 0..{video.num_frames - 1}")
        rows = torch.tensor(wanted, dtype=torch.long) + self._starts[episode]
        return [frames[rows] for frames in self._cache]

    def _resized(self, frames: Tensor) -> list[Tensor]:
        return [resize_frames(frames, size) for size in self.sizes]

    def _reader(self, episode: int) -> VideoReader:
        reader = self._readers.pop(episode, None) or self._open(episode)
        self._readers[episode] = reader
        if len(self._readers) > _OPEN_READERS:
            self._readers.popitem(last=False)
        return reader

    def _open(self, episode: int) -> VideoReader:
        video = self.videos[episode]
        # A reader resizes piece by piece; only where there are several sizes are frames kept at the video's own.
        reader = VideoReader(video.path, self.sizes[0] if len(self.sizes) == 1 else None)
        if len(reader) != video.num_frames:
            raise VideoError.about(
                video.path,
                f"it holds {len(reader)} frames, but {video.num_frames} were expected: it changed since the folder was "
                "scanned or the corpus was written; scan again",
            )
        return reader

    def _decode_all(self, num_workers: int, progress: bool) -> list[Tensor]:
        total = sum(video.num_frames for video in self.videos)
        cache = [torch.empty((total, 3, *size), dtype=torch.uint8) for size in self.sizes]

        def decode(episode: int) -> None:
            start = self._starts[episode]
            for chunk in self._open(episode).chunks(64):
                for frames, resized in zip(cache, self._resized(chunk), strict=True):
                    frames[start : start + len(chunk)] = resized
                start += len(chunk)

        with ThreadPoolExecutor(max_workers=max(1, num_workers)) as pool:
            done = pool.map(decode, range(len(self.videos)))
            for _ in tqdm(done, total=len(self.videos), desc="Decoding videos", disable=not progress):
                pass
        return cache


def _starts(lengths: Sequence[int]) -> list[int]:
    """Row of each episode's first frame in the concatenation of all."""
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    return starts[:-1]
