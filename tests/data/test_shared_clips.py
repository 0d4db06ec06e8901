"""A few real clips: DROID at 30 fps, Bridge at 15, of different sizes, with instructions."""

import shutil
from pathlib import Path

import pytest

from hilam_hf.data import FramePairDataset, scan_videos
from hilam_hf.video.video_file import VideoReader
from tests.helpers import require_shared

NAMES = ("bridge/bridge_0001.mp4", "bridge/bridge_0002.mp4", "droid/droid_0001.mp4")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    source = require_shared() / "clips"
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(source / name, tmp_path / name)
    lines = (source / "metadata.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metadata.jsonl").write_text("".join(line for line in lines if any(name in line for name in NAMES)))
    return tmp_path


def test_real_clips_become_episodes(clips: Path) -> None:
    found = scan_videos(clips, progress=False, check="all")
    assert found.rejected == []
    facts = {e.id: (e.source, e.fps, e.height, e.width) for e in found.episodes}
    assert facts == {
        "bridge/bridge_0001": ("bridge", 15.0, 240, 320),
        "bridge/bridge_0002": ("bridge", 15.0, 240, 320),
        "droid/droid_0001": ("droid", 30.0, 180, 320),
    }
    assert found.episodes[2].language == "Wipe the plate on the table"
    assert found.episodes[2].metadata["verb"] == "Other"


def test_random_access_equals_sequential_access(clips: Path) -> None:
    reader = VideoReader(clips / NAMES[2], size=64)
    whole = reader.read()
    wanted = [len(reader) - 1, 3, 40, 41, 0]
    assert (reader.read(wanted) == whole[wanted]).all()
    assert (VideoReader(clips / NAMES[2], size=64).read([40]) == whole[[40]]).all()


def test_pairs_of_mixed_rates(clips: Path) -> None:
    dataset = FramePairDataset(scan_videos(clips, progress=False).episodes, 64, stride_seconds=0.5, progress=False)
    assert dataset.stride_ranges == [(8, 8), (8, 8), (15, 15)]
    assert len(dataset) == sum(e.num_frames - k for e, k in zip(dataset.episodes, (8, 8, 15), strict=True))
