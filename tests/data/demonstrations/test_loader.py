import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hilam_hf.data import (
    CorpusInfo,
    Demonstrations,
    LeRobotWriter,
    LiberoHdf5Writer,
    VideoRecordingWriter,
    demonstration_phases,
    latent_phases,
    load_corpus,
    load_demonstrations,
    scan_videos,
    write_latent_action_corpus,
    write_videos,
)
from hilam_hf.data.samples.frame_store import CameraSource, FrameStore
from hilam_hf.video.video_file import VideoReader
from tests.data.demonstrations.lerobot.test_lerobot import write_published
from tests.data.demonstrations.libero.test_hdf5 import write_official
from tests.robot_recordings import demonstration, pictures, read_pictures, small_demonstration

WRITERS = {"hdf5": LiberoHdf5Writer, "lerobot": LeRobotWriter, "videos": VideoRecordingWriter}
ALL = pytest.mark.parametrize("kind", WRITERS)


def record(root: Path, kind: str, **changes: Any) -> Path:
    """Two tasks of LIBERO, of three and two episodes, recorded in no order."""
    with WRITERS[kind](root) as writer:
        for task, seed in (("open", 11), ("close", 1), ("open", 2), ("close", 0), ("open", 1)):
            options = {"task": task, "language": f"{task} it", "initial_state": None} | changes
            writer.add(demonstration(4 + seed % 3, seed, **options))
    return root


def corners(frames: torch.Tensor) -> list[int]:
    return read_pictures(frames.permute(0, 2, 3, 1).numpy())[1]


@ALL
def test_same_sequence_from_every_format(tmp_path: Path, kind: str) -> None:
    demonstrations = load_demonstrations(record(tmp_path, kind))
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


@ALL
@pytest.mark.parametrize(
    ("transform", "expected"), [("none", [0, 1, 2, 3]), ("flip_vertical", [2, 3, 0, 1]), ("rotate_180", [3, 2, 1, 0])]
)
def test_orientation_is_what_was_asked_for(tmp_path: Path, kind: str, transform: Any, expected: list[int]) -> None:
    demonstrations = load_demonstrations(record(tmp_path, kind), image_transform=transform)
    assert corners(demonstrations[0].frames("agentview", [1])) == expected


def test_orientation_of_files_that_others_made(tmp_path: Path) -> None:
    official = write_official(tmp_path / "a_demo.hdf5", (0,), macros_image_convention="opencv")
    published = write_published(tmp_path / "published")
    for path, stored in ((official, "flip_vertical"), (published, "rotate_180")):
        (episode, *_) = load_demonstrations(path, image_transform=stored)
        as_stored = episode.reader.read("agentview", [0])
        np.testing.assert_array_equal(episode.frames("agentview", [0]).permute(0, 2, 3, 1).numpy(), as_stored)


@ALL
def test_layouts_of_proprioception(tmp_path: Path, kind: str) -> None:
    root = record(tmp_path, kind)
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


@ALL
def test_choosing(tmp_path: Path, kind: str) -> None:
    root = record(tmp_path, kind)

    def ids(**options: Any) -> list[str]:
        return [episode.id for episode in load_demonstrations(root, **options)]

    assert ids(tasks="open", max_per_task=2) == ["open/seed_1", "open/seed_2"]
    assert ids(tasks=["open it", "close"], max_per_task=1) == ["open/seed_1", "close/seed_0"]
    assert load_demonstrations(root)[1:3].tasks == ["close", "open"]
    with pytest.raises(ValueError, match="no demonstrations of push; there are those of close, open"):
        ids(tasks=["open", "push"])
    with pytest.raises(ValueError, match="max_per_task: got 0"):
        ids(max_per_task=0)
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
    one = load_demonstrations(tmp_path / "libero_goal" / "a_demo.hdf5", max_per_task=3)
    # Ten comes after two.
    assert [episode.id for episode in one] == ["a/demo_0", "a/demo_1", "a/demo_2"]
    write_official(tmp_path / "libero_10" / "a_demo.hdf5")
    with pytest.raises(ValueError, match="two episodes are called 'a/demo_0'"):
        load_demonstrations(tmp_path)


def test_recordings_in_both_formats_and_in_one(tmp_path: Path) -> None:
    record(tmp_path / "lerobot", "lerobot")
    assert len(load_demonstrations(tmp_path)) == 5
    record(tmp_path / "hdf5", "hdf5")
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


@ALL
def test_episodes_can_be_sent_to_workers(tmp_path: Path, kind: str) -> None:
    demonstrations = load_demonstrations(record(tmp_path, kind))
    copy: Demonstrations = pickle.loads(pickle.dumps(demonstrations))
    torch.testing.assert_close(copy[2].frames("agentview"), demonstrations[2].frames("agentview"))


@ALL
def test_frames_are_the_same_from_memory_and_file(tmp_path: Path, kind: str) -> None:
    demonstrations = load_demonstrations(record(tmp_path, kind))
    sources = [CameraSource(each, "agentview") for each in demonstrations]
    needed = 26 * 3 * 16 * 24
    memory = FrameStore(sources, (16, 24), cache_bytes=needed, progress=False)
    file = FrameStore(sources, (16, 24), cache_bytes=needed - 1, progress=False)
    assert memory.in_memory and not file.in_memory and memory.num_bytes == needed
    for episode, indices in ((0, [0]), (4, [3, 1, 1]), (2, [])):
        expected = demonstrations[episode].frames("agentview", indices)
        if indices:
            resized = F.interpolate(expected, size=(16, 24), mode="bilinear", antialias=True)
            torch.testing.assert_close(memory.read(episode, indices), resized)
        torch.testing.assert_close(memory.read(episode, indices), file.read(episode, indices))
    for store in (memory, file):
        with pytest.raises(IndexError, match=r"'close/seed_0': frame index 4 is outside 0\.\.3"):
            store.read(0, [4])
        # A copy: what is done to it does not reach the store.
        store.read(1, [0]).zero_()
        assert store.read(1, [0]).any()


@ALL
def test_videos_without_actions(tmp_path: Path, kind: str) -> None:
    demonstrations = load_demonstrations(record(tmp_path / "robot", kind))
    write_videos(demonstrations, tmp_path / "videos", progress=False)
    episodes = scan_videos(tmp_path / "videos", progress=False).episodes
    assert [episode.id for episode in episodes] == sorted(episode.id for episode in demonstrations)
    first = episodes[0]
    assert (first.language, first.source, first.fps, first.num_frames) == ("close it", "libero-scripted", 20.0, 4)
    assert first.metadata == {"task": "close", "camera": "agentview", "image_transform": "rotate_180"}
    assert corners(VideoReader(first.path).read()) == [3, 2, 1, 0]
    assert {path.suffix for path in (tmp_path / "videos").rglob("*") if path.is_file()} == {".mp4", ".jsonl"}
    write_videos(demonstrations[:1], tmp_path / "wrist", camera="robot0_eye_in_hand", progress=False)
    numbers, _ = read_pictures(VideoReader(tmp_path / "wrist/close/seed_0.mp4").read().permute(0, 2, 3, 1).numpy())
    assert numbers == [20, 21, 22, 23]


def test_ids_that_are_no_paths(tmp_path: Path) -> None:
    (episode,) = load_demonstrations(write_official(tmp_path / "a b_demo.hdf5", (0,)))
    with pytest.raises(ValueError, match="id: got 'a b/demo_0', expected <task>/<name>"):
        write_videos([episode], tmp_path / "videos", progress=False)


def test_phases_meet_a_corpus_of_the_videos(tmp_path: Path) -> None:
    record(tmp_path / "robot", "hdf5", phases=None)
    with pytest.raises(ValueError, match="5 demonstrations tell no phases, such as close/seed_0"):
        demonstration_phases(load_demonstrations(tmp_path / "robot"))
    with LiberoHdf5Writer(tmp_path / "labelled") as writer:
        writer.add(demonstration(6, task="open", phases=list("abaacc")))
    demonstrations = load_demonstrations(tmp_path / "labelled")
    assert demonstration_phases(demonstrations, min_length=2) == {"open/init_007_seed_0": list("aaaacc")}
    write_videos(demonstrations, tmp_path / "videos", progress=False)
    (video,) = scan_videos(tmp_path / "videos", progress=False).episodes
    row = {"id": video.id, "fps": video.fps, "num_frames": video.num_frames, "latent_actions": np.zeros((4, 2))}
    write_latent_action_corpus(tmp_path / "corpus", [row], info=CorpusInfo(model="m", latent_dim=2, stride=2))
    (found,) = load_corpus(tmp_path / "corpus", cache_dir=tmp_path / "cache")
    assert latent_phases(found, demonstration_phases(demonstrations)) == list("abaa")


def test_metadata_lines_are_json(tmp_path: Path) -> None:
    with LiberoHdf5Writer(tmp_path) as writer:
        writer.add(demonstration(language='öffne "es"'))
    write_videos(load_demonstrations(tmp_path), tmp_path / "videos", progress=False)
    (line,) = (tmp_path / "videos/metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["language"] == 'öffne "es"'
