"""LIBERO's and robosuite's conventions, which recorded data, simulators and policies must agree upon.

Pictures come with the bottom row first (OpenGL), quaternions as (x, y, z, w). H and W are a picture's height and width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .robots import EE_POSITIONS, GRIPPER, RobotDescription

CAMERAS = ("agentview", "robot0_eye_in_hand")
"""LIBERO's names of its two cameras: the one that looks at the table, and the one on the wrist."""

ACTION_DIM = 7
"""Numbers in an action: six of the pose, in [-1, 1], and the gripper, -1 opening it."""

PANDA = RobotDescription(
    name="panda",
    environment="libero",
    action_dim=ACTION_DIM,
    action_names=("x", "y", "z", "axis_angle1", "axis_angle2", "axis_angle3", GRIPPER),
    action_range=(-1.0, 1.0),
    # Metres, radians (see `quaternion_to_axis_angle`), metres of each finger, radians.
    proprioception={
        EE_POSITIONS: 3,
        "ee_axis_angles": 3,
        "ee_quaternions": 4,
        "gripper_positions": 2,
        "joint_positions": 7,
    },
    layouts={
        # OpenVLA's and LeRobot's.
        "ee_axis_angle_gripper": (EE_POSITIONS, "ee_axis_angles", "gripper_positions"),
        # BAKU's.
        "joints_gripper": ("joint_positions", "gripper_positions"),
        # LIBERO's own policies'.
        "gripper_joints": ("gripper_positions", "joint_positions"),
    },
    cameras=CAMERAS,
    # Most published LIBERO data are turned by 180 degrees.
    image_transforms=("rotate_180", "flip_vertical", "none"),
)
"""LIBERO's robot."""


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
