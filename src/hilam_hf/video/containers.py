"""How long a video file says it is, read from its container's own sizes.

Decoders accept many truncated files and return fewer frames. MP4/MOV boxes, the AVI RIFF header and the Matroska/WebM
segment each declare how far they reach, so comparing that with the file size finds a cut file in a few reads.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Literal

_MP4_BOXES = frozenset(
    b"ftyp moov mdat free skip wide pnot moof mfra sidx styp ssix uuid meta udta prft emsg pdin".split()
)
# Beginnings of other containers: Ogg, FLV, ASF, GIF, MPEG program streams.
_OTHER_BEGINNINGS = (b"OggS", b"FLV", b"0&\xb2u", b"GIF8", b"\x00\x00\x01")
_TRANSPORT_PACKET = 188
_EBML_HEADER = b"\x1a\x45\xdf\xa3"
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"


def declared_size(path: str | Path) -> int | None:
    """Bytes that the container says the file holds.

    Args:
        path: An existing file.

    Returns:
        The declared size, or None when the file is of another kind or leaves its size open (a live recording). The
        file is truncated when it is smaller than this.
    """
    with open(path, "rb") as file:
        start = file.read(12)
        container = container_of(start)
        if container == "mp4":
            return _mp4_size(file)
        if container == "avi":
            size = struct.unpack("<I", start[4:8])[0]
            return size + 8 if size else None
        if container == "matroska":
            return _matroska_size(file)
    return None


def is_video_container(path: str | Path) -> bool:
    """Whether a file begins as a video's container does, and not as a text that names other files.

    FFmpeg looks at the contents, not at the name: a playlist (HLS, DASH, concat) called `.mp4` makes it open what the
    playlist names.

    Args:
        path: An existing file.
    """
    with open(path, "rb") as file:
        start = file.read(_TRANSPORT_PACKET + 1)
    is_transport_stream = start[:1] == b"G" and start[_TRANSPORT_PACKET:] == b"G"
    return container_of(start) is not None or start.startswith(_OTHER_BEGINNINGS) or is_transport_stream


def container_of(start: bytes) -> Literal["mp4", "avi", "matroska"] | None:
    """The container of a file that begins with these 12 bytes, or None when it is of another kind."""
    if start[4:8] in _MP4_BOXES:
        return "mp4"
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return "avi"
    return "matroska" if start[:4] == _EBML_HEADER else None


def _mp4_size(file: BinaryIO) -> int | None:
    """End of the last whole-or-cut top-level box; bytes after the boxes that are not a box are ignored."""
    file_size = file.seek(0, 2)
    position = 0
    while position < file_size:
        file.seek(position)
        header = file.read(16)
        if len(header) < 8 or header[4:8] not in _MP4_BOXES:
            break
        size = struct.unpack(">I", header[:4])[0]
        if size == 1 and len(header) == 16:
            size = struct.unpack(">Q", header[8:16])[0]
        if size < 8:
            # 0 means "up to the end of the file"; anything else below 8 is not a box.
            return None
        position += size
    return position


def _matroska_size(file: BinaryIO) -> int | None:
    file.seek(4)
    header_size = read_vint(file)
    if header_size is None:
        return None
    file.seek(header_size, 1)
    if file.read(4) != _MATROSKA_SEGMENT:
        return None
    segment_size = read_vint(file)
    return None if segment_size is None else file.tell() + segment_size


def read_vint(file: BinaryIO) -> int | None:
    """An EBML variable-length size: the leading zero bits of the first byte give its length; all ones mean unknown."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        return None
    value = int.from_bytes(first + rest, "big") & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else value
