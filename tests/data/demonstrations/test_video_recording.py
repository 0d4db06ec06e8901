import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from hilam_hf.data import VideoError, VideoRecordingWriter, load_demonstrations, scan_videos
from hilam_hf.data.demonstrations.video_recording import recording_features
from hilam_hf.libero_conventions import PANDA
from hilam_hf.metaworld_conventions import SAWYER
from hilam_hf.video.video_file import VideoReader, write_video
from tests.numbered_videos import frame_numbers, numbered_frames
from tests.robot_recordings import demonstration, pictures, read_pictures, small_demonstration


def record(root: Path, tasks: dict[str, int], **changes) -> None:
    with VideoRecordingWriter(root) as writer:
        for task, count in tasks.items():
            for number in range(count):
                writer.add(small_demonstration(f"{task}/episode_{number:05d}", 6 + number, seed=number, **changes))


def metadata(root: Path) -> list[dict]:
    return [json.loads(line) for line in (root / "videos" / "metadata.jsonl").read_text().splitlines()]


def test_round_trip(tmp_path: Path) -> None:
    values = small_demonstration("drawer-open/episode_00000", 7, seed=11, metadata={"noise": 0.1})
    with VideoRecordingWriter(tmp_path, provenance={"renderer": "egl"}) as writer:
        assert not writer.has(values.id)
        writer.add(values)
        assert writer.has(values.id)
    (read,) = load_demonstrations(tmp_path)
    assert (read.id, read.task, read.language) == (values.id, "drawer-open", "open the drawer")
    assert (read.fps, read.num_frames, read.source, read.phases) == (20.0, 7, "metaworld", None)
    assert read.robot == SAWYER and read.cameras == ("corner2",) and read.layout == "ee_gripper"
    assert read.metadata == {
        "seed": 11,
        "initial_state": None,
        "success": True,
        "metadata": {"renderer": "egl", "noise": 0.1},
    }
    np.testing.assert_array_equal(read.actions, values.actions.astype(np.float32))
    parts = {part: array.astype(np.float32) for part, array in values.proprioception.items()}
    for part, array in parts.items():
        np.testing.assert_array_equal(read.proprioception[part], array)
    np.testing.assert_array_equal(read.agent_pos, np.hstack([parts["ee_positions"], parts["gripper_openings"]]))
    assert frame_numbers(read.frames("corner2", [6, 0, 3, 3])) == [6, 0, 3, 3]
    reader = VideoReader(tmp_path / "videos/drawer-open/episode_00000.mp4")
    assert frame_numbers(reader.read()) == list(range(7)) and reader.info.fps == 20.0


def test_any_robot_and_any_number_of_cameras(tmp_path: Path) -> None:
    demo = demonstration(6, 3)
    with VideoRecordingWriter(tmp_path) as writer:
        writer.add(demo)
    (read,) = load_demonstrations(tmp_path, proprioception="gripper_joints")
    assert read.cameras == ("agentview", "robot0_eye_in_hand") and read.robot == PANDA
    parts = [demo.proprioception[part] for part in ("gripper_positions", "joint_positions")]
    np.testing.assert_array_equal(read.agent_pos, np.hstack(parts).astype(np.float32))
    assert (read.source, read.phases, read.metadata["initial_state"]) == ("scripted", demo.phases, 7)
    # A folder of plain videos a camera, under the same ids.
    for folder, camera, start in (("videos", "agentview", 0), ("videos_robot0_eye_in_hand", "robot0_eye_in_hand", 20)):
        (video,) = scan_videos(tmp_path / folder, progress=False).episodes
        assert (video.id, video.source, video.metadata["camera"]) == (demo.id, "libero-scripted", camera)
        frames = VideoReader(video.path).read().permute(0, 2, 3, 1).numpy()
        # Turned by 180 degrees, as policies usually take LIBERO's pictures.
        assert read_pictures(frames) == (list(range(start, start + 6)), [3, 2, 1, 0])


def test_the_first_camera_stays_the_same(tmp_path: Path) -> None:
    with VideoRecordingWriter(tmp_path) as writer:
        writer.add(demonstration(seed=1))
        with pytest.raises(ValueError, match=r"its first camera is robot0_eye_in_hand, but .*videos shows agentview"):
            writer.add(demonstration(frames={"robot0_eye_in_hand": pictures(5)}))


def write_as_before(root: Path, name: str, num_frames: int, phases: list[str] | bool | None = None) -> dict:
    """A demonstration in the columns from before robots were described; without the column of phases with False."""
    rng = np.random.default_rng(num_frames)
    row = {
        "id": f"drawer-open/{name}",
        "task": "drawer-open",
        "language": "open the drawer",
        "seed": num_frames,
        "fps": 80.0,
        "num_frames": num_frames,
        "video": f"videos/drawer-open/{name}.mp4",
        "actions": rng.uniform(-1, 1, (num_frames, 4)).astype(np.float32).tolist(),
        "agent_pos": rng.normal(size=(num_frames, 4)).astype(np.float32).tolist(),
        "ee_position": rng.normal(size=(num_frames, 3)).astype(np.float32).tolist(),
        "success": True,
        "phases": phases,
    }
    widths = {"actions": 4, "agent_pos": 4, "ee_position": 3}
    types = {name: pa.list_(pa.list_(pa.float32(), width)) for name, width in widths.items()}
    types |= {"seed": pa.int64(), "num_frames": pa.int32(), "phases": pa.list_(pa.string())}
    if phases is False:
        del row["phases"], types["phases"]
    table = pa.table({key: pa.array([value], types.get(key)) for key, value in row.items()})
    file = root / "demonstrations" / "drawer-open" / f"{name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    write_video(root / row["video"], numbered_frames(num_frames), 80.0)
    return row


def test_recordings_from_before_robots_were_described(tmp_path: Path) -> None:
    rows = [
        write_as_before(tmp_path, "episode_00000", 6, ["approach"] * 6),
        write_as_before(tmp_path, "episode_00001", 7),
        write_as_before(tmp_path, "episode_00002", 5, False),
    ]
    demonstrations = load_demonstrations(tmp_path)
    assert [each.phases for each in demonstrations] == [["approach"] * 6, None, None]
    assert demonstrations.cameras == ("pixels",)
    for row, read in zip(rows, demonstrations, strict=True):
        assert (read.id, read.fps, read.layout, read.source) == (row["id"], 80.0, "ee_gripper", "metaworld")
        assert (read.metadata["seed"], read.metadata["success"]) == (row["seed"], True)
        np.testing.assert_array_equal(read.actions, np.float32(row["actions"]))
        np.testing.assert_array_equal(read.agent_pos, np.float32(row["agent_pos"]))
        np.testing.assert_array_equal(read.proprioception["ee_positions"], np.float32(row["ee_position"]))
        assert frame_numbers(read.frames("pixels")) == list(range(row["num_frames"]))
    # `hilam record` told the camera's name for the whole recording, and goes on where it stopped.
    (tmp_path / "recording.json").write_text(json.dumps({"settings": {"camera": "corner2"}}))
    with VideoRecordingWriter(tmp_path) as writer:
        writer.add(small_demonstration("drawer-open/episode_00003"))
    assert [each.cameras for each in load_demonstrations(tmp_path)] == [("corner2",)] * 4


def test_recordings_load_without_the_library(tmp_path: Path) -> None:
    with VideoRecordingWriter(tmp_path / "root") as writer:
        writer.add(small_demonstration("a/one", 6, phases=("approach",) * 6))
        writer.add(small_demonstration("a/two", 7))
    dataset = load_dataset(str(tmp_path / "root" / "demonstrations"), split="train", cache_dir=str(tmp_path / "cache"))
    assert dataset.features == recording_features(SAWYER, tuple(SAWYER.proprioception))
    assert dataset["phases"][:] == [["approach"] * 6, None]


def test_pretraining_sees_videos_and_no_actions(tmp_path: Path) -> None:
    record(tmp_path, {"drawer-open": 2, "door-open": 1})
    episodes = scan_videos(tmp_path / "videos", progress=False).episodes
    assert [e.id for e in episodes] == [
        "door-open/episode_00000",
        "drawer-open/episode_00000",
        "drawer-open/episode_00001",
    ]
    assert episodes[0].language == "open the drawer" and episodes[0].source == "metaworld"
    assert episodes[0].metadata == {"task": "door-open", "camera": "corner2", "image_transform": "none"}
    suffixes = {path.suffix for path in (tmp_path / "videos").rglob("*") if path.is_file()}
    assert suffixes == {".mp4", ".jsonl"}


def test_choosing_tasks_and_numbers(tmp_path: Path) -> None:
    record(tmp_path, {"drawer-open": 3, "door-open": 2})
    assert [each.task for each in load_demonstrations(tmp_path)] == ["door-open"] * 2 + ["drawer-open"] * 3
    few = load_demonstrations(tmp_path, tasks=["drawer-open", "door-open"], per_task=1)
    assert [each.id for each in few] == ["drawer-open/episode_00000", "door-open/episode_00000"]
    assert len(load_demonstrations(tmp_path, tasks="door-open")) == 2
    with pytest.raises(ValueError, match="no demonstrations of peg-insert; there are those of door-open, drawer-open"):
        load_demonstrations(tmp_path, tasks=["peg-insert"])
    with pytest.raises(ValueError, match="per_task: got 0"):
        load_demonstrations(tmp_path, per_task=0)
    with pytest.raises(FileNotFoundError, match="record some first"):
        load_demonstrations(tmp_path / "nowhere")


def test_recording_continues_after_an_interruption(tmp_path: Path) -> None:
    record(tmp_path, {"drawer-open": 1})
    # What a crash leaves: a video and half a line, but no row of actions.
    stale = tmp_path / "videos" / "drawer-open" / "episode_00001.mp4"
    stale.write_bytes(b"half a video")
    with open(tmp_path / "videos" / "metadata.jsonl", "a") as file:
        file.write('{"file_name": "drawer-op')
    writer = VideoRecordingWriter(tmp_path)
    assert writer.has("drawer-open/episode_00000") and not writer.has("drawer-open/episode_00001")
    assert len(metadata(tmp_path)) == 1
    writer.add(small_demonstration("drawer-open/episode_00001", 8))
    assert [row["file_name"] for row in metadata(tmp_path)] == [
        "drawer-open/episode_00000.mp4",
        "drawer-open/episode_00001.mp4",
    ]
    assert len(VideoReader(stale)) == 8
    assert len(load_demonstrations(tmp_path)) == 2


def test_line_of_an_unfinished_episode_is_replaced(tmp_path: Path) -> None:
    record(tmp_path, {"drawer-open": 2})
    (tmp_path / "demonstrations" / "drawer-open" / "episode_00000.parquet").unlink()
    with VideoRecordingWriter(tmp_path) as writer:
        writer.add(small_demonstration("drawer-open/episode_00000", language="pull the drawer"))
    assert [row["language"] for row in metadata(tmp_path)] == ["pull the drawer", "open the drawer"]


def test_full_disk_keeps_finished_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path, {"drawer-open": 1})
    lines = (tmp_path / "videos" / "metadata.jsonl").read_text()
    fsync, calls = os.fsync, []

    def full_at(limit: int):
        def sync(descriptor: int) -> None:
            calls.append(descriptor)
            if len(calls) >= limit:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        return sync

    for limit in (1, 2, 3):
        calls.clear()
        monkeypatch.setattr(os, "fsync", full_at(limit))
        full = pytest.raises(OSError, match="disk is full")
        with VideoRecordingWriter(tmp_path) as writer, full as caught:
            writer.add(small_demonstration("drawer-open/episode_00001"))
        assert str(tmp_path) in str(caught.value)
        monkeypatch.undo()
        assert not VideoRecordingWriter(tmp_path).has("drawer-open/episode_00001")
        assert len(load_demonstrations(tmp_path)) == 1
        if limit <= 2:
            assert (tmp_path / "videos" / "metadata.jsonl").read_text() == lines
    VideoRecordingWriter(tmp_path).add(small_demonstration("drawer-open/episode_00001"))
    assert len(load_demonstrations(tmp_path)) == 2 and len(metadata(tmp_path)) == 2


def test_odd_pictures_write_nothing(tmp_path: Path) -> None:
    frames = {"corner2": np.zeros((6, 48, 47, 3), np.uint8)}
    with VideoRecordingWriter(tmp_path) as writer, pytest.raises(ValueError, match="even height and width"):
        writer.add(small_demonstration("drawer-open/episode_00000", frames=frames))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["episode", "../x/y", "a/b.mp4", "/a/b", "a//b", ""])
def test_bad_ids(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="expected <task>/<name>"):
        VideoRecordingWriter(tmp_path).has(name)


def test_repeated_id_and_mixed_robots(tmp_path: Path) -> None:
    record(tmp_path, {"drawer-open": 1})
    with VideoRecordingWriter(tmp_path) as writer:
        with pytest.raises(ValueError, match="already recorded"):
            writer.add(small_demonstration("drawer-open/episode_00000"))
        other = replace(SAWYER, action_dim=7, action_names=())
        writer.add(small_demonstration("lift/episode_00000", robot=other, actions=np.zeros((6, 7))))
    with pytest.raises(ValueError, match="actions of lift/episode_00000 are 7 wide and those of drawer-open"):
        load_demonstrations(tmp_path)
    assert len(load_demonstrations(tmp_path, tasks="lift")) == 1


def test_a_layout_that_is_known_must_be_whole(tmp_path: Path) -> None:
    for folder in ("videos", "demonstrations"):
        (tmp_path / "empty" / folder).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"empty/demonstrations: there are no demonstrations here"):
        load_demonstrations(tmp_path / "empty")
    record(tmp_path, {"a": 1})
    video = tmp_path / "videos/a/episode_00000.mp4"
    write_video(video, numbered_frames(8), 20.0)
    with pytest.raises(VideoError, match=r"episode_00000\.mp4: it has 8 frames at 20\.0 a second, expected 6 at 20\.0"):
        load_demonstrations(tmp_path)[0].frames("corner2", [0])
    video.unlink()
    with pytest.raises(FileNotFoundError, match=r"videos/a/episode_00000\.mp4: there is no such file"):
        load_demonstrations(tmp_path)


def test_tables_that_are_no_demonstrations(tmp_path: Path) -> None:
    record(tmp_path, {"a": 1})
    file = tmp_path / "demonstrations/a/episode_00000.parquet"
    row = pq.read_table(file)
    pq.write_table(pa.concat_tables([row, row]), file)
    with pytest.raises(ValueError, match=r"episode_00000\.parquet: got 2 rows, expected one"):
        load_demonstrations(tmp_path)
    pq.write_table(row.drop_columns(["fps", "actions"]), file)
    with pytest.raises(ValueError, match=r"episode_00000\.parquet: lacks the columns fps, actions"):
        load_demonstrations(tmp_path)


def test_damaged_row_file_is_named(tmp_path: Path) -> None:
    record(tmp_path, {"a": 1})
    (tmp_path / "demonstrations/a/episode_00000.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(ValueError, match=r"episode_00000\.parquet: not a Parquet file"):
        load_demonstrations(tmp_path)


@pytest.mark.parametrize("named", ["../secret.mp4", "/etc/passwd"])
def test_a_recording_names_no_video_outside_of_its_folder(tmp_path: Path, named: str) -> None:
    root = tmp_path / "recording"
    with VideoRecordingWriter(root) as writer:
        writer.add(small_demonstration("door-open/a"))
    file = next((root / "demonstrations").rglob("*.parquet"))
    table = pq.read_table(file)
    column = table.column_names.index("videos")
    pq.write_table(table.set_column(column, "videos", pa.array([[named] * len(table["videos"][0])])), file)
    with pytest.raises(ValueError, match=rf"{file.name}: names '{named}', which lies outside of"):
        load_demonstrations(root)
