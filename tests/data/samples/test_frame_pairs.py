import logging
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from hilam_hf.data import FramePairDataset, load_episode_frames, scan_videos
from hilam_hf.video import VideoReader
from hilam_hf.video.video_file import VideoError, write_video
from tests.numbered_videos import MakeVideo, frame_numbers, numbered_frames


@pytest.fixture
def episodes(tmp_path: Path, make_video: MakeVideo):
    make_video("a.mp4", num_frames=6, fps=10)
    make_video("b.webm", num_frames=9, fps=20, height=32, width=32)
    return scan_videos(tmp_path / "videos", progress=False).episodes


def pairs(dataset: FramePairDataset) -> list[tuple[int, int, int]]:
    """(episode, number of the first frame, number of the second) of each item, read from the pictures."""
    items = [dataset[i] for i in range(len(dataset))]
    return [(x["episode"], *frame_numbers(torch.stack([x["frames"], x["next_frames"]]))) for x in items]


@pytest.mark.parametrize("cache_bytes", [10**9, 0])
def test_all_pairs_from_memory_and_from_files(episodes, cache_bytes: int) -> None:
    dataset = FramePairDataset(episodes, 16, stride=2, cache_bytes=cache_bytes, progress=False)
    assert dataset.store.in_memory == (cache_bytes > 0)
    assert pairs(dataset) == [(0, t, t + 2) for t in range(4)] + [(1, t, t + 2) for t in range(7)]
    item = dataset[5]
    assert item["frames"].shape == (3, 16, 16) and item["frames"].dtype == torch.uint8
    assert (item["episode"], item["index"]) == (1, 1)


def test_stride_in_seconds_follows_each_rate(episodes) -> None:
    dataset = FramePairDataset(episodes, 16, stride_seconds=0.2, progress=False)
    assert dataset.strides == [2, 4]
    assert pairs(dataset) == [(0, t, t + 2) for t in range(4)] + [(1, t, t + 4) for t in range(5)]


def test_memory_budget_decides(episodes) -> None:
    needed = (6 + 9) * 3 * 16 * 16
    assert FramePairDataset(episodes, 16, stride=1, cache_bytes=needed, progress=False).store.in_memory
    store = FramePairDataset(episodes, 16, stride=1, cache_bytes=needed - 1, progress=False).store
    assert not store.in_memory and store.num_bytes == needed


@pytest.mark.parametrize("cache_bytes", [10**9, 0])
def test_a_second_size_comes_from_the_same_decoded_frames(
    tmp_path: Path, cache_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        # Noise, since plain frames are the same however often they are resized.
        write_video(tmp_path / f"{name}.mp4", torch.randint(256, (6, 3, 48, 64), dtype=torch.uint8), 10)
    episodes = scan_videos(tmp_path, progress=False).episodes
    both = FramePairDataset(episodes, 16, idm_size=(24, 12), stride=2, cache_bytes=cache_bytes, progress=False)
    second = FramePairDataset(episodes, (24, 12), stride=2, cache_bytes=cache_bytes, progress=False)
    first = FramePairDataset(episodes, 16, stride=2, cache_bytes=cache_bytes, progress=False)
    asked: list[list[int]] = []
    decode = VideoReader._decode
    monkeypatch.setattr(VideoReader, "_decode", lambda self, batch: (asked.append(batch), decode(self, batch))[1])
    item = both[5]
    assert asked == ([] if cache_bytes else [[1, 3]])
    for name in ("frames", "next_frames"):
        assert item[f"idm_{name}"].shape == (3, 24, 12) and item[f"idm_{name}"].dtype == torch.uint8
        assert torch.equal(item[name], first[5][name])
        assert torch.equal(item[f"idm_{name}"], second[5][name])


def test_a_second_size_counts_to_the_memory_budget(episodes) -> None:
    needed = (6 + 9) * 3 * (16 * 16 + 8 * 8)
    options = {"idm_size": 8, "stride": 1, "progress": False}
    assert FramePairDataset(episodes, 16, cache_bytes=needed, **options).store.in_memory
    store = FramePairDataset(episodes, 16, cache_bytes=needed - 1, **options).store
    assert not store.in_memory and store.num_bytes == needed


def test_an_equal_second_size_is_left_out(episodes) -> None:
    dataset = FramePairDataset(episodes, 16, idm_size=(16, 16), stride=1, progress=False)
    assert set(dataset[0]) == {"frames", "next_frames", "episode", "index"}
    assert dataset.store.num_bytes == (6 + 9) * 3 * 16 * 16


def test_few_open_files(tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilam_hf.data.samples.frame_store._OPEN_READERS", 2)
    for number in range(4):
        make_video(f"{number}.mp4", num_frames=3)
    found = scan_videos(tmp_path / "videos", progress=False).episodes
    dataset = FramePairDataset(found, 16, stride=1, cache_bytes=0, progress=False)
    assert pairs(dataset) == [(e, t, t + 1) for e in range(4) for t in range(2)]
    assert len(dataset.store._readers) == 2


@pytest.mark.parametrize("cache_bytes", [10**9, 0])
def test_data_loader_workers(episodes, cache_bytes: int) -> None:
    dataset = FramePairDataset(episodes, 16, stride=1, cache_bytes=cache_bytes, progress=False)
    dataset[0]
    batches = list(DataLoader(dataset, batch_size=4, num_workers=2))
    assert frame_numbers(torch.cat([b["frames"] for b in batches])) == [*range(5), *range(8)]
    assert torch.cat([b["index"] for b in batches]).tolist() == [*range(5), *range(8)]


def test_short_episodes_are_reported(episodes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = FramePairDataset(episodes, 16, stride=6, progress=False)
    assert [episode.id for episode in dataset.without_pairs] == ["a"] and "too short" in caplog.text
    assert pairs(dataset) == [(1, t, t + 6) for t in range(3)]
    with pytest.raises(ValueError, match="none of the 2 episodes has a pair of frames 9 frames apart"):
        FramePairDataset(episodes, 16, stride=9, progress=False)


def test_items_out_of_range(episodes) -> None:
    dataset = FramePairDataset(episodes, 16, stride=1, progress=False)
    for item in (-1, len(dataset)):
        with pytest.raises(IndexError):
            dataset[item]
    with pytest.raises(IndexError, match="frame index 6"):
        dataset.store.read(0, [6])


@pytest.mark.parametrize("cache_bytes", [10**9, 0])
def test_file_changed_since_the_scan(episodes, cache_bytes: int) -> None:
    write_video(episodes[0].path, numbered_frames(4), 10)
    with pytest.raises(VideoError, match=r"a\.mp4: it holds 4 frames, but 6 were expected"):
        FramePairDataset(episodes, 16, stride=1, cache_bytes=cache_bytes, progress=False)[0]


def test_changing_an_item_leaves_the_memory_alone(episodes) -> None:
    dataset = FramePairDataset(episodes, 16, stride=1, progress=False)
    dataset[0]["frames"].zero_()
    assert frame_numbers(dataset[3]["frames"][None]) == [3] and dataset[0]["frames"].max() > 0


def test_load_episode_frames(episodes) -> None:
    assert load_episode_frames(episodes[1]).shape == (9, 3, 32, 32)
    frames = load_episode_frames(episodes[0], 16)
    assert frames.shape == (6, 3, 16, 16) and frame_numbers(frames) == list(range(6))
