"""Frames of many videos in batches: order, cuts, videos that are given up, and a bound on what is in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from hilam_hf.data import scan_videos
from hilam_hf.data.corpora import frame_batches
from hilam_hf.data.corpora.frame_batches import AHEAD, EpisodeFrames, pack, send_ahead
from hilam_hf.models.latent_actions.pair_encoding import FrameBatch, FrameRun
from tests.models.latent_actions.test_dynamics import LiveFrames
from tests.numbered_videos import MakeVideo, frame_numbers

CPU = torch.device("cpu")


def pieces(*lengths: tuple[int, int]) -> Iterator[tuple[FrameRun, Tensor]]:
    """Pieces of given (video, length), whose frames are numbered throughout."""
    start = 0
    for video, length in lengths:
        yield FrameRun(video, 10 + video, length), torch.arange(start, start + length).view(-1, 1, 1, 1)
        start += length


def described(batches: Iterator[FrameBatch]) -> list[tuple[list[int], list[tuple[int, int, int]]]]:
    return [
        (batch.frames.flatten().tolist(), [(run.video, run.stride, run.length) for run in batch.runs])
        for batch in batches
    ]


def test_pieces_are_joined_and_cut() -> None:
    assert described(pack(pieces((0, 3), (0, 2), (1, 1), (2, 7)), batch_size=4)) == [
        ([0, 1, 2, 3], [(0, 10, 4)]),
        ([4, 5, 6, 7], [(0, 10, 1), (1, 11, 1), (2, 12, 2)]),
        ([8, 9, 10, 11], [(2, 12, 4)]),
        ([12], [(2, 12, 1)]),
    ]
    assert described(pack(pieces((3, 2), (4, 2)), batch_size=4)) == [([0, 1, 2, 3], [(3, 13, 2), (4, 14, 2)])]
    assert described(pack(pieces(), batch_size=4)) == []


def test_videos_follow_each_other_and_damaged_ones_are_left_out(make_video: MakeVideo) -> None:
    for name, num_frames in (("a.mp4", 5), ("b.mp4", 6), ("c.mp4", 9), ("d.mp4", 3)):
        make_video(name, num_frames=num_frames)
    root = make_video("e.mp4", num_frames=4).parent
    episodes = scan_videos(root, progress=False).episodes
    (root / "b.mp4").write_bytes(b"no video")
    source = EpisodeFrames(episodes, [1, 1, 2, 3, 1], image_size=8)
    batches = list(source.batches(8))
    assert [len(batch.frames) for batch in batches] == [8, 8, 2]
    assert {batch.frames.shape[1:] for batch in batches} == {(3, 8, 8)}
    runs = [[(run.video, run.stride, run.length) for run in batch.runs] for batch in batches]
    assert runs == [[(0, 1, 5), (2, 2, 3)], [(2, 2, 6), (4, 1, 2)], [(4, 1, 2)]]
    numbers = frame_numbers(torch.cat([batch.frames for batch in batches]))
    assert numbers == [*range(5), *range(9), *range(4)]
    assert source.rejected.keys() == {1, 3}
    assert "cannot be opened as a video" in source.rejected[1]
    assert source.rejected[3].startswith("it holds 3 frames; a latent action spans 3")


class FakeReader:
    """Stands in for `VideoReader`: a video of as many frames as its path says, followed in memory."""

    tracker: LiveFrames
    threads: set[threading.Thread]

    def __init__(self, path: str, size: int) -> None:
        self.num_frames, self.size = int(Path(path).stem), size

    def __len__(self) -> int:
        return self.num_frames

    def chunks(self, length: int) -> Iterator[Tensor]:
        for start in range(0, self.num_frames, length):
            count = min(length, self.num_frames - start)
            self.threads.add(threading.current_thread())
            yield self.tracker.track(np.zeros((count, 3, self.size, self.size), dtype=np.uint8))


@pytest.fixture
def fake_reader(monkeypatch: pytest.MonkeyPatch) -> type[FakeReader]:
    monkeypatch.setattr(FakeReader, "tracker", LiveFrames(0, 0), raising=False)
    monkeypatch.setattr(FakeReader, "threads", set(), raising=False)
    monkeypatch.setattr(frame_batches, "VideoReader", FakeReader)
    return FakeReader


def episodes_of(lengths: Sequence[int]) -> list[SimpleNamespace]:
    return [SimpleNamespace(path=f"{length}.mp4") for length in lengths]


@pytest.mark.parametrize("lengths", [[320], [36000], [90] * 400])
def test_memory_holds_a_few_batches_however_long_videos_are(fake_reader: type[FakeReader], lengths: list[int]) -> None:
    batch_size, seen = 32, 0
    source = EpisodeFrames(episodes_of(lengths), [1] * len(lengths), image_size=2)
    for batch in send_ahead(source.batches(batch_size), CPU):
        seen += len(batch.frames)
        del batch
    assert seen == sum(lengths)
    # Those that wait, that in use, that in the making and the piece it is cut from.
    assert fake_reader.tracker.peak <= (AHEAD + 4) * batch_size


def test_decoding_runs_in_another_thread_that_ends_when_the_consumer_stops(fake_reader: type[FakeReader]) -> None:
    batches = send_ahead(EpisodeFrames(episodes_of([36000]), [1], image_size=2).batches(32), CPU)
    next(batches)
    (thread,) = fake_reader.threads
    assert thread is not threading.current_thread()
    batches.close()
    assert not thread.is_alive()


def test_an_error_that_is_not_about_one_video_reaches_the_consumer(tmp_path: Path) -> None:
    episodes = [SimpleNamespace(path=str(tmp_path / "gone.mp4"))]
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4: there is no such video file"):
        list(send_ahead(EpisodeFrames(episodes, [1], image_size=8).batches(8), CPU))
