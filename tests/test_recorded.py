import numpy as np
import pytest

from hilam_hf.data import episode_id
from tests.robot_recordings import demonstration, pictures, read_pictures


def test_ids() -> None:
    assert episode_id("open", seed=3) == "open/seed_3"
    assert episode_id("open", seed=3, initial_state=12) == "open/init_012_seed_3"
    assert demonstration(seed=4).id == "put_the_bowl_on_the_stove/init_007_seed_4"
    assert demonstration(seed=4, initial_state=None).id == "put_the_bowl_on_the_stove/seed_4"


def bad(name: str, value: object) -> dict[str, object]:
    return {name: value}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (bad("task", "a/b"), r"task of episode 'a/b/init_007_seed_0': got 'a/b', expected letters"),
        (bad("fps", 0.0), r"_seed_0': fps: got 0.0, expected a number above 0"),
        (bad("actions", np.zeros((5, 6))), r"_seed_0': actions: got shape \(5, 6\), expected \(5, 7\)"),
        (bad("actions", np.zeros((0, 7))), r"_seed_0': actions: got shape \(0, 7\), expected \(T, 7\)"),
        (bad("actions", np.full((5, 7), np.nan)), r"_seed_0': actions: has NaN or infinite values"),
        (bad("actions", np.full((5, 7), "x")), r"_seed_0': actions: got <U1, expected numbers"),
        (bad("joint_positions", np.zeros((4, 7))), r"joint_positions: got shape \(4, 7\), expected \(5, 7\)"),
        (bad("gripper_positions", np.zeros((5, 1))), r"gripper_positions: got shape \(5, 1\), expected \(5, 2\)"),
        (bad("ee_positions", np.zeros(5)), r"ee_positions: got shape \(5,\), expected \(5, 3\)"),
        (bad("ee_quaternions", np.full((5, 4), np.inf)), r"ee_quaternions: has NaN or infinite"),
        (bad("id", "put_the_bowl_on_the_stove"), r"id: got 'put_the_bowl_on_the_stove', expected <task>/<name>"),
        (bad("id", "other/seed_0"), r"task of episode 'other/seed_0': got 'put_the_bowl_on_the_stove'"),
        (bad("proprioception", {"torque": np.zeros((5, 1))}), r"proprioception: got 'torque', expected some of ee_pos"),
        (bad("image_transform", "upright"), r"image_transform: got 'upright', expected one of none"),
        (bad("phases", ["a"] * 4), r"phases: got 4 values such as \['a', 'a', 'a'\], expected 5 names"),
        (bad("phases", ["a", "", "a", "a", "a"]), r"phases: got 5 values"),
        (bad("frames", {}), r"frames: got cameras none, expected some of agentview"),
        (bad("frames", {"front": pictures(5)}), r"frames: got cameras front, expected some of"),
        (
            bad("frames", {"agentview": pictures(4)}),
            r"frames of agentview: got uint8 \(4, 32, 48, 3\), expected uint8 \(5,",
        ),
        (bad("frames", {"agentview": pictures(5).astype(float)}), r"frames of agentview: got float64"),
    ],
)
def test_bad_demonstrations(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        demonstration(5, **changes)


def test_the_helper_tells_pictures_apart() -> None:
    assert read_pictures(pictures(3, start=5)) == ([5, 6, 7], [0, 1, 2, 3])
    assert read_pictures(pictures(2)[:, ::-1, ::-1]) == ([0, 1], [3, 2, 1, 0])
