"""One reader and one writer for video files, over torchcodec.

Frames are `torch.uint8` RGB of shape (T, C, H, W). Every problem with a file is a `VideoError` that names it and says
what to do. Shapes: N frames asked for, T frames of a video, C = 3 channels, H height, W width.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..files import atomic_path
from .containers import declared_size, is_video_container
from .damage import reported_damage
from .pixels import image_size, resize_frames
from .timestamps import frame_times, uneven

if TYPE_CHECKING:
    from torchcodec import FrameBatch
    from torchcodec.decoders import VideoDecoder

VIDEO_EXTENSIONS = (".mp4", ".webm", ".avi", ".mov", ".mkv")
"""Extensions that folders are searched for, in lower case."""

# Frames decoded at once: full-size frames of a long video never lie in memory together.
_DECODE_BATCH = 64


class VideoError(ValueError):
    """A video file that cannot be used.

    Attributes:
        path: The file, or None.
        reason: What is wrong and what to do, without the file name.
    """

    def __init__(self, message: str, *, path: str | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason if reason is not None else message

    @classmethod
    def about(cls, path: str | Path, reason: str) -> VideoError:
        """The error for one file."""
        return cls(f"{path}: {reason}", path=str(path), reason=reason)


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        path: The file.
        num_frames: Frames counted in the stream, not the header's claim.
        fps: Average frames a second, or None where the container does not say.
        height: Height in pixels, as decoded (rotation applied).
        width: Width in pixels, as decoded.
        codec: FFmpeg's name of the codec, such as "h264".
    """

    path: str
    num_frames: int
    fps: float | None
    height: int
    width: int
    codec: str


class VideoReader:
    """Random and sequential access to the frames of one file.

    A reader can be pickled and survives `fork`: each process opens the file for itself.

    Args:
        path: The video file.
        size: Edge length or (height, width) that frames are resized to (see `resize_frames`); None keeps them.

    Attributes:
        info: `VideoInfo` of the file (the size before resizing).

    Raises:
        FileNotFoundError: There is no such file.
        VideoError: The file is empty, truncated, not a video, or holds no video stream.

    Example:
        >>> reader = VideoReader("episode.mp4", size=128)
        >>> reader.read([0, 10]).shape
        torch.Size([2, 3, 128, 128])
    """

    def __init__(self, path: str | Path, size: int | tuple[int, int] | None = None) -> None:
        self.path = Path(path)
        self.size = None if size is None else image_size(size)
        self._open_decoder: VideoDecoder | None = None
        self._owner = -1
        self._times: NDArray[np.float64] | None = None
        self.info = _video_info(self.path, self._decoder)

    def __len__(self) -> int:
        return self.info.num_frames

    def __repr__(self) -> str:
        return f"VideoReader({str(self.path)!r}, size={self.size}, num_frames={len(self)})"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open_decoder": None, "_owner": -1}

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the frames that are returned."""
        height, width = self.size or (self.info.height, self.info.width)
        return 3, height, width

    @property
    def times(self) -> NDArray[np.float64]:
        """float64 (T,): when each frame is shown, in seconds after the first one.

        Raises:
            VideoError: The container does not tell, and a frame cannot be decoded.
        """
        if self._times is None:
            found = frame_times(self.path, len(self))
            self._times = self._decoded_times() if found is None else found
        return self._times

    def check_constant_rate(self) -> None:
        """Sees that frames are evenly spaced, so that a number of frames is a span of time.

        Raises:
            VideoError: A frame is more than a quarter of a frame away from its place at a constant rate.
        """
        if reason := uneven(self.times):
            raise VideoError.about(self.path, reason)

    def read(self, indices: Iterable[int] | Tensor | None = None) -> Tensor:
        """Reads frames by index.

        Args:
            indices: Frame indices in [0, T), in any order, repeats allowed; None reads the whole video.

        Returns:
            uint8 (N, C, H, W), contiguous, in the order asked for.

        Raises:
            IndexError: An index is outside [0, T).
            VideoError: A frame cannot be decoded.
        """
        wanted = list(range(len(self))) if indices is None else self._checked(indices)
        # Sorted and without repeats, so that the decoder only ever moves forward.
        unique = sorted(set(wanted))
        frames = torch.empty((len(unique), *self.frame_shape), dtype=torch.uint8)
        for start in range(0, len(unique), _DECODE_BATCH):
            batch = unique[start : start + _DECODE_BATCH]
            frames[start : start + len(batch)] = self._decode(batch)
        if wanted == unique:
            return frames
        position = {index: row for row, index in enumerate(unique)}
        return frames[torch.tensor([position[index] for index in wanted], dtype=torch.long)]

    def chunks(self, chunk_size: int) -> Iterator[Tensor]:
        """Goes through the video once, in bounded memory.

        Args:
            chunk_size: Frames a chunk; the last chunk may be shorter.

        Yields:
            uint8 (chunk_size, C, H, W).

        Raises:
            ValueError: `chunk_size` is below 1.
            VideoError: A frame cannot be decoded.
        """
        if chunk_size < 1:
            raise ValueError(f"chunk_size: got {chunk_size}, expected at least 1")
        for start in range(0, len(self), chunk_size):
            yield self.read(range(start, min(start + chunk_size, len(self))))

    @property
    def _decoder(self) -> VideoDecoder:
        # A decoder inherited through fork shares its file position with the parent.
        if self._open_decoder is None or self._owner != os.getpid():
            self._open_decoder = _open(self.path)
            self._owner = os.getpid()
        return self._open_decoder

    def _checked(self, indices: Iterable[int] | Tensor) -> list[int]:
        wanted = [operator.index(index) for index in indices]
        wrong = next((index for index in wanted if not 0 <= index < len(self)), None)
        if wrong is not None:
            raise IndexError(f"{self.path}: frame index {wrong} is outside 0..{len(self) - 1}")
        return wanted

    def _decoded_times(self) -> NDArray[np.float64]:
        batches = torch.arange(len(self)).split(_DECODE_BATCH)
        times = [decode_batch(self._decoder, batch.tolist(), self.path).pts_seconds for batch in batches]
        seconds = torch.cat(times).double().numpy()
        return seconds - seconds[0]

    def _decode(self, batch: list[int]) -> Tensor:
        frames = decode_batch(self._decoder, batch, self.path).data
        return frames if self.size is None else resize_frames(frames, self.size)


def decode_batch(decoder: VideoDecoder, indices: list[int], name: str | Path) -> FrameBatch:
    """The frames with the given indices, in the decoder's own layout, with their times.

    Args:
        decoder: A torchcodec decoder.
        indices: Ascending indices.
        name: What errors call the video.

    Raises:
        VideoError: A frame cannot be decoded.
    """
    try:
        return decoder.get_frames_at(indices)
    except (RuntimeError, IndexError) as error:
        raise VideoError.about(
            name,
            f"frames {indices[0]} to {indices[-1]} cannot be decoded ({_reason(error)}); the file is damaged: "
            "re-encode it with ffmpeg, or take it out of the folder",
        ) from error


def frame_rate(decoder: VideoDecoder) -> float | None:
    """Average frames a second, to six decimals; None where the container does not say."""
    fps = decoder.metadata.average_fps
    return round(float(fps), 6) if fps else None


def check_video(path: str | Path, *, every_frame: bool = False, constant_rate: bool = False) -> VideoInfo:
    """Finds out whether a video can be read, cheaply.

    The container is opened, its declared size compared with the file, its packets counted, and the first and the last
    frame decoded.

    Args:
        path: The video file.
        every_frame: Decode all frames, which also finds damage in the middle of the file, as far as the decoder
            notices it (see `reported_damage`).
        constant_rate: See that frames are evenly spaced, too, by the times that the container keeps.

    Returns:
        What the file holds.

    Raises:
        FileNotFoundError: There is no such file.
        VideoError: The file cannot be read; the message says why.
    """
    reader = VideoReader(path)
    if every_frame:
        for _ in reader.chunks(_DECODE_BATCH):
            pass
        if (damage := reported_damage(path)) is not None:
            raise VideoError.about(
                path,
                f"its decoder reports damage and fills it with other parts of the picture ({damage}): copy or record "
                "it again, or take it out of the folder",
            )
    else:
        reader.read(sorted({0, len(reader) - 1}))
    if constant_rate:
        reader.check_constant_rate()
    return reader.info


def write_video(path: str | Path, frames: Tensor, fps: float, *, crf: int = 18, gop: int = 4) -> None:
    """Writes an H.264 MP4 file (yuv420p), whole or not at all; the same frames always give the same bytes.

    Args:
        path: The file to write; its extension is .mp4. An existing file is replaced.
        frames: uint8 (T, C, H, W) RGB, with T >= 1, C = 3, and even H and W (yuv420p halves both).
        fps: Frames a second, above 0.
        crf: Constant rate factor from 0 (lossless in yuv420p) to 51; 18 is visually lossless.
        gop: Frames from one key frame to the next. Random access decodes up to this many frames for one.

    Raises:
        ValueError: An argument is out of range.
        OSError: The file cannot be written, for one because the disk is full; no partial file is left.
    """
    path = Path(path)
    _check_writable(path, frames, fps, crf, gop)
    # With several threads, and by its SIMD code for small frames (measured: 18 of 150 clips of 32 x 32), libx264 now
    # and then encodes the same frames otherwise.
    options = {"g": gop, "threads": 1, "x264-params": "cpu-independent=1"}
    encoder = _torchcodec_encoder()(frames.contiguous(), frame_rate=fps)
    try:
        # Encoded in memory and written by Python: a full disk is then an OSError with its errno.
        encoded = encoder.to_tensor("mp4", codec="libx264", pixel_format="yuv420p", crf=crf, extra_options=options)
    except RuntimeError as error:
        raise OSError(
            f"{path}: FFmpeg cannot encode H.264 ({_reason(error)}): "
            "install an FFmpeg that has libx264, for example with `apt-get install -y ffmpeg`"
        ) from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.numpy().data)


def _check_writable(path: Path, frames: Tensor, fps: float, crf: int, gop: int) -> None:
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"{path}: got the extension {path.suffix!r}, expected .mp4")
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3 or len(frames) == 0:
        raise ValueError(
            f"{path}: got frames of shape {tuple(frames.shape)} and {frames.dtype}, "
            "expected (T, 3, H, W) of torch.uint8 with T >= 1"
        )
    height, width = frames.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(
            f"{path}: got frames of {height}x{width}, but H.264 needs an even height and width: "
            "crop or resize the frames by one pixel"
        )
    if not fps > 0:
        raise ValueError(f"{path}: fps: got {fps}, expected a number above 0")
    if not 0 <= crf <= 51:
        raise ValueError(f"{path}: crf: got {crf}, expected 0 to 51")
    if gop < 1:
        raise ValueError(f"{path}: gop: got {gop}, expected at least 1")


def _open(path: Path) -> VideoDecoder:
    decoder_class = _torchcodec_decoder()
    _check_file(path)
    try:
        # Absolute, as FFmpeg takes a name such as `pipe:0.mp4` for a protocol.
        decoder = decoder_class(str(path.absolute()), device="cpu")
    except (RuntimeError, ValueError) as error:
        # Unwrapped, torchcodec's message for a file without pictures asks the user to report a bug.
        if "best video stream is unknown" in str(error):
            raise VideoError.about(path, "it holds no video stream (audio only?): take it out of the folder") from error
        raise VideoError.about(
            path,
            f"it cannot be opened as a video ({_reason(error)}); it is not a video or was cut off while written: "
            "copy or record it again, or take it out of the folder",
        ) from error
    if len(decoder) == 0:
        raise VideoError.about(path, "it holds no frames: take it out of the folder")
    return decoder


def _check_file(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such video file; check the path")
    if not path.is_file():
        raise VideoError.about(path, "it is not a file: give the path of one video")
    size = path.stat().st_size
    if size == 0:
        raise VideoError.about(path, "it is empty (0 bytes): copy or record it again, or take it out of the folder")
    try:
        is_container, declared = is_video_container(path), declared_size(path)
    except PermissionError as error:
        raise VideoError.about(path, "it may not be read: change its permissions") from error
    if not is_container:
        raise VideoError.about(
            path,
            "it cannot be opened as a video (it does not begin as one); it is not a video or was damaged: copy or "
            "record it again, or take it out of the folder",
        )
    if declared is not None and declared > size:
        raise VideoError.about(
            path,
            f"it is truncated: it has {size} of the {declared} bytes that it declares; copy it again, "
            "or take it out of the folder",
        )


def _video_info(path: Path, decoder: VideoDecoder) -> VideoInfo:
    metadata = decoder.metadata
    if not metadata.height or not metadata.width:
        raise VideoError.about(path, "it does not say its picture size: re-encode it with ffmpeg")
    return VideoInfo(
        path=str(path),
        num_frames=len(decoder),
        fps=frame_rate(decoder),
        height=metadata.height,
        width=metadata.width,
        codec=metadata.codec or "unknown",
    )


def _reason(error: Exception) -> str:
    """torchcodec's message without the C++ function, source line and file name before it."""
    message = str(error).splitlines()[0]
    return re.sub(r"^\w+, \S+:\d+, ", "", message).strip().rstrip(".")


_NO_DECODER = (
    "torchcodec cannot load FFmpeg's shared libraries, which read and write videos: "
    "install them with `apt-get install -y ffmpeg` (or conda install ffmpeg), then run `hilam doctor`"
)


def _torchcodec_decoder() -> type[VideoDecoder]:
    # Imported here: the import itself fails where FFmpeg is missing, and the rest of the library works without it.
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(_NO_DECODER) from error
    return VideoDecoder


def _torchcodec_encoder() -> type:
    try:
        from torchcodec.encoders import VideoEncoder
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(_NO_DECODER) from error
    return VideoEncoder
