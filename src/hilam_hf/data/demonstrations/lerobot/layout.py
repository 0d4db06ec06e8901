"""What a robot's LeRobot datasets call their columns, and how these are laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
