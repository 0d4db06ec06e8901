"""Frames as HiLAM's inverse dynamics model takes them: from files, decoders and arrays, piece by piece.

Frames are squashed to the IDM's square in the type that they come in, just as the corpora's reader does, so that a
video gives the same latent actions either way. Shapes: N frames of a piece, T frames of a video, C channels, H and W
pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...video import VideoReader, check_pixel_range, decode_batch, frame_rate, resize_frames
from ...video.timestamps import uneven

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder

FRAMES_PER_PIECE = 64
"""Frames decoded at a time: full-size frames of a long video never lie in memory together."""


class FrameSource:
    """The frames of one video at the size of a model, each piece decoded when it is asked for.

    Args:
        frames: Path of a video, a torchcodec `VideoDecoder`, or frames (T, C, H, W) or (T, H, W, C), uint8 or floats in
            [0, 1], as a tensor or numpy array.
        size: Side in pixels of the square frames to give; None keeps their size.
        num_channels: C.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no video, or an array is not of frames.
    """

    def __init__(self, frames: Any, size: int | None, num_channels: int = 3) -> None:
        self.name = str(frames) if isinstance(frames, (str, Path)) else "inputs"
        self.size = size
        self.num_channels = num_channels
        self._times: list[Tensor] = []
        self._frames: VideoReader | VideoDecoder | Tensor
        if isinstance(frames, (str, Path)):
            self._frames = VideoReader(frames, size)
        elif is_decoder(frames):
            self._frames = frames
        else:
            self._frames = torch.as_tensor(frames)

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def fps(self) -> float | None:
        """Frames a second; None where the video does not say.

        Raises:
            ValueError: If the frames of a file are not evenly spaced.
        """
        if isinstance(self._frames, VideoReader):
            self._frames.check_constant_rate()
            return self._frames.info.fps
        return None if isinstance(self._frames, Tensor) else frame_rate(self._frames)

    def check_decoded_times(self) -> None:
        """Sees that the frames that a decoder gave were evenly spaced; it tells their times with the frames only.

        Raises:
            ValueError: If they were not.
        """
        times = torch.cat(self._times).double().numpy() if self._times else np.zeros(1)
        if reason := uneven(times - times[0]):
            raise ValueError(f"{self.name}: {reason}; or give fps")

    def pieces(self, length: int = FRAMES_PER_PIECE) -> Iterator[Tensor]:
        """Goes through the video once.

        Yields:
            (N, C, size, size), uint8 or floats in [0, 1] as the video has them.

        Raises:
            ValueError: If a frame cannot be decoded, or is not (C, H, W) or (H, W, C), uint8 or floats in [0, 1].
        """
        for start in range(0, len(self), length):
            yield prepare_frames(self._read(start, min(start + length, len(self))), self.size, self.num_channels)

    def _read(self, start: int, stop: int) -> Tensor:
        if isinstance(self._frames, Tensor):
            return self._frames[start:stop]
        indices = list(range(start, stop))
        if isinstance(self._frames, VideoReader):
            return self._frames.read(indices)
        batch = decode_batch(self._frames, indices, self.name)
        self._times.append(batch.pts_seconds)
        return batch.data


def prepare_frames(frames: Tensor, size: int | None, num_channels: int = 3) -> Tensor:
    """Frames checked, channels first, and at the size of an inverse dynamics model.

    Args:
        frames: (N, C, H, W) or (N, H, W, C), uint8 or floats in [0, 1].
        size: Side in pixels that they are squashed to; None keeps their size.
        num_channels: C.

    Returns:
        (N, C, size, size) of the same type; frames of 8 bits become floats where the model is.

    Raises:
        ValueError: If the shape, the dtype or a value is another.
    """
    frames = _channels_first(frames, num_channels)
    if not (frames.is_floating_point() or frames.dtype == torch.uint8):
        raise ValueError(f"inputs: got frames of {frames.dtype}, expected uint8, or floats in [0, 1]. Convert them.")
    if frames.dtype != torch.uint8:
        check_pixel_range(frames, wait=True)
    return frames if size is None else resize_frames(frames, size)


def is_decoder(value: Any) -> bool:
    """Whether `value` is a torchcodec `VideoDecoder`, told by what is needed of it."""
    return hasattr(value, "get_frames_at") and hasattr(value, "metadata")


def _channels_first(frames: Tensor, num_channels: int) -> Tensor:
    if frames.ndim == 4 and frames.shape[1] == num_channels:
        return frames
    if frames.ndim == 4 and frames.shape[3] == num_channels:
        return frames.permute(0, 3, 1, 2).contiguous()
    raise ValueError(
        f"inputs: got frames of shape {tuple(frames.shape)}, expected (T, {num_channels}, H, W) or "
        f"(T, H, W, {num_channels}). Reorder or convert them."
    )
