"""How LeRobot datasets of LIBERO call and lay out their columns: LeRobot's own, and other published copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ....libero_conventions import PANDA
from ....robots import RobotDescription
from ....video.orientation import ImageTransform


@dataclass(frozen=True, kw_only=True)
class StateColumn:
    """A column of proprioception.

    Attributes:
        keys: Names of the column in published datasets; the first is written.
        parts: Parts of the robot's proprioception, in the column's order.
        names: What each number is called.
    """

    keys: tuple[str, ...]
    parts: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LeRobotLayout:
    """The columns of a robot's datasets.

    Attributes:
        robot: The robot.
        cameras: Names of each camera's pictures in published datasets; the first is written.
        action_keys: Names of the column of actions; the first is written.
        states: Columns of proprioception.
        image_transform: How pictures lie where a dataset does not say, and in those that are written here.
    """

    robot: RobotDescription
    cameras: Mapping[str, tuple[str, ...]]
    action_keys: tuple[str, ...]
    states: tuple[StateColumn, ...]
    image_transform: ImageTransform

    def width(self, state: StateColumn) -> int:
        """Numbers in a column of proprioception."""
        return sum(self.robot.proprioception[part] for part in state.parts)


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
