import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hilam_hf.data import (
    Demonstrations,
    LiberoHdf5Writer,
    VideoRecordingWriter,
    load_demonstrations,
)
from tests.data.demonstrations.lerobot.test_lerobot import write_published
from tests.data.demonstrations.libero.test_hdf5 import write_official
from tests.robot_recordings import (
    EVERY_FORMAT,
    corners,
    demonstration,
    pictures,
    read_pictures,
    record_two_tasks,
    small_demonstration,
)


@EVERY_FORMAT
def test_same_sequence_from_every_format(tmp_path: Path, kind: str) -> None:
    demonstrations = load_demonstrations(record_two_tasks(tmp_path, kind))
    assert [episode.id for episode in demonstrations] == [
        "close/seed_0",
        "close/seed_1",
        "open/seed_1",
        "open/seed_2",
        "open/seed_11",
    ]
    assert demonstrations.tasks == ["close", "open"] and len(demonstrations) == 5
    assert repr(demonstrations) == "Demonstrations(5 episodes of 2 tasks, 26 frames)"
    episode = demonstrations[3]
    expected = demonstration(6, 2, task="open")
    assert (episode.task, episode.language, episode.num_frames, episode.fps) == ("open", "open it", 6, 20.0)
    assert (episode.source, episode.phases) == ("scripted", ["approach"] * 4 + ["grasp"] * 2)
    assert episode.actions.dtype == episode.agent_pos.dtype == np.float32 and episode.agent_pos.shape == (6, 8)
    np.testing.assert_array_equal(episode.actions, expected.actions.astype(np.float32))
    frames = episode.frames("robot0_eye_in_hand", [5, 2])
    assert frames.dtype == torch.uint8 and frames.shape == (2, 3, 32, 48)
    assert read_pictures(frames.permute(0, 2, 3, 1).numpy()) == ([25, 22], [3, 2, 1, 0])


@EVERY_FORMAT
@pytest.mark.parametrize(
    ("transform", "expected"), [("none", [0, 1, 2, 3]), ("flip_vertical", [2, 3, 0, 1]), ("rotate_180", [3, 2, 1, 0])]
)
def test_orientation_is_what_was_asked_for(tmp_path: Path, kind: str, transform: Any, expected: list[int]) -> None:
    demonstrations = load_demonstrations(record_two_tasks(tmp_path, kind), image_transform=transform)
    assert corners(demonstrations[0].frames("agentview", [1])) == expected


def test_orientation_of_files_that_others_made(tmp_path: Path) -> None:
    official = write_official(tmp_path / "a_demo.hdf5", (0,), macros_image_convention="opencv")
    published = write_published(tmp_path / "published")
    for path, stored in ((official, "flip_vertical"), (published, "rotate_180")):
        (episode, *_) = load_demonstrations(path, image_transform=stored)
        as_stored = episode.reader.read("agentview", [0])
        np.testing.assert_array_equal(episode.frames("agentview", [0]).permute(0, 2, 3, 1).numpy(), as_stored)


@EVERY_FORMAT
def test_layouts_of_proprioception(tmp_path: Path, kind: str) -> None:
    root = record_two_tasks(tmp_path, kind)
    demo = demonstration(4, 0, task="close")
    joints, gripper = (
        demo.proprioception["joint_positions"].astype(np.float32),
        demo.proprioception["gripper_positions"].astype(np.float32),
    )

    def agent_pos(layout: Any) -> np.ndarray:
        return load_demonstrations(root, proprioception=layout)[0].agent_pos

    np.testing.assert_array_equal(agent_pos("joints_gripper"), np.hstack([joints, gripper]))
    np.testing.assert_array_equal(agent_pos("gripper_joints"), np.hstack([gripper, joints]))
    poses = agent_pos("ee_axis_angle_gripper")
    np.testing.assert_array_equal(poses[:, :3], demo.proprioception["ee_positions"].astype(np.float32))
    np.testing.assert_array_equal(poses[:, 6:], gripper)
    with pytest.raises(ValueError, match="proprioception: got 'ee', expected one of ee_axis_angle_gripper, j"):
        agent_pos("ee")


def test_options_that_a_robot_does_not_have(tmp_path: Path) -> None:
    with VideoRecordingWriter(tmp_path) as writer:
        writer.add(small_demonstration("drawer-open/one"))
    (episode,) = load_demonstrations(tmp_path, image_transform="none", proprioception="ee_gripper")
    assert episode.agent_pos.shape == (6, 4)
    with pytest.raises(ValueError, match="image_transform: got 'rotate_180', expected one of none"):
        load_demonstrations(tmp_path, image_transform="rotate_180")
    with pytest.raises(ValueError, match="proprioception: got 'joints_gripper', expected one of ee_gripper"):
        load_demonstrations(tmp_path, proprioception="joints_gripper")


@EVERY_FORMAT
def test_choosing(tmp_path: Path, kind: str) -> None:
    root = record_two_tasks(tmp_path, kind)

    def ids(**options: Any) -> list[str]:
        return [episode.id for episode in load_demonstrations(root, **options)]

    assert ids(tasks="open", per_task=2) == ["open/seed_1", "open/seed_2"]
    assert ids(tasks=["open it", "close"], per_task=1) == ["open/seed_1", "close/seed_0"]
    assert load_demonstrations(root)[1:3].tasks == ["close", "open"]
    assert ids(per_task=2) == ["close/seed_0", "close/seed_1", "open/seed_1", "open/seed_2"]
    with pytest.raises(ValueError, match="task 'close' has 2 demonstrations, expected 3: record more, ask for fewer"):
        ids(per_task=3)
    # Only tasks that are asked for have to have so many.
    assert len(ids(tasks="open", per_task=3)) == 3
    with pytest.raises(ValueError, match="no demonstrations of push; there are those of close, open"):
        ids(tasks=["open", "push"])
    with pytest.raises(ValueError, match="per_task: got 0"):
        ids(per_task=0)
    with pytest.raises(ValueError, match="image_transform: got 'upright'"):
        ids(image_transform="upright")
    with pytest.raises(ValueError, match="has no camera front; it has agentview, robot0_eye_in_hand"):
        ids(cameras=["front"])
    with pytest.raises(ValueError, match="cameras: got none"):
        ids(cameras=[])


def test_one_instruction_of_several_tasks(tmp_path: Path) -> None:
    with LiberoHdf5Writer(tmp_path) as writer:
        for scene in (1, 2):
            writer.add(demonstration(task=f"SCENE{scene}_open", language="open it"))
    assert load_demonstrations(tmp_path, tasks="open it").tasks == ["SCENE1_open", "SCENE2_open"]


def test_where_recordings_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there are no demonstrations here; expected LIBERO"):
        load_demonstrations(tmp_path)
    with pytest.raises(FileNotFoundError, match="there are no demonstrations here; expected LIBERO"):
        load_demonstrations(tmp_path / "nowhere")
    write_official(tmp_path / "libero_goal" / "a_demo.hdf5")
    assert len(load_demonstrations(tmp_path)) == 4
    one = load_demonstrations(tmp_path / "libero_goal" / "a_demo.hdf5", per_task=3)
    # Ten comes after two.
    assert [episode.id for episode in one] == ["a/demo_0", "a/demo_1", "a/demo_2"]
    write_official(tmp_path / "libero_10" / "a_demo.hdf5")
    with pytest.raises(ValueError, match="two episodes are called 'a/demo_0'"):
        load_demonstrations(tmp_path)


def test_recordings_in_both_formats_and_in_one(tmp_path: Path) -> None:
    record_two_tasks(tmp_path / "lerobot", "lerobot")
    assert len(load_demonstrations(tmp_path)) == 5
    record_two_tasks(tmp_path / "hdf5", "hdf5")
    exact = load_demonstrations(tmp_path, image_transform="none")
    assert len(exact) == 5
    expected = demonstration(4, 0, task="close").frames["agentview"]
    np.testing.assert_array_equal(exact[0].frames("agentview").permute(0, 2, 3, 1).numpy(), expected)


def test_parts_that_a_recording_lacks(tmp_path: Path) -> None:
    write_published(tmp_path)
    assert len(load_demonstrations(tmp_path)) == 3
    with pytest.raises(ValueError, match=r"joints_gripper needs joint_positions, but .* has ee_positions"):
        load_demonstrations(tmp_path, proprioception="joints_gripper")
    with LiberoHdf5Writer(tmp_path / "one") as writer:
        writer.add(demonstration(frames={"agentview": pictures(5)}))
    with pytest.raises(ValueError, match="has no camera robot0_eye_in_hand; it has agentview"):
        load_demonstrations(tmp_path / "one")
    assert load_demonstrations(tmp_path / "one", cameras=["agentview"]).cameras == ("agentview",)


@EVERY_FORMAT
def test_episodes_can_be_sent_to_workers(tmp_path: Path, kind: str) -> None:
    demonstrations = load_demonstrations(record_two_tasks(tmp_path, kind))
    copy: Demonstrations = pickle.loads(pickle.dumps(demonstrations))
    torch.testing.assert_close(copy[2].frames("agentview"), demonstrations[2].frames("agentview"))
