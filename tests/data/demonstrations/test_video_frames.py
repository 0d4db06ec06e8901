from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import Tensor

from hilam_hf.data.demonstrations import video_frames
from hilam_hf.data.demonstrations.video_frames import VideoFrames
from hilam_hf.video import VideoError
from hilam_hf.video.video_file import write_video
from tests.numbered_videos import frame_numbers, numbered_frames, write_video_at


def test_part_of_a_file_and_a_file_that_was_replaced(tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    write_video(video, numbered_frames(8), 10.0)
    part = VideoFrames(video, 0.3, 4, 10.0)
    assert frame_numbers(torch.from_numpy(part.read([0, 3])).permute(0, 3, 1, 2)) == [3, 6]
    with pytest.raises(VideoError, match=r"it has 8 frames at 10\.0 a second, expected 4 at 10\.0"):
        VideoFrames(video, 0, 4, 10.0, is_whole=True).read([0])
    with pytest.raises(VideoError, match=r"it has 8 frames .*, expected at least 9 at 10\.0 \(none is at 0\.8"):
        VideoFrames(video, 0.3, 6, 10.0).read([0])
    write_video(video, numbered_frames(8).flip(0), 10.0)
    assert frame_numbers(torch.from_numpy(part.read([0, 3])).permute(0, 3, 1, 2)) == [4, 1]


def test_frames_are_found_by_their_times_behind_one_that_is_missing(tmp_path: Path) -> None:
    """A file of three episodes of 4 frames that lacks frame 5, of the second."""
    video = write_video_at(tmp_path / "video.mp4", [number for number in range(12) if number != 5])
    for start, numbers in ((0.0, [0, 3]), (0.8, [8, 11])):
        frames = VideoFrames(video, start, 4, 10.0).read([0, 3])
        assert frame_numbers(torch.from_numpy(frames).permute(0, 3, 1, 2)) == numbers
    with pytest.raises(VideoError, match=r"video\.mp4: it has 11 frames at .* \(none is at 0\.500 s\)"):
        VideoFrames(video, 0.4, 4, 10.0).read([0])
    with pytest.raises(VideoError, match=r"none is at 0\.500 s"):
        VideoFrames(video, 0.0, 12, 10.0, is_whole=True).read([0])


def test_a_file_of_twice_the_rate_is_not_the_recordings(tmp_path: Path) -> None:
    """It has frames at all the times, and others between them."""
    write_video(tmp_path / "video.mp4", numbered_frames(8), 20.0)
    with pytest.raises(VideoError, match=r"it has 8 frames at 20\.0 a second, expected at least 4 at 10\.0: copy"):
        VideoFrames(tmp_path / "video.mp4", 0.0, 4, 10.0).read([0])


def test_threads_do_not_share_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both_read = Barrier(2, timeout=10)
    opened = []

    class Reader:
        times = np.arange(4) / 10

        def __init__(self, path: Path) -> None:
            opened.append(self)

        def __len__(self) -> int:
            return 4

        def read(self, indices: Iterable[int]) -> Tensor:
            both_read.wait()
            return torch.full((1, 3, 2, 2), opened.index(self))

    monkeypatch.setattr(video_frames, "VideoReader", Reader)
    frames = VideoFrames(tmp_path / "video.mp4", 0, 4, 10.0)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(frames.read, ([0], [1]))
    assert {int(first.max()), int(second.max())} == {0, 1}
    video_frames._video_reader.cache_clear()
