"""Which way up pictures lie: renderers, data sets and policies differ.

H and W are a picture's height and width, C its channels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

ImageTransform = Literal["none", "flip_vertical", "rotate_180"]

# Whether the rows and the columns are reversed, compared with what the renderer gives.
_REVERSED: dict[str, tuple[bool, bool]] = {
    "none": (False, False),
    "flip_vertical": (True, False),
    "rotate_180": (True, True),
}


def orient_frames(frames: NDArray[np.uint8], stored: ImageTransform, wanted: ImageTransform) -> NDArray[np.uint8]:
    """Turns pictures from the way that they are stored to the way that they are wanted.

    All three ways reverse rows, columns, both or neither, so what is left to do is to reverse where the two differ.

    Args:
        frames: (..., H, W, C).
        stored: How the frames differ from what the renderer gives: "none", "flip_vertical" (upright, left and right
            as the camera sees them) or "rotate_180" (upright and mirrored, as in most published LIBERO data).
        wanted: How the result shall differ from what the renderer gives.

    Returns:
        A view of `frames`, of the same shape.

    Raises:
        ValueError: A name is unknown.
    """
    for transform in (stored, wanted):
        check_image_transform(transform)
    axes = tuple(axis for axis, a, b in zip((-3, -2), _REVERSED[stored], _REVERSED[wanted], strict=True) if a != b)
    return np.flip(frames, axes) if axes else frames


def check_image_transform(transform: str) -> None:
    """Sees that a way to turn pictures is a known one.

    Raises:
        ValueError: It is not.
    """
    if transform not in _REVERSED:
        raise ValueError(f"image_transform: got {transform!r}, expected one of {', '.join(_REVERSED)}")
