import errno
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset

from hilam_hf.data import DemonstrationWriter, load_demonstrations, scan_videos, vectors_array
from hilam_hf.data.demonstrations.video_recording import demonstration_features
from hilam_hf.video.video_file import VideoReader
from tests.numbered_videos import frame_numbers, numbered_frames


def episode(num_frames: int = 6, action_dim: int = 4, seed: int = 0, **changes) -> dict:
    rng = np.random.default_rng(seed)
    values = {
        "task": "drawer-open",
        "language": "open the drawer",
        "fps": 20.0,
        "frames": numbered_frames(num_frames),
        "actions": rng.normal(size=(num_frames, action_dim)),
        "agent_pos": rng.normal(size=(num_frames, 5)).astype(np.float32),
        "ee_position": rng.normal(size=(num_frames, 3)),
        "success": True,
        "seed": seed,
        "source": "metaworld",
    }
    return values | changes


def record(root: Path, tasks: dict[str, int], **changes) -> None:
    with DemonstrationWriter(root) as writer:
        for task, count in tasks.items():
            for number in range(count):
                writer.add(f"{task}/episode_{number:05d}", **episode(6 + number, seed=number, task=task, **changes))


def metadata(root: Path) -> list[dict]:
    return [json.loads(line) for line in (root / "videos" / "metadata.jsonl").read_text().splitlines()]


def test_round_trip(tmp_path: Path) -> None:
    values = episode(7, seed=11)
    with DemonstrationWriter(tmp_path) as writer:
        assert not writer.has("drawer-open/episode_00000")
        writer.add("drawer-open/episode_00000", **values)
        assert writer.has("drawer-open/episode_00000")
    dataset = load_demonstrations(tmp_path)
    (row,) = dataset
    assert (row["id"], row["task"], row["language"]) == ("drawer-open/episode_00000", "drawer-open", "open the drawer")
    assert (row["seed"], row["fps"], row["num_frames"], row["success"]) == (11, 20.0, 7, True)
    assert row["video"] == "videos/drawer-open/episode_00000.mp4"
    for column in ("actions", "agent_pos", "ee_position"):
        np.testing.assert_array_equal(vectors_array(dataset, column, 0), values[column].astype(np.float32))
    reader = VideoReader(tmp_path / row["video"])
    assert frame_numbers(reader.read()) == list(range(7)) and reader.info.fps == 20.0


def test_phases_of_new_recordings_and_none_of_old_ones(tmp_path: Path) -> None:
    phases = ["approach"] * 4 + ["grasp"] * 2
    with DemonstrationWriter(tmp_path) as writer:
        writer.add("a/new", **episode(6, task="a", phases=phases))
        writer.add("a/unknown", **episode(6, task="a"))
    for name in ("new", "unknown"):
        file = tmp_path / "demonstrations" / "a" / f"{name}.parquet"
        features = demonstration_features(4, 5)
        del features["phases"]
        old = pq.read_table(file).drop_columns("phases").cast(features.arrow_schema)
        old = old.set_column(0, "id", [pa.array([f"a/before_{name}"])])
        pq.write_table(old.cast(features.arrow_schema), file.with_name(f"before_{name}.parquet"))
    dataset = load_demonstrations(tmp_path)
    assert dataset.features == demonstration_features(4, 5)
    assert {row["id"]: row["phases"] for row in dataset} == {
        "a/before_new": None,
        "a/before_unknown": None,
        "a/new": phases,
        "a/unknown": None,
    }
    assert vectors_array(dataset, "actions", 0).shape == (6, 4)
    assert load_demonstrations(tmp_path, max_per_task=1)[0]["phases"] is None


def test_recordings_load_without_the_library(tmp_path: Path) -> None:
    with DemonstrationWriter(tmp_path / "root") as writer:
        writer.add("a/one", **episode(6, task="a", phases=("approach",) * 6))
        writer.add("a/two", **episode(7, task="a"))
    dataset = load_dataset(str(tmp_path / "root" / "demonstrations"), split="train", cache_dir=str(tmp_path / "cache"))
    assert dataset.features == demonstration_features(4, 5)
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
    assert episodes[0].metadata == {"task": "door-open"}
    suffixes = {path.suffix for path in (tmp_path / "videos").rglob("*") if path.is_file()}
    assert suffixes == {".mp4", ".jsonl"}


def test_choosing_tasks_and_numbers(tmp_path: Path) -> None:
    record(tmp_path, {"drawer-open": 3, "door-open": 2})
    assert load_demonstrations(tmp_path)["task"][:] == ["door-open"] * 2 + ["drawer-open"] * 3
    few = load_demonstrations(tmp_path, ["drawer-open", "door-open"], max_per_task=1)
    assert few["id"][:] == ["drawer-open/episode_00000", "door-open/episode_00000"]
    assert load_demonstrations(tmp_path, "door-open").num_rows == 2
    with pytest.raises(ValueError, match="no demonstrations of peg-insert; there are those of door-open, drawer-open"):
        load_demonstrations(tmp_path, ["peg-insert"])
    with pytest.raises(ValueError, match="max_per_task: got 0"):
        load_demonstrations(tmp_path, max_per_task=0)
    with pytest.raises(FileNotFoundError, match="record some first"):
        load_demonstrations(tmp_path / "nowhere")


def test_recording_continues_after_an_interruption(tmp_path: Path) -> None:
    record(tmp_path, {"drawer-open": 1})
    # What a crash leaves: a video and half a line, but no row of actions.
    stale = tmp_path / "videos" / "drawer-open" / "episode_00001.mp4"
    stale.write_bytes(b"half a video")
    with open(tmp_path / "videos" / "metadata.jsonl", "a") as file:
        file.write('{"file_name": "drawer-op')
    writer = DemonstrationWriter(tmp_path)
    assert writer.has("drawer-open/episode_00000") and not writer.has("drawer-open/episode_00001")
    assert len(metadata(tmp_path)) == 1
    writer.add("drawer-open/episode_00001", **episode(8))
    assert [row["file_name"] for row in metadata(tmp_path)] == [
        "drawer-open/episode_00000.mp4",
        "drawer-open/episode_00001.mp4",
    ]
    assert len(VideoReader(stale)) == 8
    assert load_demonstrations(tmp_path).num_rows == 2


def test_line_of_an_unfinished_episode_is_replaced(tmp_path: Path) -> None:
    record(tmp_path, {"drawer-open": 2})
    (tmp_path / "demonstrations" / "drawer-open" / "episode_00000.parquet").unlink()
    with DemonstrationWriter(tmp_path) as writer:
        writer.add("drawer-open/episode_00000", **episode(language="pull the drawer"))
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
        writer = DemonstrationWriter(tmp_path)
        with pytest.raises(OSError, match="disk is full") as caught:
            writer.add("drawer-open/episode_00001", **episode())
        assert str(tmp_path) in str(caught.value)
        monkeypatch.undo()
        assert not DemonstrationWriter(tmp_path).has("drawer-open/episode_00001")
        assert load_demonstrations(tmp_path).num_rows == 1
        if limit <= 2:
            assert (tmp_path / "videos" / "metadata.jsonl").read_text() == lines
    DemonstrationWriter(tmp_path).add("drawer-open/episode_00001", **episode())
    assert load_demonstrations(tmp_path).num_rows == 2 and len(metadata(tmp_path)) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": np.zeros((5, 4))}, r"actions: got shape \(5, 4\), expected \(6, width\)"),
        ({"actions": np.zeros(6)}, "actions: got shape"),
        ({"agent_pos": np.full((6, 5), np.inf)}, "agent_pos: has NaN or infinite"),
        ({"ee_position": np.zeros((6, 4))}, r"ee_position: .*expected \(6, 3\)"),
        ({"phases": ["approach"] * 5}, r"phases: got 5 values such as .*expected 6 names"),
        ({"phases": [0] * 6}, r"phases: got 6 values such as \[0, 0, 0\]"),
        ({"phases": ["approach"] * 5 + [""]}, "phases: got 6 values"),
        ({"frames": numbered_frames(6, 47)}, "even height and width"),
    ],
)
def test_bad_episodes_write_nothing(tmp_path: Path, changes: dict, message: str) -> None:
    writer = DemonstrationWriter(tmp_path)
    with pytest.raises(ValueError, match=message):
        writer.add("drawer-open/episode_00000", **episode(6, **changes))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["episode", "../x/y", "a/b.mp4", "/a/b", "a//b", ""])
def test_bad_ids(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="expected <task>/<name>"):
        DemonstrationWriter(tmp_path).add(name, **episode())


def test_repeated_id_and_mixed_robots(tmp_path: Path) -> None:
    record(tmp_path, {"drawer-open": 1})
    with DemonstrationWriter(tmp_path) as writer:
        with pytest.raises(ValueError, match="already recorded"):
            writer.add("drawer-open/episode_00000", **episode())
        writer.add("lift/episode_00000", **episode(action_dim=7, task="lift"))
    with pytest.raises(ValueError, match="actions of lift/episode_00000 are 7 wide and those of drawer-open"):
        load_demonstrations(tmp_path)
    assert load_demonstrations(tmp_path, "lift").num_rows == 1


def test_numpy_frames(tmp_path: Path) -> None:
    with DemonstrationWriter(tmp_path) as writer:
        writer.add("a/b", **episode(frames=np.moveaxis(np.zeros((6, 48, 64, 3), np.uint8), -1, 1)))
    assert torch.equal(VideoReader(tmp_path / "videos/a/b.mp4").read([0]), torch.zeros(1, 3, 48, 64, dtype=torch.uint8))


def test_damaged_row_file_is_named(tmp_path: Path) -> None:
    record(tmp_path, {"a": 1})
    (tmp_path / "demonstrations/a/episode_00000.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(ValueError, match=r"episode_00000\.parquet: not a Parquet file"):
        load_demonstrations(tmp_path)
