"""What LIBERO's observations say of the robot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...libero_conventions import quaternion_to_axis_angle


@dataclass(frozen=True)
class RobotState:
    """The robot at one moment.

    The hand's orientation is that of the body `right_hand`, which is turned by 90 degrees about its axis against the
    grip site, whose position goes with it.

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

    def parts(self) -> dict[str, NDArray[np.float64]]:
        """Return the parts of the proprioception, as `hilam_hf.libero_conventions.PANDA` names them."""
        return {
            "ee_positions": self.ee_position,
            "ee_axis_angles": quaternion_to_axis_angle(self.ee_quaternion),
            "ee_quaternions": self.ee_quaternion,
            "joint_positions": self.joint_positions,
            "gripper_positions": self.gripper_positions,
        }
