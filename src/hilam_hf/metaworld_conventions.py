"""Meta-World's conventions, which recorded data, simulators and policies must agree upon."""

from __future__ import annotations

from .robots import EE_POSITIONS, GRIPPER, RobotDescription

SAWYER = RobotDescription(
    name="sawyer",
    environment="metaworld",
    action_dim=4,
    action_names=("x", "y", "z", GRIPPER),
    action_range=(-1.0, 1.0),
    proprioception={EE_POSITIONS: 3, "gripper_openings": 1},
    layouts={"ee_gripper": (EE_POSITIONS, "gripper_openings")},
)
"""Meta-World's robot: displacements of the hand and the gripper's effort; recordings choose the camera."""
