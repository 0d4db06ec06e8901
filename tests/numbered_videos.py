"""Small synthetic videos whose frames can be told apart after encoding."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hilam_hf.video.video_file import write_video
from tests.helpers import absent

MakeVideo = Callable[..., Path]


def numbered_frames(num_frames: int, height: int = 48, width: int = 64) -> Tensor:
    """Frame t is plain grey of value 10 + 6 t (up to 40 frames): its number survives encoding and resizing."""
    values = (10 + 6 * torch.arange(num_frames)).to(torch.uint8)
    return values[:, None, None, None].expand(num_frames, 3, height, width).contiguous()


def frame_numbers(frames: Tensor) -> list[int]:
    """The numbers that `numbered_frames` gave to (N, C, H, W) frames."""
    return ((frames.float().mean(dim=(1, 2, 3)) - 10) / 6).round().int().tolist()


def write_video_at(path: Path, shown: Sequence[int], fps: int = 10) -> Path:
    """A numbered video without the frames that are not in `shown`: the others keep their times, n / fps seconds.

    The container is that of the path's extension, the codec FFmpeg's choice for it, with B-frames where it has them.
    """
    if shutil.which("ffmpeg") is None:
        absent("the ffmpeg program is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f"{path.stem}-whole.mp4")
    write_video(whole, numbered_frames(max(shown) + 1), fps, crf=0)
    chosen = "+".join(f"eq(n,{number})" for number in shown)
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(whole), "-vf", f"select='{chosen}'", "-fps_mode", "vfr"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], check=True)
    whole.unlink()
    return path


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """Writes a numbered video below tmp_path/videos and returns its path."""

    def make(name: str = "clip.mp4", num_frames: int = 12, fps: float = 10, height: int = 48, width: int = 64) -> Path:
        from torchcodec.encoders import VideoEncoder

        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = numbered_frames(num_frames, height, width)
        if path.suffix == ".mp4":
            write_video(path, frames, fps)
        else:
            VideoEncoder(frames, frame_rate=fps).to_file(path)
        return path

    return make
