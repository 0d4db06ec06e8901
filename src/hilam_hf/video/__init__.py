"""Video files: one reader and one writer, below every room that needs frames."""

from .video_file import (
    VIDEO_EXTENSIONS,
    VideoError,
    VideoInfo,
    VideoReader,
    check_video,
    decode_frames,
    frame_rate,
    image_size,
    resize_frames,
    write_video,
)

__all__ = [
    "VIDEO_EXTENSIONS",
    "VideoError",
    "VideoInfo",
    "VideoReader",
    "check_video",
    "decode_frames",
    "frame_rate",
    "image_size",
    "resize_frames",
    "write_video",
]
