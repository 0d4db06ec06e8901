"""Folders of videos of demonstrations."""

import json
from pathlib import Path

import numpy as np
import pytest

from hilam_hf.data import (
    CorpusInfo,
    LiberoHdf5Writer,
    demonstration_phases,
    latent_phases,
    load_corpus,
    load_demonstrations,
    scan_videos,
    write_latent_action_corpus,
    write_videos,
)
from hilam_hf.data.demonstrations.videos import demonstration_videos
from hilam_hf.video.video_file import VideoReader
from tests.data.demonstrations.libero.test_hdf5 import write_official
from tests.robot_recordings import EVERY_FORMAT, corners, demonstration, read_pictures, record_two_tasks


@EVERY_FORMAT
def test_videos_without_actions(tmp_path: Path, kind: str) -> None:
    demonstrations = load_demonstrations(record_two_tasks(tmp_path / "robot", kind))
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
    record_two_tasks(tmp_path / "robot", "hdf5", phases=None)
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


def test_a_recordings_own_videos_or_ones_that_are_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    own = record_two_tasks(tmp_path / "videos", "videos")
    assert demonstration_videos(own, load_demonstrations(own), out) == own / "videos" and not out.exists()
    for kind in ("hdf5", "lerobot"):
        root = record_two_tasks(tmp_path / kind, kind)
        assert demonstration_videos(root, load_demonstrations(root), out, overwrite=True, progress=False) == out
        first = out / "close" / "seed_0.mp4"
        written = first.stat().st_mtime_ns
        assert demonstration_videos(root, load_demonstrations(root), out) == out
        assert first.stat().st_mtime_ns == written
