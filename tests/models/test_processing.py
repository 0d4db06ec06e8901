"""The image processor that models save beside their weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from hilam_hf.models.processing import SquareImageProcessorPil
from hilam_hf.video import as_float_frames, resize_frames


@pytest.fixture
def processor() -> SquareImageProcessorPil:
    return SquareImageProcessorPil(size={"height": 12, "width": 12})


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 20, 36), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_pictures_of_every_kind_become_those_that_training_gives(
    processor: SquareImageProcessorPil, frames: torch.Tensor
) -> None:
    expected = as_float_frames(resize_frames(frames, 12))
    channels_last = frames.permute(0, 2, 3, 1).numpy()
    for pictures in (list(frames), list(channels_last), [Image.fromarray(picture) for picture in channels_last]):
        pixels = processor(pictures, return_tensors="pt")["pixel_values"]
        assert pixels.dtype == torch.float32 and torch.equal(pixels, expected)


def test_a_plain_picture_keeps_its_value(processor: SquareImageProcessorPil) -> None:
    pixels = processor([np.full((20, 36, 3), 51, dtype=np.uint8)], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, torch.full((1, 3, 12, 12), 0.2))


def test_floats_are_resized_and_not_scaled(processor: SquareImageProcessorPil, frames: torch.Tensor) -> None:
    in_floats = as_float_frames(frames)
    pixels = processor(list(in_floats), return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels, resize_frames(in_floats, 12))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"rescale_factor": 0.5}, r"rescale_factor: got 0\.5, expected 1/255"),
        ({"resample": 0}, r"resample: got 0, expected 2 \(bilinear\)"),
    ],
)
def test_another_scale_or_interpolation_is_refused(
    option: dict[str, float], message: str, frames: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        SquareImageProcessorPil(**option)(list(frames), return_tensors="pt")
