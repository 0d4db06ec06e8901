"""Video files and pictures, below every room that needs frames.

Names are imported when they are used: a simulator's process turns pictures without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import import_when_used

if TYPE_CHECKING:
    from .orientation import ImageTransform, orient_frames
    from .pixels import as_float_frames, image_size, resize_frames
    from .video_file import (
        VIDEO_EXTENSIONS,
        VideoError,
        VideoInfo,
        VideoReader,
        check_video,
        decode_batch,
        frame_rate,
        write_video,
    )

_MODULES = {
    "ImageTransform": "orientation",
    "VIDEO_EXTENSIONS": "video_file",
    "VideoError": "video_file",
    "VideoInfo": "video_file",
    "VideoReader": "video_file",
    "as_float_frames": "pixels",
    "check_pixel_range": "pixels",
    "check_video": "video_file",
    "decode_batch": "video_file",
    "frame_rate": "video_file",
    "image_size": "pixels",
    "orient_frames": "orientation",
    "resize_frames": "pixels",
    "write_video": "video_file",
}

__all__ = [
    "VIDEO_EXTENSIONS",
    "ImageTransform",
    "VideoError",
    "VideoInfo",
    "VideoReader",
    "as_float_frames",
    "check_pixel_range",
    "check_video",
    "decode_batch",
    "frame_rate",
    "image_size",
    "orient_frames",
    "resize_frames",
    "write_video",
]


__getattr__, __dir__ = import_when_used(__name__, _MODULES)
