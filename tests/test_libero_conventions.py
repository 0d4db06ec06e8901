import math

import numpy as np
import pytest

from hilam_hf.envs.libero import RobotState
from hilam_hf.libero_conventions import PANDA, quaternion_to_axis_angle


@pytest.mark.parametrize(
    ("quaternion", "vector"),
    [
        ((0, 0, 0, 1), (0, 0, 0)),
        ((0, 0, 0, -1), (0, 0, 0)),
        ((1, 0, 0, 0), (math.pi, 0, 0)),
        ((0, math.sin(0.5), 0, math.cos(0.5)), (0, 1, 0)),
        # The same rotation, the other way round: 2 pi - 1 about the opposite axis.
        ((0, -math.sin(0.5), 0, -math.cos(0.5)), (0, 1 - 2 * math.pi, 0)),
        ((0, 0, -math.sqrt(0.5), math.sqrt(0.5)), (0, 0, -math.pi / 2)),
        # Rounding may bring w a little above 1.
        ((0, 0, 0, 1 + 1e-12), (0, 0, 0)),
    ],
)
def test_axis_angles_worked_out_by_hand(quaternion: tuple[float, ...], vector: tuple[float, ...]) -> None:
    np.testing.assert_allclose(quaternion_to_axis_angle(np.array([quaternion])), [vector], atol=1e-12)


@pytest.mark.sim
def test_axis_angles_are_those_of_robosuite() -> None:
    from robosuite.utils.transform_utils import quat2axisangle

    quaternions = np.random.default_rng(0).normal(size=(50, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    quaternions[:3] = [[0, 0, 0, 1], [0, 0, 0, -1], [1e-9, 0, 0, 1]]
    expected = [quat2axisangle(quaternion.copy()) for quaternion in quaternions]
    np.testing.assert_allclose(quaternion_to_axis_angle(quaternions), expected, rtol=1e-12, atol=1e-15)


def test_quaternions_have_four_numbers() -> None:
    with pytest.raises(ValueError, match=r"quaternions: got shape \(2, 3\), expected \(\.\.\., 4\): x, y, z, w"):
        quaternion_to_axis_angle(np.zeros((2, 3)))


def test_layouts_of_proprioception():
    state = RobotState(
        ee_position=np.array([1.0, 2.0, 3.0]),
        ee_quaternion=np.array([0.0, np.sin(0.2), 0.0, np.cos(0.2)]),
        joint_positions=np.arange(7) + 10.0,
        gripper_positions=np.array([0.04, -0.04]),
    )
    expected = {
        "ee_axis_angle_gripper": [1, 2, 3, 0, 0.4, 0, 0.04, -0.04],
        "joints_gripper": [10, 11, 12, 13, 14, 15, 16, 0.04, -0.04],
        "gripper_joints": [0.04, -0.04, 10, 11, 12, 13, 14, 15, 16],
    }
    for layout, values in expected.items():
        np.testing.assert_allclose(PANDA.agent_pos(state.parts(), layout), values, atol=1e-6)
        assert PANDA.agent_pos_dim(layout) == len(values)
    with pytest.raises(ValueError, match="proprioception: got 'ee_gripper', expected one of"):
        PANDA.agent_pos(state.parts(), "ee_gripper")
