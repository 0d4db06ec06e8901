"""The control law in a closed-form integrator, and when a movement counts as stalled."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hilam_hf.envs.libero.expert.motion import StallGuard, pose_action, rotation_between

# Share of an action's displacement and rotation that the arm covers in a step.
FOLLOWING = 0.3


@pytest.mark.parametrize("speed", [0.7, 1.0, 1.3])
def test_converges_to_the_pose(speed):
    position, rotation = np.array([0.1, -0.2, 0.3]), Rotation.identity()
    goal, turned = np.array([-0.15, 0.05, 0.02]), Rotation.from_rotvec([0.4, -0.9, 1.2])
    for _ in range(90):
        error = rotation_between(rotation.as_matrix(), turned.as_matrix())
        action = pose_action(goal - position, error, speed)
        assert np.abs(action).max() <= min(1.0, speed) + 1e-12
        position = position + FOLLOWING * 0.05 * action[:3]
        rotation = Rotation.from_rotvec(FOLLOWING * 0.5 * action[3:]) * rotation
    np.testing.assert_allclose(position, goal, atol=1e-4)
    np.testing.assert_allclose(rotation.as_matrix(), turned.as_matrix(), atol=1e-3)


def test_near_the_goal_the_action_is_proportional():
    action = pose_action(np.array([0.01, -0.005, 0.0]), np.array([0.0, 0.1, -0.2]))
    np.testing.assert_allclose(action, [0.44, -0.22, 0.0, 0.0, 0.32, -0.64])


def test_scaling_keeps_the_direction():
    displacement, rotation = np.array([0.4, -0.1, 0.2]), np.array([1.0, 2.0, -0.5])
    action = pose_action(displacement, rotation)
    assert np.abs(action[:3]).max() == pytest.approx(1.0)
    assert np.abs(action[3:]).max() == pytest.approx(1.0)
    np.testing.assert_allclose(np.cross(action[:3], displacement), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.cross(action[3:], rotation), 0.0, atol=1e-12)
    assert action[:3] @ displacement > 0.0


def test_limit_bounds_the_displacement_alone():
    action = pose_action(np.array([0.4, 0.0, 0.0]), np.array([2.0, 0.0, 0.0]), limit=0.6)
    np.testing.assert_allclose(action, [0.6, 0.0, 0.0, 1.0, 0.0, 0.0])
    slow = pose_action(np.array([0.4, 0.0, 0.0]), np.array([2.0, 0.0, 0.0]), speed=0.5, limit=0.6)
    np.testing.assert_allclose(slow, [0.3, 0.0, 0.0, 0.5, 0.0, 0.0])


def test_rotation_between_turns_one_into_the_other():
    present = Rotation.from_rotvec([0.3, 0.1, -0.7])
    wanted = Rotation.from_rotvec([-0.2, 1.4, 0.5])
    turn = Rotation.from_rotvec(rotation_between(present.as_matrix(), wanted.as_matrix()))
    np.testing.assert_allclose((turn * present).as_matrix(), wanted.as_matrix(), atol=1e-12)


def test_stall_after_patience_without_progress():
    guard = StallGuard(patience=3, progress=0.01)
    errors = [1.0, 0.9, 0.8, 0.795, 0.8, 0.81, 0.7, 0.7, 0.7, 0.7, 0.7]
    assert [guard.stalled(error) for error in errors] == [False] * 10 + [True]
