"""Actions of another convention than the robot's do not load without a word."""

import logging
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from hilam_hf.data import Demonstration, VideoRecordingWriter, load_demonstrations
from hilam_hf.data.demonstrations.actions import convert_actions
from hilam_hf.libero_conventions import PANDA
from tests.data.demonstrations.libero.test_hdf5 import write_official
from tests.robot_recordings import small_demonstration


def recording(folder: Path, *, scale: float = 1.0, gripper: tuple[float, float] = (-1.0, 1.0)) -> Path:
    """Two official demonstrations whose gripper is first at one value and then at the other."""
    file = write_official(folder / "open_it_demo.hdf5", (0, 1))
    with h5py.File(file, "r+") as hdf5:
        for demo in hdf5["data"].values():
            actions = demo["actions"]
            pose = np.linspace(-0.9, 0.6, len(actions))[:, None].repeat(6, 1) * scale
            ends = np.where(np.arange(len(actions)) < 2, *gripper)
            actions[...] = np.concatenate([pose, ends[:, None]], axis=1)
    return file


def test_the_robots_own_convention_loads_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (first, _) = load_demonstrations(recording(tmp_path))
    assert first.actions[:, 6].tolist() == [-1, -1] + [1] * (len(first.actions) - 2)
    assert not caplog.records


def test_actions_of_other_units_are_refused_with_the_numbers(tmp_path: Path) -> None:
    file = recording(tmp_path, scale=30)
    with pytest.raises(
        ValueError,
        match=r"demo_0': its actions are not those of panda \(libero\), which go from -1 to 1: got x from -27 to 18, y "
        r"from -27 .*axis_angle3 from -27 to 18\. Bring them there with action_scale",
    ):
        load_demonstrations(file)
    (first, _) = load_demonstrations(file, action_scale=1 / 30)
    np.testing.assert_allclose(first.actions[0], [-0.9] * 6 + [-1], rtol=1e-6)
    np.testing.assert_allclose(first.actions[-1], [0.6] * 6 + [1], rtol=1e-6)


def test_a_little_more_than_the_range_is_an_operators(tmp_path: Path) -> None:
    assert len(load_demonstrations(recording(tmp_path, scale=1.05 / 0.9))) == 2


@pytest.mark.parametrize(("gripper", "ends"), [("one_opens", (1.0, 0.0)), ("one_closes", (0.0, 1.0))])
def test_a_gripper_of_0_to_1_warns_and_is_converted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, gripper: str, ends: tuple[float, float]
) -> None:
    """Both recordings open the hand for two frames and then close it."""
    file = recording(tmp_path, gripper=ends)
    load_demonstrations(file)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        "the gripper of 2 demonstrations goes from 0 to 1, and that of panda from -1 (open) to 1: say what 1 means with"
    )
    caplog.clear()
    (first, _) = load_demonstrations(file, gripper=gripper)  # type: ignore[arg-type]
    assert first.actions[:, 6].tolist() == [-1, -1] + [1] * (len(first.actions) - 2)
    np.testing.assert_allclose(first.actions[-1, :6], 0.6, rtol=1e-6)
    assert not caplog.records


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    (demonstration, _) = load_demonstrations(recording(tmp_path))
    with pytest.raises(ValueError, match=r"gripper=one_opens is for values from 0 to 1, got -1 to 1: leave the option"):
        convert_actions(demonstration, gripper="one_opens")
    with pytest.raises(ValueError, match="gripper: got 'open', expected one of one_opens, one_closes"):
        convert_actions(demonstration, gripper="open")  # type: ignore[arg-type]
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"action_scale: got .* expected a number above 0"):
            convert_actions(demonstration, scale=scale)
    nameless = replace(demonstration, robot=replace(PANDA, action_names=()))
    with pytest.raises(ValueError, match="robot panda does not say which number of an action its gripper is"):
        convert_actions(nameless, gripper="one_opens")


def test_robots_without_a_range_are_not_judged(tmp_path: Path) -> None:
    (demonstration, _) = load_demonstrations(recording(tmp_path))
    other: Demonstration = replace(
        demonstration, robot=replace(PANDA, action_range=None), actions=demonstration.actions * 100
    )
    np.testing.assert_array_equal(convert_actions(other).actions, other.actions)


def test_an_effort_of_0_to_1_is_meta_worlds_own(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Its expert of pick-place lets go at 0 and holds at 1."""
    with VideoRecordingWriter(tmp_path) as writer:
        actions = np.array([[0.5, 0.0, -0.5, 0.0]] * 3 + [[0.5, 0.0, -0.5, 1.0]] * 3)
        writer.add(small_demonstration("pick-place/e0", 6, actions=actions))
    (demonstration,) = load_demonstrations(tmp_path)
    np.testing.assert_array_equal(demonstration.actions, actions)
    assert not caplog.records
