import json
from dataclasses import replace

import numpy as np
import pytest

from hilam_hf.libero_conventions import PANDA
from hilam_hf.metaworld_conventions import SAWYER
from hilam_hf.robots import RobotDescription


@pytest.mark.parametrize("robot", [PANDA, SAWYER])
def test_descriptions_survive_json(robot: RobotDescription) -> None:
    assert RobotDescription.from_dict(json.loads(json.dumps(robot.to_dict()))) == robot


def test_what_is_known_of_both_robots() -> None:
    assert (PANDA.action_dim, PANDA.cameras) == (7, ("agentview", "robot0_eye_in_hand"))
    assert (PANDA.default_layout, PANDA.agent_pos_dim("ee_axis_angle_gripper")) == ("ee_axis_angle_gripper", 8)
    assert PANDA.image_transforms[0] == "rotate_180"
    assert (SAWYER.action_dim, SAWYER.cameras, SAWYER.image_transforms) == (4, (), ("none",))
    assert SAWYER.agent_pos_dim("ee_gripper") == 4


def test_agent_pos_is_the_layouts_parts_in_order() -> None:
    robot = replace(SAWYER, layouts={"turned": ("gripper_openings", "ee_positions")})
    parts = {"ee_positions": np.array([[1.0, 2.0, 3.0]]), "gripper_openings": np.array([[0.5]])}
    agent_pos = robot.agent_pos(parts, "turned")
    assert agent_pos.tolist() == [[0.5, 1, 2, 3]] and agent_pos.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_dim": 0}, "robot sawyer: got action_dim 0"),
        (
            {"action_names": ("x",)},
            "got action_dim 4 and 1 action_names, expected at least 1, and",
        ),
        ({"layouts": {}}, "robot sawyer: expected at least one of layouts"),
        (
            {"layouts": {"all": ("ee_positions", "torque")}},
            "layout all has torque; expected parts of",
        ),
        ({"image_transforms": ("upright",)}, "image_transform: got 'upright'"),
    ],
)
def test_descriptions_that_do_not_fit(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SAWYER, **changes)


def test_what_a_robot_does_not_have() -> None:
    with pytest.raises(ValueError, match="proprioception: got 'joints', expected one of ee_gripper"):
        SAWYER.layout_parts("joints")
    with pytest.raises(ValueError, match="image_transform: got 'rotate_180', expected one of none"):
        SAWYER.check_image_transform("rotate_180")
