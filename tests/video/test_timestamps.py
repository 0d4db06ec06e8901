"""Frames belong to times: those of the container's index, against those that the decoder gives with pictures."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from hilam_hf.video import VideoError, VideoReader, check_video
from hilam_hf.video.timestamps import frame_times, frames_at, uneven
from tests.numbered_videos import MakeVideo, frame_numbers, write_video_at

# Frames 4, and 9 to 10, are missing.
SHOWN = [0, 1, 2, 3, 5, 6, 7, 8, 11, 12, 13]
EXTENSIONS = [".mp4", ".mov", ".mkv", ".webm", ".avi"]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_times_of_a_file_that_lacks_frames(tmp_path: Path, extension: str) -> None:
    path = write_video_at(tmp_path / f"clip{extension}", SHOWN)
    times = frame_times(path, len(SHOWN))
    assert times is not None, "read without decoding"
    np.testing.assert_allclose(times, np.array(SHOWN) / 10, atol=1e-9)
    np.testing.assert_allclose(VideoReader(path).times, times)
    assert frame_numbers(VideoReader(path).read()) == SHOWN


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_times_at_a_constant_rate(make_video: MakeVideo, extension: str) -> None:
    path = make_video(f"clip{extension}", num_frames=12, fps=24)
    np.testing.assert_allclose(frame_times(path, 12), np.arange(12) / 24, atol=6e-4)
    assert check_video(path, constant_rate=True).num_frames == 12


def test_times_that_the_container_does_not_tell_are_decoded(tmp_path: Path) -> None:
    """Fragments keep their tables in another place."""
    whole, path = write_video_at(tmp_path / "whole.mp4", SHOWN), tmp_path / "fragments.mp4"
    flags = ["-c", "copy", "-movflags", "frag_keyframe+empty_moov"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(whole), *flags, str(path)], check=True)
    assert frame_times(path, len(SHOWN)) is None
    np.testing.assert_allclose(VideoReader(path).times, np.array(SHOWN) / 10, atol=1e-9)


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("missing", [1, 6, 12])
def test_one_missing_frame_is_a_variable_rate(tmp_path: Path, extension: str, missing: int) -> None:
    shown = [number for number in range(14) if number != missing]
    path = write_video_at(tmp_path / f"clip{extension}", shown)
    with pytest.raises(VideoError, match=r"its frames are 0\.1 to 0\.2 s apart .*`ffmpeg -i in\.mp4 -vf fps=10 out"):
        check_video(path, constant_rate=True)
    assert check_video(path).num_frames == 13


def test_rounded_times_are_a_constant_rate() -> None:
    for fps in (12, 29.97, 60, 240):
        assert uneven(np.round(np.arange(500) / fps, 3)) is None
    assert uneven(np.zeros(1)) is None
    assert "0 to 0 s apart" in (uneven(np.zeros(5)) or "")


def test_frames_at_times() -> None:
    times = np.array([0.0, 0.1, 0.3, 0.4])
    assert frames_at(times, np.array([0.0, 0.1, 0.2, 0.3, 0.424, 0.43, 0.5, -0.1]), 10).tolist() == [
        0, 1, -1, 2, 3, -1, -1, -1,
    ]  # fmt: skip


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_damaged_indices_never_end_in_another_error(tmp_path: Path, extension: str) -> None:
    path = write_video_at(tmp_path / f"clip{extension}", SHOWN)
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(0)
    for _ in range(300):
        broken = data.copy()
        for place in generator.integers(0, len(data), 20):
            broken[place] = generator.integers(256)
        path.write_bytes(broken[: generator.integers(1, len(data) + 1)])
        times = frame_times(path, len(SHOWN))
        assert times is None or times.shape == (len(SHOWN),)
