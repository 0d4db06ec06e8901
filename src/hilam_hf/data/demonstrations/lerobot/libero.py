"""The columns of LeRobot datasets of LIBERO: LeRobot's own, and other published copies."""

from __future__ import annotations

from ....libero_conventions import PANDA
from .layout import LeRobotLayout, StateColumn

LIBERO = LeRobotLayout(
    robot=PANDA,
    cameras={
        "agentview": ("observation.images.image", "observation.images.agentview", "image"),
        "robot0_eye_in_hand": ("observation.images.image2", "observation.images.wrist_image", "wrist_image"),
    },
    action_keys=("action", "actions"),
    states=(
        StateColumn(
            keys=("observation.state", "state"),
            parts=("ee_positions", "ee_axis_angles", "gripper_positions"),
            names=("x", "y", "z", "axis_angle1", "axis_angle2", "axis_angle3", "gripper", "gripper"),
        ),
        StateColumn(
            keys=("observation.states.joint_state",),
            parts=("joint_positions",),
            names=tuple(f"joint_{number}" for number in range(7)),
        ),
    ),
    image_transform="rotate_180",
)
