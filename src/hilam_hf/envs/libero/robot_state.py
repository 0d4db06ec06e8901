"""What a policy feels of the robot: layouts of `agent_pos`, with LIBERO's and robosuite's conventions.

Quaternions are (x, y, z, w), as robosuite gives them. The hand's orientation is that of the body `right_hand`, which is
turned by 90 degrees about its axis against the grip site, whose position goes with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...rotations import quaternion_to_axis_angle


@dataclass(frozen=True)
class RobotState:
    """What LIBERO's observations say of the robot.

    Attributes:
        ee_position: (3,), grip site in metres, world frame.
        ee_quaternion: (4,), x, y, z, w of the hand.
        joint_positions: (7,), radians.
        gripper_positions: (2,), metres; the second finger's is negative.
    """

    ee_position: NDArray[np.float64]
    ee_quaternion: NDArray[np.float64]
    joint_positions: NDArray[np.float64]
    gripper_positions: NDArray[np.float64]


def _ee_axis_angle_gripper(state: RobotState) -> tuple[NDArray[np.float64], ...]:
    return state.ee_position, quaternion_to_axis_angle(state.ee_quaternion), state.gripper_positions


def _joints_gripper(state: RobotState) -> tuple[NDArray[np.float64], ...]:
    return state.joint_positions, state.gripper_positions


def _gripper_joints(state: RobotState) -> tuple[NDArray[np.float64], ...]:
    return state.gripper_positions, state.joint_positions


_LAYOUTS: dict[str, tuple[int, Callable[[RobotState], tuple[NDArray[np.float64], ...]]]] = {
    # OpenVLA's and LeRobot's.
    "ee_axis_angle_gripper": (8, _ee_axis_angle_gripper),
    # BAKU's.
    "joints_gripper": (9, _joints_gripper),
    # LIBERO's own policies'.
    "gripper_joints": (9, _gripper_joints),
}


def proprioception_dim(layout: str) -> int:
    """Return how many numbers a layout of `agent_pos` has.

    Raises:
        ValueError: LIBERO has no such layout.
    """
    return _layout(layout)[0]


def proprioception(state: RobotState, layout: str) -> NDArray[np.float32]:
    """Return `agent_pos` in a layout.

    Args:
        state: The robot's state.
        layout: `ee_axis_angle_gripper` (8 numbers: position 3, axis-angle 3, fingers 2), `joints_gripper` (9: joints 7,
            fingers 2) or `gripper_joints` (9: fingers, joints).

    Returns:
        float32 (P,).

    Raises:
        ValueError: LIBERO has no such layout.
    """
    return np.concatenate(_layout(layout)[1](state)).astype(np.float32)


def _layout(name: str) -> tuple[int, Callable[[RobotState], tuple[NDArray[np.float64], ...]]]:
    if name not in _LAYOUTS:
        raise ValueError(f"LIBERO has no proprioception {name!r}; there are {', '.join(_LAYOUTS)}")
    return _LAYOUTS[name]
