"""Small synthetic videos whose frames can be told apart after encoding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hilam_hf.video.video_file import write_video

MakeVideo = Callable[..., Path]


def numbered_frames(num_frames: int, height: int = 48, width: int = 64) -> Tensor:
    """Frame t is plain grey of value 10 + 6 t (up to 40 frames): its number survives encoding and resizing."""
    values = (10 + 6 * torch.arange(num_frames)).to(torch.uint8)
    return values[:, None, None, None].expand(num_frames, 3, height, width).contiguous()


def frame_numbers(frames: Tensor) -> list[int]:
    """The numbers that `numbered_frames` gave to (N, C, H, W) frames."""
    return ((frames.float().mean(dim=(1, 2, 3)) - 10) / 6).round().int().tolist()


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
