"""Conversions of rotations with robosuite's conventions, which recorded data and policies on it rely on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def quaternion_to_axis_angle(quaternions: Any) -> NDArray[np.float64]:
    """Convert unit quaternions as robosuite's `quat2axisangle` does, and so OpenVLA, LeRobot and LIBERO's data.

    The angle is 2 arccos(w), within [0, 2 pi]: unlike in most libraries it is not brought below pi, so that q and -q
    give different vectors, and the hand that points down lies near (pi, 0, 0).

    Args:
        quaternions: (..., 4): x, y, z, w.

    Returns:
        float64 (..., 3), axis times angle in radians; zero where w is 1 or -1.

    Raises:
        ValueError: The last axis isn't 4 long.
    """
    quaternions = np.asarray(quaternions, dtype=np.float64)
    if quaternions.shape[-1:] != (4,):
        raise ValueError(f"quaternions: got shape {quaternions.shape}, expected (..., 4): x, y, z, w")
    cosine = np.clip(quaternions[..., 3:], -1.0, 1.0)
    sine = np.sqrt(1.0 - cosine**2)
    turned = sine > 0.0
    scale = np.where(turned, 2.0 * np.arccos(cosine) / np.where(turned, sine, 1.0), 0.0)
    return np.asarray(quaternions[..., :3] * scale)
