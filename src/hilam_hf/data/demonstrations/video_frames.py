"""Frames of an episode, by camera, and those out of a video file or a part of one.

Shapes: N frames asked for, H height, W width, C = 3 channels.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...fingerprint import data_fingerprint, file_fingerprint
from ...video import VideoError, VideoReader
from ...video.timestamps import frames_at

# Open files a process; each holds a decoder with its buffers.
_OPEN_READERS = 16


class FramesOfCamera(Protocol):
    """Frames of an episode that one camera saw."""

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 (N, H, W, C)."""

    def fingerprint(self) -> str:
        """Says which pictures these are, see `FrameReader`."""


@dataclass(frozen=True)
class CameraFrames:
    """Frames of an episode, each camera's from a place of its own."""

    cameras: Mapping[str, FramesOfCamera]

    def read(self, camera: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 (N, H, W, C) for ascending indices."""
        return self.cameras[camera].read(indices)

    def fingerprint(self, camera: str) -> str:
        """Says which pictures these are, see `FrameReader`."""
        return self.cameras[camera].fingerprint()


@dataclass(frozen=True)
class VideoFrames:
    """A part of a video file.

    Attributes:
        path: The file.
        start: Time of the episode's first frame, in seconds after the file's first one.
        length: T.
        fps: Rate that the recording gives.
        is_whole: Whether the file holds this episode and nothing else.
    """

    path: Path
    start: float
    length: int
    fps: float
    is_whole: bool = False

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 (N, H, W, C).

        Raises:
            FileNotFoundError: There is no such file.
            VideoError: The file is damaged, or is not the one that the recording describes.
        """
        modified = self.path.stat().st_mtime_ns if self.path.exists() else 0
        reader = _video_reader(self.path, modified, threading.get_ident())
        rows = self._rows(reader)
        return reader.read(rows[list(indices)].tolist()).permute(0, 2, 3, 1).numpy()

    def fingerprint(self) -> str:
        """By the part and both ends of the file."""
        return data_fingerprint(self.start, self.length, self.fps, file_fingerprint(self.path))

    def _rows(self, reader: VideoReader) -> NDArray[np.int64]:
        """(T,) frames of the file by their times: numbers of frames are wrong behind one that is missing."""
        seconds = self.start + np.arange(self.length) / self.fps
        rows = frames_at(reader.times, seconds, self.fps)
        if (rows < 0).any() or (np.diff(rows) != 1).any() or (self.is_whole and len(reader) != self.length):
            end = round(self.start * self.fps) + self.length
            expected = f"{end}" if self.is_whole else f"at least {end}"
            gap = f" (none is at {seconds[rows < 0][0]:.3f} s)" if (rows < 0).any() else ""
            raise VideoError.about(
                self.path,
                f"it has {len(reader)} frames at {reader.info.fps} a second, expected {expected} at "
                f"{self.fps}{gap}: copy the recording again",
            )
        return rows


@lru_cache(maxsize=_OPEN_READERS)
def _video_reader(path: Path, modified: int, thread: int) -> VideoReader:
    """An open file; one that was replaced is opened again. Two threads cannot share a decoder."""
    return VideoReader(path)
