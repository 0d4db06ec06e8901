"""Frames of many videos or demonstrations, at one or more sizes, from memory where they fit and else from the files.

Shapes: E episodes, T frames of an episode, N frames asked for, C = 3 channels, H height, W width.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from ...fingerprint import data_fingerprint, file_fingerprint
from ...video import VideoError, VideoReader, image_size, resize_frames
from ..demonstrations.demonstration import Demonstration

DEFAULT_CACHE_BYTES = 2 * 1024**3
"""Memory that decoded frames may take before they are read from the files instead."""

# Open files a process; each holds a decoder with its buffers.
_OPEN_READERS = 16


class OpenFrames(Protocol):
    """The frames of one episode, ready to be read."""

    def read(self, indices: Iterable[int]) -> Tensor:
        """uint8 (N, C, H, W), in the order asked for."""

    def chunks(self, chunk_size: int) -> Iterator[Tensor]:
        """All frames once, in pieces of about `chunk_size`."""


class FrameSource(Protocol):
    """An episode whose frames a `FrameStore` can hold; its `str` names it in messages."""

    @property
    def num_frames(self) -> int:
        """T."""

    def open(self, size: tuple[int, int] | None) -> OpenFrames:
        """The frames, at best resized to (height, width) as they are read."""

    def fingerprint(self) -> str:
        """Says which frames these are, the same on every machine and in any folder, without decoding them."""


@dataclass(frozen=True)
class VideoSource:
    """A video and how many frames it is known to hold."""

    path: str
    num_frames: int

    def __str__(self) -> str:
        return self.path

    def open(self, size: tuple[int, int] | None) -> VideoReader:
        """The video, resized piece by piece.

        Raises:
            FileNotFoundError: There is no such file.
            VideoError: It cannot be decoded, or no longer has the number of frames it had.
        """
        reader = VideoReader(self.path, size)
        if len(reader) != self.num_frames:
            raise VideoError.about(
                self.path,
                f"it holds {len(reader)} frames, but {self.num_frames} were expected: it changed since the folder was "
                "scanned or the corpus was written; scan again",
            )
        return reader

    def fingerprint(self) -> str:
        """By the number of frames and both ends of the file.

        Raises:
            OSError: The file cannot be read.
        """
        return data_fingerprint(self.num_frames, file_fingerprint(self.path))


@dataclass(frozen=True)
class CameraSource:
    """One camera of a demonstration."""

    demonstration: Demonstration
    camera: str

    def __str__(self) -> str:
        return f"episode {self.demonstration.id!r}"

    @property
    def num_frames(self) -> int:
        """T."""
        return self.demonstration.num_frames

    def open(self, size: tuple[int, int] | None) -> CameraSource:
        """Itself: a demonstration opens its files for each reading, and gives frames at their own size."""
        return self

    def read(self, indices: Iterable[int]) -> Tensor:
        """uint8 (N, C, H, W), in the order asked for."""
        return self.demonstration.frames(self.camera, indices)

    def chunks(self, chunk_size: int) -> Iterator[Tensor]:
        """All frames in one piece: formats that keep many pictures in one block would read it for every piece."""
        yield self.demonstration.frames(self.camera)

    def fingerprint(self) -> str:
        """That of the demonstration's frames."""
        return self.demonstration.frames_fingerprint(self.camera)


class FrameStore:
    """Random access to resized frames.

    When all frames fit into `cache_bytes` they are decoded once, here, into one uint8 tensor a size, which DataLoader
    workers share. Otherwise each process keeps a few files open and decodes what is asked for, once for all sizes.

    Args:
        sources: The episodes.
        size: Edge length or (height, width) of the frames.
        other_sizes: Further sizes, each resized from the episode's own frames; they count to the memory budget.
        cache_bytes: Memory budget in bytes; 0 always reads from the files.
        num_workers: Threads that fill the memory.
        progress: Show a progress bar while it fills.

    Attributes:
        in_memory: Whether frames come from memory.
        num_bytes: What all frames take, decoded, at all sizes.

    Raises:
        VideoError: A video cannot be decoded, or no longer has the number of frames it had.
        ValueError: A demonstration has no such camera, or its frames are damaged.
    """

    def __init__(
        self,
        sources: Sequence[FrameSource],
        size: int | tuple[int, int],
        *,
        other_sizes: Sequence[int | tuple[int, int]] = (),
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        num_workers: int = 2,
        progress: bool = True,
    ) -> None:
        self.sources = list(sources)
        self.sizes = [image_size(each) for each in (size, *other_sizes)]
        self._frame_bytes = sum(3 * height * width for height, width in self.sizes)
        self.num_bytes = sum(source.num_frames for source in self.sources) * self._frame_bytes
        self._readers: OrderedDict[int, OpenFrames] = OrderedDict()
        self._starts = _starts([source.num_frames for source in self.sources])
        self._cache: list[Tensor] | None = None
        if self.num_bytes <= cache_bytes:
            self._cache = self._decode_all(num_workers, progress)

    @property
    def in_memory(self) -> bool:
        return self._cache is not None

    def read(self, episode: int, indices: Iterable[int]) -> Tensor:
        """Frames of one episode at the first size.

        Args:
            episode: Row in `sources`.
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
        source = self.sources[episode]
        wanted = list(indices)
        wrong = next((index for index in wanted if not 0 <= index < source.num_frames), None)
        if wrong is not None:
            raise IndexError(f"{source}: frame index {wrong} is outside 0..{source.num_frames - 1}")
        rows = torch.tensor(wanted, dtype=torch.long) + self._starts[episode]
        return [frames[rows] for frames in self._cache]

    def select(self, rows: Sequence[int]) -> FrameStore:
        """The frames of some of the episodes; those in memory are shared.

        Args:
            rows: Rows in `sources`, in any order.
        """
        chosen = copy.copy(self)
        chosen.sources = [self.sources[row] for row in rows]
        chosen.num_bytes = sum(source.num_frames for source in chosen.sources) * self._frame_bytes
        chosen._starts = [self._starts[row] for row in rows]
        chosen._readers = OrderedDict()
        return chosen

    def fingerprint(self) -> str:
        """Says which frames these are and at which sizes, the same on every machine and in any folder.

        Raises:
            OSError: A file cannot be read.
        """
        # The files may lie on a network, where each takes a while to answer.
        with ThreadPoolExecutor(max_workers=_OPEN_READERS) as pool:
            return data_fingerprint(self.sizes, list(pool.map(lambda source: source.fingerprint(), self.sources)))

    def _resized(self, frames: Tensor) -> list[Tensor]:
        return [resize_frames(frames, size) for size in self.sizes]

    def _reader(self, episode: int) -> OpenFrames:
        reader = self._readers.pop(episode, None) or self._open(episode)
        self._readers[episode] = reader
        if len(self._readers) > _OPEN_READERS:
            self._readers.popitem(last=False)
        return reader

    def _open(self, episode: int) -> OpenFrames:
        # Only where there are several sizes are frames kept at their own.
        return self.sources[episode].open(self.sizes[0] if len(self.sizes) == 1 else None)

    def _decode_all(self, num_workers: int, progress: bool) -> list[Tensor]:
        total = sum(source.num_frames for source in self.sources)
        cache = [torch.empty((total, 3, *size), dtype=torch.uint8) for size in self.sizes]

        def decode(episode: int) -> None:
            start = self._starts[episode]
            for chunk in self._open(episode).chunks(64):
                for frames, resized in zip(cache, self._resized(chunk), strict=True):
                    frames[start : start + len(chunk)] = resized
                start += len(chunk)

        with ThreadPoolExecutor(max_workers=max(1, num_workers)) as pool:
            done = pool.map(decode, range(len(self.sources)))
            for _ in tqdm(done, total=len(self.sources), desc="Reading frames", disable=not progress):
                pass
        return cache


def _starts(lengths: Sequence[int]) -> list[int]:
    """Row of each episode's first frame in the concatenation of all."""
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    return starts[:-1]
