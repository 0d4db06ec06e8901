"""When the frames of a video are shown, read from its container's index without decoding a picture.

MP4/MOV tables hold each frame's duration, Matroska/WebM blocks their time, AVI chunks stand one a tick. torchcodec
reads the same times, but gives them with decoded frames only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from .containers import container_of, read_vint

# The boxes of MP4 on the way to a track's tables.
_MP4_PARENTS = frozenset((b"mdia", b"minf", b"stbl"))

# Elements of Matroska: those that hold others, and those that are read.
_MATROSKA_PARENTS = frozenset(
    (
        0x18538067,  # Segment
        0x1549A966,  # Info
        0x1654AE6B,  # Tracks
        0x1F43B675,  # Cluster
        0xA0,  # BlockGroup
    )
)
_TIMESTAMP_SCALE, _TRACK, _CLUSTER_TIME = 0x2AD7B1, 0xAE, 0xE7
_TRACK_NUMBER, _TRACK_TYPE = 0xD7, 0x83
_BLOCKS = frozenset((0xA3, 0xA1))
_VIDEO = 1

# How far a frame may lie from its place, in frames: containers that count milliseconds round (0.12 frames at 240 a
# second), while one missing frame moves others by at least 0.5.
TIME_TOLERANCE = 0.25


def frame_times(path: str | Path, num_frames: int) -> NDArray[np.float64] | None:
    """Times of a video's frames.

    Args:
        path: An existing file.
        num_frames: T, frames that the decoder counts.

    Returns:
        (T,) seconds after the first frame, ascending; None where the container keeps them in a way that is not read
        here, or keeps another number of them (an edit list may hide frames).
    """
    readers = {"mp4": _mp4_times, "matroska": _matroska_times, "avi": _avi_times}
    try:
        with open(path, "rb") as file:
            reader = readers.get(container_of(file.read(12)) or "")
            times = None if reader is None else reader(file, num_frames)
    except (struct.error, ValueError, LookupError, ArithmeticError):
        return None
    if times is None or len(times) != num_frames or not np.isfinite(times).all():
        return None
    times = np.sort(times)
    return times - times[0]


def frames_at(times: NDArray[np.float64], seconds: NDArray[np.float64], fps: float) -> NDArray[np.int64]:
    """Which frames are shown at some times.

    Args:
        times: (T,) of the frames, ascending.
        seconds: (N,) the times asked for.
        fps: Frames a second that the video shall have.

    Returns:
        (N,) indices of frames; -1 where none is within a quarter of a frame.
    """
    slack = TIME_TOLERANCE / fps
    frames = np.minimum(np.searchsorted(times, seconds - slack), len(times) - 1)
    return np.where(np.abs(times[frames] - seconds) <= slack, frames, -1)


def uneven(times: NDArray[np.float64]) -> str | None:
    """What is wrong and what to do where frames are not evenly spaced; None where they are, to a quarter of a frame.

    Args:
        times: (T,) of the frames, from 0 on and ascending.
    """
    if len(times) < 2:
        return None
    interval = times[-1] / (len(times) - 1)
    if interval > 0 and np.abs(times - interval * np.arange(len(times))).max() <= TIME_TOLERANCE * interval:
        return None
    gaps = np.diff(times)
    fps = max(1, round(1 / max(float(np.median(gaps)), 1e-3)))
    return (
        f"its frames are {gaps.min():.3g} to {gaps.max():.3g} s apart (a variable frame rate, or frames are missing): "
        f"re-encode it at a constant rate, for one with `ffmpeg -i in.mp4 -vf fps={fps} out.mp4`"
    )


def _mp4_times(file: BinaryIO, num_frames: int) -> NDArray[np.float64] | None:
    movie = _mp4_movie(file)
    for name, track in _mp4_boxes(movie):
        if name != b"trak":
            continue
        boxes = _mp4_tree(track)
        if boxes[b"hdlr"][8:12] != b"vide":
            continue
        durations = _mp4_table(boxes[b"stts"])
        # A hostile table may announce billions of frames: they are counted before they are written out.
        if durations[:, 0].sum() != num_frames:
            continue
        decoded = np.concatenate([[0], np.cumsum(np.repeat(durations[:, 1], durations[:, 0]))[:-1]])
        return (decoded + _mp4_offsets(boxes, num_frames)) / _mp4_timescale(boxes[b"mdhd"])
    return None


def _mp4_offsets(boxes: dict[bytes, memoryview], num_frames: int) -> NDArray[np.int64]:
    """From decoding to showing; signed in every version, as FFmpeg reads them."""
    if b"ctts" not in boxes:
        return np.zeros(num_frames, dtype=np.int64)
    offsets = _mp4_table(boxes[b"ctts"])
    if offsets[:, 0].sum() != num_frames:
        raise ValueError("another number of frames")
    return np.repeat(offsets[:, 1].astype(np.uint32).view(np.int32), offsets[:, 0])


def _mp4_movie(file: BinaryIO) -> memoryview:
    position = 0
    while True:
        file.seek(position)
        header = file.read(16)
        size, name = struct.unpack_from(">I4s", header)
        if size == 1:
            size = struct.unpack_from(">Q", header, 8)[0]
        if name == b"moov":
            file.seek(position)
            return memoryview(file.read(size))[8:]
        if size < 8:
            raise ValueError("no movie")
        position += size


def _mp4_boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    position = 0
    while position + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, position)
        if size < 8:
            return
        yield name, data[position + 8 : position + size]
        position += size


def _mp4_tree(track: memoryview) -> dict[bytes, memoryview]:
    """Boxes of a track that hold no others; of two with one name the first, which is the outer one."""
    boxes: dict[bytes, memoryview] = {}
    left = [track]
    while left:
        for name, content in _mp4_boxes(left.pop(0)):
            if name in _MP4_PARENTS:
                left.append(content)
            else:
                boxes.setdefault(name, content)
    return boxes


def _mp4_table(box: memoryview) -> NDArray[np.int64]:
    """(entries, 2): how many frames, and the number that holds for each of them."""
    (entries,) = struct.unpack_from(">I", box, 4)
    return np.frombuffer(box[8 : 8 + 8 * entries], dtype=">u4").reshape(entries, 2).astype(np.int64)


def _mp4_timescale(box: memoryview) -> int:
    return int(struct.unpack_from(">I", box, 20 if box[0] == 1 else 12)[0])


def _matroska_times(file: BinaryIO, num_frames: int) -> NDArray[np.float64]:
    scale, cluster, number, video = 1_000_000, 0, None, None
    times: list[int] = []
    file.seek(0)
    for element, size in _matroska_elements(file):
        if element in _BLOCKS:
            track = read_vint(file)
            if track == video:
                times.append(cluster + struct.unpack(">h", file.read(2))[0])
        elif element == _TRACK_NUMBER:
            number = _number(file, size)
        elif element == _TRACK_TYPE and video is None:
            video = number if _number(file, size) == _VIDEO else None
        elif element == _CLUSTER_TIME:
            cluster = _number(file, size)
        elif element == _TIMESTAMP_SCALE:
            scale = _number(file, size)
    return np.array(times, dtype=np.float64) * scale / 1e9


def _number(file: BinaryIO, size: int) -> int:
    return int.from_bytes(file.read(min(size, 8)), "big")


def _matroska_elements(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Number and size of each element that holds no others, with the file at its content."""
    end = file.seek(0, 2)
    position = 0
    while position < end:
        file.seek(position)
        first = file.read(1)
        if not first or first[0] == 0:
            return
        element = int.from_bytes(first + file.read(8 - first[0].bit_length()), "big")
        size = read_vint(file)
        position = file.tell()
        if element in _MATROSKA_PARENTS or element == _TRACK:
            continue
        if size is None:
            return
        yield element, size
        position += size


def _avi_times(file: BinaryIO, num_frames: int) -> NDArray[np.float64]:
    scale, rate, stream, video = 1, 1, -1, -1
    ticks: list[int] = []
    tick = 0
    for name, size in _avi_chunks(file):
        if name == b"strh":
            stream += 1
            header = file.read(28)
            if header[:4] == b"vids" and video < 0:
                video = stream
                scale, rate = struct.unpack_from("<II", header, 20)
        elif name in (b"%02ddc" % max(video, 0), b"%02ddb" % max(video, 0)):
            # An empty chunk stands for a frame that the recorder dropped.
            if size:
                ticks.append(tick)
            tick += 1
    return np.array(ticks, dtype=np.float64) * scale / rate


def _avi_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and size of each chunk that holds no others, with the file at its content."""
    end = file.seek(0, 2)
    position = 0
    while position + 8 <= end:
        file.seek(position)
        name, size = struct.unpack("<4sI", file.read(8))
        if name in (b"RIFF", b"LIST"):
            position += 12
            continue
        yield name, size
        # Chunks begin at even positions.
        position += 8 + size + size % 2
