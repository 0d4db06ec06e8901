"""The one way in which pictures are resized and scaled, wherever frames meet a model.

Frames of 8 bits are resized as they are, rounded to 8 bits, and scaled to [0, 1] afterwards: data sets keep them small,
and training, extraction, streaming and acting all give a model the same numbers. N frames, C channels, H and W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_LEVEL = 255
"""The largest value of a channel of 8 bits."""
PICTURE_FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
"""Formats of picture files that are read; for others Pillow may start programs, such as Ghostscript for PostScript."""
# Values that resizing in half precision or by a bicubic filter leaves just outside [0, 1] are let through.
_SLACK = 1e-2


def image_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) from an edge length or a pair.

    Raises:
        ValueError: The size is not one or two positive integers.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or any(isinstance(edge, bool) or not isinstance(edge, int) or edge < 1 for edge in pair):
        raise ValueError(f"size: got {size!r}, expected a positive integer or a (height, width) pair of them")
    return pair[0], pair[1]


def resize_frames(frames: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resizes frames to exactly `size`, with antialiased bilinear interpolation.

    The aspect ratio is not kept: frames are squashed, as UniSkill does, so that nothing of the scene is cropped away.

    Args:
        frames: (N, C, H, W), uint8, rounded to whole levels, or floats.
        size: Edge length, or (height, width), in pixels.

    Returns:
        (N, C, height, width) of the same type, on the same device.
    """
    height, width = image_size(size)
    if tuple(frames.shape[-2:]) == (height, width):
        return frames
    # Antialiasing of 8-bit frames exists for CPUs alone.
    source = frames.cpu() if frames.dtype == torch.uint8 else frames
    return F.interpolate(source, size=(height, width), mode="bilinear", antialias=True).to(frames.device)


def as_float_frames(frames: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Frames as models take them.

    Args:
        frames: Of any shape: uint8 in 0..255, which are divided by 255, or floats in [0, 1], whose values are kept.
        dtype: Floating type of the result; None: float32 from uint8, and that of float frames.

    Returns:
        Floats in [0, 1], of the same shape, on the same device.

    Raises:
        ValueError: The frames are neither uint8 nor floats.
    """
    if frames.dtype == torch.uint8:
        return frames.to(dtype or torch.float32) / MAX_LEVEL
    if not frames.is_floating_point():
        raise ValueError(f"frames: got {frames.dtype}, expected uint8 in 0..255, or floats in [0, 1]")
    return frames if dtype is None else frames.to(dtype)


def check_pixel_range(frames: Tensor, *, wait: bool = False) -> None:
    """Raises a ValueError unless float frames are in [0, 1], all of them finite.

    Args:
        frames: Floats of any shape.
        wait: Also look at frames on an accelerator, which waits for it. Otherwise only those in the CPU's memory are
            looked at, and none while a graph is compiled.
    """
    if torch.compiler.is_compiling() or not frames.numel() or (frames.device.type != "cpu" and not wait):
        return
    least, largest = torch.stack(frames.detach().aminmax()).tolist()
    # Written so that NaN fails, too.
    if not (least >= -_SLACK and largest <= 1 + _SLACK):
        raise ValueError(
            f"frames: got float values from {least:g} to {largest:g}, expected [0, 1]. Divide 8-bit values by 255, and "
            "check for NaN."
        )
