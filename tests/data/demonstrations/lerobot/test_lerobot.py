import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import EpsImagePlugin, Image

from hilam_hf.data import LeRobotWriter, RecordedDemonstration, read_lerobot
from hilam_hf.data.demonstrations.lerobot import writer as lerobot
from hilam_hf.data.demonstrations.lerobot.info import merge_statistics, picture_statistics, vector_statistics
from hilam_hf.data.demonstrations.lerobot.reader import ParquetFrames
from hilam_hf.video.video_file import VideoReader, write_video
from tests.numbered_videos import frame_numbers, write_video_at
from tests.robot_recordings import demonstration, pictures, read_pictures

TASK = "put_the_bowl_on_the_stove"
IMAGE, IMAGE2 = "observation.images.image", "observation.images.image2"


def record(root: Path, count: int, **changes: Any) -> Path:
    with LeRobotWriter(root, provenance={"suite": "libero_goal"}) as writer:
        for seed in range(count):
            writer.add(demonstration(5 + seed, seed, **changes))
    return root


def load_json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def episodes_table(root: Path) -> list[dict[str, Any]]:
    return pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()


def test_files_are_those_of_version_3(tmp_path: Path) -> None:
    root = record(tmp_path, 2)
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()) == [
        "data/chunk-000/file-000.parquet",
        "data/chunk-000/file-001.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        f"videos/{IMAGE}/chunk-000/file-000.mp4",
        f"videos/{IMAGE}/chunk-000/file-001.mp4",
        f"videos/{IMAGE2}/chunk-000/file-000.mp4",
        f"videos/{IMAGE2}/chunk-000/file-001.mp4",
    ]
    info = load_json(root / "meta/info.json")
    assert info["codebase_version"] == "v3.0" and info["robot_type"] == "panda" and info["fps"] == 20
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (2, 11, 1)
    assert (info["chunks_size"], info["splits"]) == (1000, {"train": "0:2"})
    assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    assert info["video_path"] == "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    assert {name: (feature["dtype"], feature["shape"]) for name, feature in info["features"].items()} == {
        IMAGE: ("video", [32, 48, 3]),
        IMAGE2: ("video", [32, 48, 3]),
        "observation.state": ("float32", [8]),
        "observation.states.joint_state": ("float32", [7]),
        "action": ("float32", [7]),
        "phase": ("string", [1]),
        "timestamp": ("float32", [1]),
        "frame_index": ("int64", [1]),
        "episode_index": ("int64", [1]),
        "index": ("int64", [1]),
        "task_index": ("int64", [1]),
    }
    assert info["hilam"] == {
        "source": "scripted",
        "image_transform": "rotate_180",
        "observations": "before_action",
        "provenance": {"suite": "libero_goal"},
    }
    # LeRobot takes the instructions from the table's index.
    tasks = pd.read_parquet(root / "meta/tasks.parquet")
    assert tasks.loc["put the bowl on the stove"].task_index == 0 and list(tasks.columns) == ["task_index"]


def test_rows_of_frames(tmp_path: Path) -> None:
    root = record(tmp_path, 2)
    table = pq.read_table(root / "data/chunk-000/file-001.parquet")
    demo = demonstration(6, 1)
    rows = table.to_pylist()
    assert [row["frame_index"] for row in rows] == list(range(6)) and [row["index"] for row in rows] == list(
        range(5, 11)
    )
    assert {row["episode_index"] for row in rows} == {1} and {row["task_index"] for row in rows} == {0}
    assert [row["timestamp"] for row in rows] == np.float32([0, 0.05, 0.1, 0.15, 0.2, 0.25]).tolist()
    assert [row["phase"] for row in rows] == demo.phases
    np.testing.assert_array_equal([row["action"] for row in rows], demo.actions.astype(np.float32))
    state = np.array([row["observation.state"] for row in rows])
    np.testing.assert_array_equal(state[:, :3], demo.proprioception["ee_positions"].astype(np.float32))
    np.testing.assert_array_equal(state[:, 6:], demo.proprioception["gripper_positions"].astype(np.float32))
    angles = np.linalg.norm(state[:, 3:6], axis=1)
    np.testing.assert_allclose(np.cos(angles / 2), demo.proprioception["ee_quaternions"][:, 3], atol=1e-5)
    joints = [row["observation.states.joint_state"] for row in rows]
    np.testing.assert_array_equal(joints, demo.proprioception["joint_positions"].astype(np.float32))
    assert table.schema.field("action").type == pa.list_(pa.float32(), 7) and table.schema.metadata is None


def test_videos_lie_as_in_published_copies(tmp_path: Path) -> None:
    root = record(tmp_path, 1)
    for key, start in ((IMAGE, 0), (IMAGE2, 20)):
        reader = VideoReader(root / f"videos/{key}/chunk-000/file-000.mp4")
        assert reader.info.fps == 20 and reader.info.codec == "h264"
        frames = reader.read().permute(0, 2, 3, 1).numpy()
        # The renderer's top left is at the bottom right, and so on.
        assert read_pictures(frames) == (list(range(start, start + 5)), [3, 2, 1, 0])


def test_rows_of_episodes(tmp_path: Path) -> None:
    root = record(tmp_path, 2, initial_state=None)
    first, second = episodes_table(root)
    expected = {
        "episode_index": 1,
        "tasks": ["put the bowl on the stove"],
        "length": 6,
        "data/chunk_index": 0,
        "data/file_index": 1,
        "dataset_from_index": 5,
        "dataset_to_index": 11,
        f"videos/{IMAGE2}/chunk_index": 0,
        f"videos/{IMAGE2}/file_index": 1,
        f"videos/{IMAGE2}/from_timestamp": 0.0,
        f"videos/{IMAGE2}/to_timestamp": 0.3,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
        "hilam/id": f"{TASK}/seed_1",
        "hilam/task": TASK,
        "hilam/seed": 1,
        "hilam/initial_state": None,
        "hilam/success": True,
        "hilam/metadata": '{"renderer": "egl", "noise": 0.1}',
    }
    assert {name: second[name] for name in expected} == expected
    assert first["dataset_to_index"] == 5
    actions = demonstration(6, 1).actions.astype(np.float32)
    np.testing.assert_allclose(second["stats/action/max"], actions.max(0), rtol=1e-6)
    assert second["stats/action/count"] == [6] and np.shape(second[f"stats/{IMAGE}/mean"]) == (3, 1, 1)


def test_statistics_against_all_frames_at_once() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(length, 3)) * 5 + 2 for length in (4, 9, 1)]
    merged = merge_statistics([vector_statistics(part) for part in parts])
    whole = np.concatenate(parts)
    for name, value in (
        ("min", whole.min(0)),
        ("max", whole.max(0)),
        ("mean", whole.mean(0)),
        ("std", whole.std(0)),
        ("count", [14]),
    ):
        np.testing.assert_allclose(merged[name], value, err_msg=name)
    medians = [np.median(part, axis=0) for part in parts]
    np.testing.assert_allclose(merged["q50"], (4 * medians[0] + 9 * medians[1] + medians[2]) / 14)
    assert vector_statistics(np.arange(5))["mean"] == [2.0]
    frames = np.zeros((40, 2, 2, 3), np.uint8)
    frames[..., 1] = 255
    frames[..., 2] = np.arange(40)[:, None, None]
    found = picture_statistics(frames)
    assert found["mean"][:2] == [[[0.0]], [[1.0]]] and found["count"] == [32]
    assert (found["min"][2], found["max"][2]) == ([[0.0]], [[39 / 255]])


def test_statistics_of_the_dataset(tmp_path: Path) -> None:
    root = record(tmp_path, 3)
    stats = load_json(root / "meta/stats.json")
    assert set(stats) == set(load_json(root / "meta/info.json")["features"]) - {"phase"}
    actions = np.concatenate([demonstration(5 + seed, seed).actions for seed in range(3)]).astype(np.float32)
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["action"]["std"], actions.std(0), atol=1e-6)
    assert stats["action"]["count"] == [18] and stats["index"]["max"] == [17]
    (root / "meta/stats.json").unlink()
    LeRobotWriter(root)
    again = load_json(root / "meta/stats.json")
    for name in stats:
        for kind in stats[name]:
            np.testing.assert_allclose(again[name][kind], stats[name][kind], atol=1e-9, err_msg=f"{name} {kind}")


def test_round_trip(tmp_path: Path) -> None:
    root = record(tmp_path, 2)
    episode = read_lerobot(root)[1]
    demo = demonstration(6, 1)
    assert (episode.id, episode.task, episode.language) == (demo.id, TASK, demo.language)
    assert (episode.num_frames, episode.fps, episode.source) == (6, 20.0, "scripted")
    assert episode.phases == demo.phases and episode.stored_transform == "rotate_180"
    assert episode.metadata["metadata"] == demo.metadata and episode.metadata["seed"] == 1
    np.testing.assert_array_equal(episode.actions, demo.actions.astype(np.float32))
    np.testing.assert_array_equal(
        episode.proprioception["joint_positions"], demo.proprioception["joint_positions"].astype(np.float32)
    )
    np.testing.assert_array_equal(episode.agent_pos[:, 6:], demo.proprioception["gripper_positions"].astype(np.float32))
    raw = demo.frames["agentview"][[4, 1]][:, ::-1, ::-1]
    read = episode.frames("agentview", [4, 1]).permute(0, 2, 3, 1).numpy()
    assert np.abs(read.astype(int) - raw).mean() < 6
    assert read_pictures(read) == ([4, 1], [3, 2, 1, 0])


def test_unknown_phases_and_one_camera(tmp_path: Path) -> None:
    frames = {"agentview": pictures(5)}
    with LeRobotWriter(tmp_path) as writer:
        writer.add(demonstration(frames=frames, phases=None))
        writer.add(demonstration(frames=frames, seed=1, initial_state=None))
    first, second = read_lerobot(tmp_path)
    with LeRobotWriter(tmp_path / "other") as writer:
        writer.add(demonstration(frames=frames, seed=1, initial_state=None))
        writer.add(demonstration(frames=frames))
    assert [episode.metadata["initial_state"] for episode in read_lerobot(tmp_path / "other")] == [None, 7]
    assert first.phases is None and second.phases is not None and first.cameras == ("agentview",)
    assert [row["phase"] for row in pq.read_table(tmp_path / "data/chunk-000/file-000.parquet").to_pylist()] == [""] * 5
    assert [episode.metadata["initial_state"] for episode in (first, second)] == [7, None]


def test_instructions_are_numbered_as_they_come(tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path) as writer:
        for seed, language in enumerate(("open it", "close it", "open it", "push it")):
            writer.add(demonstration(2, seed, language=language))
    tasks = pd.read_parquet(tmp_path / "meta/tasks.parquet")
    assert tasks["task_index"].to_dict() == {"open it": 0, "close it": 1, "push it": 2}
    files = sorted((tmp_path / "data/chunk-000").iterdir())
    assert [pq.read_table(file).column("task_index")[0].as_py() for file in files] == [0, 1, 0, 2]
    assert [episode.language for episode in read_lerobot(tmp_path)] == ["open it", "close it", "open it", "push it"]


def test_folders_hold_a_thousand_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot, "CHUNK_SIZE", 2)
    record(tmp_path, 3)
    assert (tmp_path / "data/chunk-001/file-000.parquet").is_file()
    assert (tmp_path / f"videos/{IMAGE}/chunk-001/file-000.mp4").is_file()
    row = episodes_table(tmp_path)[2]
    assert (row["data/chunk_index"], row["data/file_index"], row[f"videos/{IMAGE}/chunk_index"]) == (1, 0, 1)
    assert read_lerobot(tmp_path)[2].frames("agentview").shape == (7, 3, 32, 48)


def test_what_cannot_join_a_dataset(tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path) as writer:
        writer.add(demonstration())
        with pytest.raises(ValueError, match="'put_the_bowl_on_the_stove/init_007_seed_0' was already recorded"):
            writer.add(demonstration())
        for changes, word in (
            ({"fps": 10.0}, "differs in fps"),
            ({"frames": {"agentview": pictures(5)}}, "differs in features"),
            ({"frames": {name: pictures(5, height=16) for name in ("agentview", "robot0_eye_in_hand")}}, "features"),
            ({"source": "human"}, "its demonstrations are scripted ones, but episode .* is a human one"),
        ):
            with pytest.raises(ValueError, match=word):
                writer.add(demonstration(seed=1, **changes))
        writer.add(demonstration(seed=1))
    assert len(read_lerobot(tmp_path)) == 2
    info = load_json(tmp_path / "meta/info.json")
    del info["hilam"]
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="holds a LeRobot dataset that was not recorded here"):
        LeRobotWriter(tmp_path)


class Killed(Exception):
    """Stands for the end of the process."""


def interrupt(patch: pytest.MonkeyPatch, at: int) -> list[Path]:
    """Ends the recording when the at-th file is about to be written; the files until then."""
    written: list[Path] = []

    def watch(name: str) -> None:
        original = getattr(lerobot, name)

        def step(path: Path, *args: Any, **options: Any) -> Any:
            if len(written) == at:
                raise Killed
            written.append(path)
            return original(path, *args, **options)

        patch.setattr(lerobot, name, step)

    for name in ("write_video", "atomic_path", "write_text"):
        watch(name)
    return written


def write_all(root: Path, demonstrations: list[RecordedDemonstration]) -> list[int]:
    """Adds what is missing; the numbers of rows that LeRobot would have loaded before."""
    with LeRobotWriter(root) as writer:
        rows = [len(pq.read_table(file)) for file in sorted((root / "data").rglob("*.parquet"))]
        for demo in demonstrations:
            if not writer.has(demo.id):
                writer.add(demo)
    return rows


def test_resuming_after_an_interruption_at_every_stage(tmp_path: Path) -> None:
    expected = [demonstration(3, seed, language="ab"[seed], frames={"agentview": pictures(3)}) for seed in range(2)]
    # The description, and for each episode: video, data, table of episodes, tasks, statistics, description.
    for at in range(13):
        root = tmp_path / str(at)
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, at)
            with pytest.raises(Killed):
                write_all(root, expected)
        assert write_all(root, expected) == [3] * ((at >= 4) + (at >= 10))
        info = load_json(root / "meta/info.json")
        assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (2, 6, 2)
        assert load_json(root / "meta/stats.json")["index"]["max"] == [5]
        assert list(pd.read_parquet(root / "meta/tasks.parquet").index) == ["a", "b"]
        episodes = read_lerobot(root)
        assert [episode.id for episode in episodes] == [demo.id for demo in expected]
        for episode in episodes:
            assert read_pictures(episode.frames("agentview").permute(0, 2, 3, 1).numpy())[0] == [0, 1, 2]
    with pytest.MonkeyPatch.context() as patch:
        written = interrupt(patch, 99)
        write_all(tmp_path / "whole", expected)
    assert len(written) == 13


def write_published(root: Path, lengths: tuple[int, ...] = (4, 6, 3), kind: str = "video", **info: Any) -> Path:
    """A dataset as others publish it: all episodes in one data file and, for videos, in one file a camera.

    Frame t of episode n shows number 10 n + t, and its actions are n / 10 + t / 100.
    """
    pixels = [pictures(length, start=10 * n)[:, ::-1, ::-1] for n, length in enumerate(lengths)]
    ends = np.cumsum(lengths)
    features = {
        IMAGE: {"dtype": kind, "shape": [32, 48, 3], "names": ["height", "width", "channels"]},
        "observation.images.wrist_image": {"dtype": kind, "shape": [32, 48, 3], "names": None},
        "observation.state": {"dtype": "float32", "shape": [8], "names": None},
        "action": {"dtype": "float32", "shape": [7], "names": None},
    }
    cameras = [IMAGE, "observation.images.wrist_image"]
    rows, episodes = [], []
    for n, length in enumerate(lengths):
        for t in range(length):
            row = {
                "action": [n / 10 + t / 100] * 7,
                "observation.state": [float(t + k) for k in range(8)],
                "episode_index": n,
            }
            if kind == "image":
                row |= {key: {"bytes": png(pixels[n][t]), "path": f"{t}.png"} for key in cameras}
            rows.append(row)
        places = {"data/chunk_index": 0, "data/file_index": 0}
        for key in cameras if kind == "video" else ():
            places |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": 0}
            places |= {f"videos/{key}/from_timestamp": float(ends[n] - length) / 10}
            places |= {f"videos/{key}/to_timestamp": float(ends[n]) / 10}
        episodes.append(
            {"episode_index": n, "tasks": [f"Do {n}!"], "length": length, "stats/action/min": [0.0], **places}
        )
    for name, table, options in (
        ("data/chunk-000/file-000.parquet", rows, {"row_group_size": 5}),
        ("meta/episodes/chunk-000/file-000.parquet", episodes, {}),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(table), root / name, **options)
    if kind == "video":
        for key in cameras:
            frames = torch.from_numpy(np.concatenate(pixels).transpose(0, 3, 1, 2).copy())
            write_video(root / f"videos/{key}/chunk-000/file-000.mp4", frames, 10)
    defaults = {
        "codebase_version": "v3.0",
        "fps": 10,
        "features": features,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    (root / "meta/info.json").write_text(json.dumps(defaults | info))
    return root


def png(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["video", "image"])
def test_published_datasets(tmp_path: Path, kind: str) -> None:
    episodes = read_lerobot(write_published(tmp_path, kind=kind))
    assert [(e.id, e.task, e.language) for e in episodes] == [
        (f"do_{n}/episode_{n:06d}", f"do_{n}", f"Do {n}!") for n in range(3)
    ]
    second = episodes[1]
    assert (second.source, second.fps, second.phases, second.stored_transform) == ("unknown", 10.0, None, "rotate_180")
    np.testing.assert_allclose(second.actions[:, 2], [0.1, 0.11, 0.12, 0.13, 0.14, 0.15], rtol=1e-6)
    assert second.agent_pos[3].tolist() == [3, 4, 5, 6, 7, 8, 9, 10]
    for camera in ("agentview", "robot0_eye_in_hand"):
        for episode, numbers in zip(episodes, ([0, 1, 2, 3], list(range(10, 16)), [20, 21, 22]), strict=True):
            frames = episode.frames(camera).permute(0, 2, 3, 1).numpy()
            assert read_pictures(frames) == (numbers, [3, 2, 1, 0])
        assert read_pictures(second.frames(camera, [5, 0, 3, 3]).permute(0, 2, 3, 1).numpy())[0] == [15, 10, 13, 13]
    assert "joint_positions" not in second.proprioception


def test_frames_are_found_by_their_times_behind_one_that_is_missing(tmp_path: Path) -> None:
    """The video lacks frame 5 of 13: that of the second episode, at 0.5 s; the third begins at 1.0 s."""
    write_published(tmp_path)
    for key in (IMAGE, "observation.images.wrist_image"):
        write_video_at(tmp_path / f"videos/{key}/chunk-000/file-000.mp4", [t for t in range(13) if t != 5])
    first, second, third = read_lerobot(tmp_path)
    assert frame_numbers(first.frames("agentview")) == [0, 1, 2, 3]
    assert frame_numbers(third.frames("robot0_eye_in_hand", [2, 0])) == [12, 10]
    with pytest.raises(ValueError, match=r"file-000\.mp4: it has 12 frames at .* \(none is at 0\.500 s\): copy"):
        second.frames("agentview", [0])


def test_a_byte_order_mark_and_another_encoding(tmp_path: Path) -> None:
    write_published(tmp_path)
    file = tmp_path / "meta/info.json"
    text = file.read_text()
    file.write_text(text, encoding="utf-8-sig")
    assert len(read_lerobot(tmp_path)) == 3
    file.write_bytes(b'{"robot_type": "\xe9"}')
    with pytest.raises(ValueError, match=r"info\.json, line 1: this is not UTF-8 \(byte 0xe9\): save"):
        read_lerobot(tmp_path)


def test_episodes_come_by_their_numbers(tmp_path: Path) -> None:
    write_published(tmp_path)
    change_table(tmp_path / "meta/episodes/chunk-000/file-000.parquet", lambda rows: rows.reverse())
    episodes = read_lerobot(tmp_path)
    assert [(episode.language, round(float(episode.actions[0, 0]), 6)) for episode in episodes] == [
        ("Do 0!", 0),
        ("Do 1!", 0.1),
        ("Do 2!", 0.2),
    ]


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"codebase_version": "v2.1"}, r"codebase_version: got v2.1, expected v3.0; .*convert_dataset_v21_to_v30"),
        ({"codebase_version": None}, r"codebase_version: got None"),
        ({"features": {}}, r"info.json: lacks features"),
        ({"features": ["action"]}, r"info.json: lacks a table of features"),
        ({"features": {"action": {"dtype": "float32", "shape": [7]}}}, r"has no cameras of libero"),
        ({"features": {IMAGE: {"dtype": "video"}}}, r"has no actions of libero: got features observation.images.image"),
        (
            {"features": {IMAGE: {"dtype": "video"}, "action": {"shape": [14]}}},
            r"action: got shape \(14,\), expected \(7,\)",
        ),
        ({"data_path": "../{chunk_index}{file_index}"}, r"path template '../.*': names '../.*', which lies outside of"),
        ({"data_path": "/etc/passwd"}, r"lies outside of"),
        ({"data_path": "data/{episode}.parquet"}, r"which cannot be filled in"),
        ({"data_path": "data/other.parquet"}, r"other.parquet: there is no such file"),
        ({"video_path": "videos/other.mp4"}, r"other.mp4: there is no such file"),
        ({"video_path": None}, r"episode 0: does not say where the video of observation.images.image is"),
        ({"fps": 20}, r"episode 0: observation.images.image: 0.0 to 0.4 s are not 4 frames at 20 a second"),
    ],
)
def test_descriptions_that_do_not_fit(tmp_path: Path, info: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_lerobot(write_published(tmp_path, **info))


def change_table(file: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    rows = pq.read_table(file).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows), file)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("data", lambda rows: rows.pop(), r"episode 2: got 2 rows, expected 3 together"),
        ("data", lambda rows: rows.insert(0, rows.pop()), r"episode 2: got 3 rows, expected 3 together"),
        (
            "data",
            lambda rows: rows[5].update(action=[0.0] * 6),
            r"episode 1: action: got rows of \[7, 6\] numbers, expected 7 in each",
        ),
        ("data", lambda rows: rows[5].update(action=None), r"episode 1: action: got rows of \[7, None\] numbers"),
        ("data", lambda rows: [row.update(action=1.0) for row in rows], r"episode 0: action: got rows of \[None\]"),
        ("data", lambda rows: rows[5].update(action=[float("nan")] * 7), r"episode 1: action: has NaN or infinite"),
        ("data", lambda rows: [row.pop("action") for row in rows], r"file-000.parquet: lacks the columns action"),
        (
            "meta/episodes",
            lambda rows: rows[1].update(tasks=["a", "b"]),
            r"episode 1: got tasks \['a', 'b'\], expected one",
        ),
        ("meta/episodes", lambda rows: [row.pop("length") for row in rows], r"episode 0: lacks length"),
        ("meta/episodes", lambda rows: rows.clear(), r"has no episodes"),
    ],
)
def test_damaged_tables(tmp_path: Path, name: str, change: Callable[[Any], None], message: str) -> None:
    write_published(tmp_path)
    change_table(tmp_path / name / "chunk-000/file-000.parquet", change)
    with pytest.raises(ValueError, match=message):
        read_lerobot(tmp_path)


def test_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is not a LeRobot dataset of version 3\.0"):
        read_lerobot(tmp_path)
    write_published(tmp_path)
    (tmp_path / "data/chunk-000/file-000.parquet").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"file-000\.parquet: not a Parquet file"):
        read_lerobot(tmp_path)
    (tmp_path / "meta/episodes/chunk-000/file-000.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="there are no episodes here"):
        read_lerobot(tmp_path)
    (tmp_path / "meta/info.json").write_text("{")
    with pytest.raises(ValueError, match=r"info\.json: this is not JSON"):
        read_lerobot(tmp_path)


def test_pictures_that_are_not_there(tmp_path: Path) -> None:
    write_published(tmp_path / "short")
    video = tmp_path / f"short/videos/{IMAGE}/chunk-000/file-000.mp4"
    write_video(video, torch.zeros(8, 3, 32, 48, dtype=torch.uint8), 10)
    episodes = read_lerobot(tmp_path / "short")
    assert episodes[0].frames("agentview").shape[0] == 4
    with pytest.raises(
        ValueError, match=r"file-000\.mp4: it has 8 frames at 10.0 a second, expected at least 10 at 10.0"
    ):
        episodes[1].frames("agentview")
    write_video(video, torch.zeros(13, 3, 32, 48, dtype=torch.uint8), 30)
    with pytest.raises(ValueError, match=r"it has 13 frames at 30\.0 a second"):
        episodes[0].frames("agentview")
    write_published(tmp_path / "inside", kind="image")
    data = tmp_path / "inside/data/chunk-000/file-000.parquet"
    change_table(data, lambda rows: rows[1].update({IMAGE: {"bytes": None, "path": "1.png"}}))
    change_table(data, lambda rows: rows[2].update({IMAGE: {"bytes": b"no picture", "path": "2.png"}}))
    episode = read_lerobot(tmp_path / "inside")[0]
    with pytest.raises(ValueError, match=r"observation\.images\.image, row 1: holds no picture"):
        episode.frames("agentview", [1])
    with pytest.raises(ValueError, match=r"observation\.images\.image, row 2: cannot be decoded"):
        episode.frames("agentview", [2])


def cut_png(width: int, height: int) -> bytes:
    """The beginning of a PNG that says it is this large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 100) + b"IDAT"


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (POSTSCRIPT, "cannot identify image file"),
        (cut_png(100_000, 100_000), "decompression bomb"),
        (cut_png(8, 8), "cannot be decoded"),
        (b"", "cannot identify image file"),
    ],
)
def test_a_hostile_picture_is_named_and_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: bytes, message: str
) -> None:
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/was_run\n")
    ghostscript.chmod(0o755)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", str(ghostscript))
    pq.write_table(pa.table({"image": [{"bytes": picture, "path": "a.png"}]}), tmp_path / "file.parquet")
    with pytest.raises(ValueError, match=rf"file\.parquet: image, row 0: (?=cannot be decoded).*{message}"):
        ParquetFrames(tmp_path / "file.parquet", "image", 0).read([0])
    assert not (tmp_path / "was_run").exists()
