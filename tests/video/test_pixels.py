"""Resizing and scaling of pictures, against values worked out by hand and against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from hilam_hf.video.pixels import as_float_frames, check_pixel_range, image_size, resize_frames


def test_levels_of_eight_bits_become_fractions_of_255() -> None:
    levels = torch.tensor([0, 1, 51, 128, 255], dtype=torch.uint8)
    scaled = as_float_frames(levels)
    assert scaled.dtype == torch.float32
    assert scaled.tolist() == pytest.approx([0.0, 0.00392156862745098, 0.2, 0.5019607843137255, 1.0], abs=1e-7)
    assert as_float_frames(levels, torch.float64).tolist() == [0.0, 1 / 255, 0.2, 128 / 255, 1.0]
    # bfloat16 has 8 significant bits: 128/255 lies between 128/256 and 129/256, and is nearer to the second.
    assert as_float_frames(levels, torch.bfloat16).tolist()[3:] == [129 / 256, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_level_comes_back(dtype: torch.dtype) -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal((as_float_frames(levels, dtype).double() * 255).round().to(torch.uint8), levels)


def test_float_frames_keep_their_values() -> None:
    frames = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    assert as_float_frames(frames) is frames
    assert as_float_frames(frames, torch.float32).dtype == torch.float32
    assert as_float_frames(frames, torch.float32).tolist() == [0.0, 0.25, 1.0]


def test_other_integers_are_no_pictures() -> None:
    with pytest.raises(ValueError, match=r"got torch\.int64, expected uint8 in 0\.\.255, or floats in \[0, 1\]"):
        as_float_frames(torch.tensor([0, 255]))


def test_resizing_averages_over_what_a_pixel_covers() -> None:
    # A third of a chequerboard's size: plain bilinear sampling finds a black or a white pixel at every centre. The
    # triangle of antialiasing weighs five pixels of a row 1, 2, 3, 2, 1 ninths, which leaves a ninth of the contrast:
    # 127.5 +- 14.2, rounded to 113 and 142; the same along columns leaves 127.5 +- 1.6, rounded to 126 and 129.
    board = 255 * ((torch.arange(36)[:, None] + torch.arange(36)) % 2).to(torch.uint8)
    resized = resize_frames(board.expand(1, 3, 36, 36), 12)
    assert resized.dtype == torch.uint8
    interior = resized[0, 0, 1:-1, 1:-1]
    assert interior.unique().tolist() == [126, 129]
    # Floats are not rounded: 0.5 +- 0.5 / 81.
    in_floats = resize_frames(as_float_frames(board.expand(1, 3, 36, 36)), 12)[0, 0, 1:-1, 1:-1]
    torch.testing.assert_close((in_floats - 0.5).abs(), torch.full_like(in_floats, 0.5 / 81), rtol=0, atol=1e-6)


def test_resizing_squashes_the_whole_picture() -> None:
    ramp = torch.arange(0, 240, 10, dtype=torch.uint8).view(1, 1, 1, 24).expand(1, 3, 6, 24)
    # Pairs of columns halve exactly but at the edges: (0 + 10) / 2, where each takes an eighth of its neighbours.
    assert resize_frames(ramp, (6, 12))[0, 0, 0, 1:-1].tolist() == list(range(25, 220, 20))
    assert resize_frames(ramp, (3, 12)).shape == (1, 3, 3, 12)


def test_eight_bit_frames_are_resized_as_pillow_resizes_them() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8, generator=generator)
    pictures = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    expected = np.stack([np.asarray(picture.resize((40, 32), Image.Resampling.BILINEAR)) for picture in pictures])
    difference = resize_frames(frames, (32, 40)).permute(0, 2, 3, 1).int() - torch.from_numpy(expected).int()
    # The two round their weights differently.
    assert difference.abs().max() <= 1


def test_a_frame_does_not_depend_on_its_layout_or_its_batch() -> None:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (3, 3, 40, 48), dtype=torch.uint8, generator=generator)
    expected = resize_frames(frames, 32)
    channels_last = frames.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(resize_frames(channels_last, 32), expected)
    assert torch.equal(torch.cat([resize_frames(frame[None], 32) for frame in channels_last]), expected)


def test_frames_of_the_right_size_stay_as_they_are() -> None:
    frames = torch.zeros(2, 3, 6, 4, dtype=torch.uint8)
    assert resize_frames(frames, (6, 4)) is frames


def test_size_is_an_edge_or_a_pair() -> None:
    assert image_size(8) == (8, 8)
    assert image_size((4, 6)) == (4, 6)
    for size in (0, -4, (8, 0), (8, 8, 8), True):
        with pytest.raises(ValueError, match="size: got"):
            image_size(size)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 255.0, -0.5])
def test_float_frames_outside_their_range_are_refused(value: float) -> None:
    frames = torch.rand(2, 3, 4, 4)
    frames[1, 2, 3, 0] = value
    with pytest.raises(ValueError, match=r"expected \[0, 1\]. Divide 8-bit values by 255"):
        check_pixel_range(frames)


def test_float_frames_in_their_range_and_no_frames_pass() -> None:
    check_pixel_range(torch.tensor([-0.009, 0.0, 1.0, 1.009]))
    check_pixel_range(torch.rand(0, 3, 4, 4))
    check_pixel_range(torch.full((2,), 255.0, device="meta"))
