"""Pairs of frames for tests of latent action models."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from hilam_hf.video import resize_frames


class MovingBars(Dataset[dict[str, Tensor]]):
    """A bright bar that jumps left or right at random, so that only a latent action can tell where it will be.

    Args:
        size: Side of the frames in pixels, a multiple of 16.
        idm_size: Side of the frames for the inverse dynamics model, where it differs.
        start: Number of the first item; others than 0 show other brightnesses.
    """

    def __init__(self, size: int = 16, idm_size: int | None = None, start: int = 0):
        self.size = size
        self.idm_size = idm_size
        self.start = start

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        frames = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
        brightness = 255 - (self.start + index) % 7
        frames[0, :, :, 6:10] = brightness
        left = 2 if index % 2 else 10
        frames[1, :, :, left : left + 4] = brightness
        scaled = resize_frames(frames, self.size)
        item = {"frames": scaled[0], "next_frames": scaled[1], "index": torch.tensor(index)}
        if self.idm_size is not None and self.idm_size != self.size:
            item["idm_frames"], item["idm_next_frames"] = resize_frames(frames, self.idm_size)
        return item
