"""Meta-World's conventions, which recorded data, simulators and policies must agree upon."""

from __future__ import annotations

from .robots import EE_POSITIONS, RobotDescription

SAWYER = RobotDescription(
    name="sawyer",
    environment="metaworld",
    action_dim=4,
    # An effort, of which the experts use 0 as well: not a gripper that is open or closed.
    action_names=("x", "y", "z", "gripper_effort"),
    action_range=(-1.0, 1.0),
    proprioception={EE_POSITIONS: 3, "gripper_openings": 1},
    layouts={"ee_gripper": (EE_POSITIONS, "gripper_openings")},
)
"""Meta-World's robot: displacements of the hand and the gripper's effort; recordings choose the camera."""
