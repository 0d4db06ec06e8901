import logging
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from hilam_hf.data import FramePairDataset, load_episode_frames, scan_videos
from hilam_hf.data.samples.frame_store import FrameStore
from hilam_hf.data.samples.keys import SampleKey
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
    assert dataset.stride_ranges == [(2, 2), (4, 4)] and not dataset.draws_samples
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


RANGES = [({"stride_range": (2, 4)}, (2, 4), (2, 4)), ({"stride_seconds_range": (0.1, 0.2)}, (1, 2), (2, 4))]


@pytest.mark.parametrize("cache_bytes", [10**9, 0])
@pytest.mark.parametrize(("options", "of_a", "of_b"), RANGES)
def test_strides_are_drawn_evenly_and_stay_within_the_episode(episodes, cache_bytes: int, options, of_a, of_b) -> None:
    dataset = FramePairDataset(episodes, 16, **options, cache_bytes=cache_bytes, progress=False)
    assert dataset.draws_samples and dataset.stride_ranges == [of_a, of_b]
    expected = [(0, t) for t in range(6 - of_a[0])] + [(1, t) for t in range(9 - of_b[0])]
    assert len(dataset) == len(expected)
    for row, (episode, t) in enumerate(expected):
        low, high = dataset.stride_ranges[episode]
        possible = {k for k in range(low, high + 1) if t + k < episodes[episode].num_frames}
        drawn = set()
        for seed in range(30):
            item = dataset[SampleKey(row, seed)]
            first, second = frame_numbers(torch.stack([item["frames"], item["next_frames"]]))
            assert (item["episode"], item["index"], first) == (episode, t, t)
            drawn.add(second - first)
        assert drawn == possible


def test_every_stride_is_equally_likely(episodes) -> None:
    dataset = FramePairDataset(episodes, 4, stride_range=(2, 4), progress=False)
    # Seeds as of one batch after another, which are neighbours.
    items = [dataset[SampleKey(0, seed)]["next_frames"] for seed in range(300)]
    counts = Counter(frame_numbers(torch.stack(items)))
    # 100 of 300 draws each, with a variance of 300 * 1/3 * 2/3 = 67.
    assert set(counts) == {2, 3, 4} and all(abs(count - 100) < 5 * 67**0.5 for count in counts.values())


def test_the_seed_alone_decides_the_stride(episodes) -> None:
    dataset = FramePairDataset(episodes, 16, stride_range=(1, 8), progress=False)
    keys = [SampleKey(5, seed) for seed in range(8)]
    for key in keys:
        assert torch.equal(dataset[key]["next_frames"], dataset[key]["next_frames"])
        # An index alone is a key with itself as the seed.
        assert torch.equal(dataset[key.row]["next_frames"], dataset[SampleKey(5, 5)]["next_frames"])
    assert len({dataset[key]["next_frames"].float().mean().item() for key in keys}) > 1


def test_the_front_of_an_episode_is_cut(episodes) -> None:
    # 40 % of 6 and of 9 frames are 2.4 and 3.6: 2 and 3 frames are cut.
    dataset = FramePairDataset(episodes, 16, stride=2, skip_front=0.4, progress=False)
    assert pairs(dataset) == [(0, t, t + 2) for t in (2, 3)] + [(1, t, t + 2) for t in (3, 4, 5, 6)]
    assert [dataset.sample_id(row) for row in (0, 2)] == ["a, frame 2", "b, frame 3"]
    assert FramePairDataset(episodes, 16, stride=3, skip_front=0.5, progress=False).without_pairs == [episodes[0]]
    with pytest.raises(ValueError, match="pair of frames 2 frames apart behind the first 90%"):
        FramePairDataset(episodes, 16, stride=2, skip_front=0.9, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "stride: give one of frames, seconds, a range of frames or a range of seconds, got none"),
        ({"stride": 2, "stride_range": (1, 2)}, r"got frames=2, frames_range=\(1, 2\)"),
        ({"stride_range": (3, 2)}, r"stride range: got \(3, 2\), expected the smallest and the largest"),
        ({"stride_range": (0, 2)}, "stride: got 0 frames, expected at least 1"),
        ({"stride_range": (1, 2, 3)}, r"stride range: got \(1, 2, 3\)"),
        ({"stride_seconds_range": (0.1, float("nan"))}, "stride range: got"),
        ({"stride_seconds_range": (0.1, float("inf"))}, "stride: got inf seconds"),
        ({"stride": 1, "skip_front": 1.0}, r"skip_front: got 1\.0, expected a fraction in \[0, 1\)"),
        ({"stride": 1, "skip_front": -0.1}, r"skip_front: got -0\.1"),
    ],
)
def test_strides_that_make_no_sense_are_refused(episodes, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FramePairDataset(episodes, 16, **options, progress=False)


@pytest.mark.parametrize("cache_bytes", [10**9, 0])
def test_selected_episodes_share_the_frames(episodes, cache_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = FramePairDataset(episodes, 16, stride=2, cache_bytes=cache_bytes, progress=False)
    monkeypatch.setattr(FrameStore, "_decode_all", lambda *options: pytest.fail("decoded a second time"))
    chosen = dataset.select([1, 0])
    assert pairs(chosen) == [(0, t, t + 2) for t in range(7)] + [(1, t, t + 2) for t in range(4)]
    assert chosen.episode_ids == ["b", "a"] and pairs(dataset)[0] == (0, 0, 2)
    with pytest.raises(IndexError, match="frame index 6"):
        chosen.store.read(1, [6])
    assert len(dataset.select([])) == 0


def test_whole_episodes_are_held_out_by_their_ids(tmp_path: Path, make_video: MakeVideo) -> None:
    # The SHA-256 of "a", "b" and "c" begin with 0xca, 0x3e and 0x2e; "c" is too short for a pair.
    for name, length in (("a", 5), ("b", 5), ("c", 2)):
        make_video(f"{name}.mp4", num_frames=length)
    dataset = FramePairDataset(scan_videos(tmp_path / "videos", progress=False).episodes, 16, stride=2, progress=False)
    training, held_out = dataset.split(0.5)
    assert (training.episode_ids, held_out.episode_ids) == (["a", "c"], ["b"])
    assert pairs(held_out) == [(0, t, t + 2) for t in range(3)] and len(training) == 3
    with pytest.raises(ValueError, match="holds out none of 2 episodes"):
        dataset.split(0.2)
    assert [len(part) for part in dataset.split(0)] == [6, 0]


def test_the_fingerprint_is_that_of_the_data_in_any_folder(episodes, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "videos", tmp_path / "copy")
    copied = scan_videos(tmp_path / "copy", progress=False).episodes
    options = {"stride": 2, "progress": False}
    told = FramePairDataset(episodes, 16, **options).fingerprint()
    assert re.fullmatch("[0-9a-f]{16}", told)
    assert FramePairDataset(copied, 16, **options, cache_bytes=0).fingerprint() == told
    # Seconds that come to the same frames are the same strides.
    assert FramePairDataset(episodes[:1], 16, stride_seconds=0.2, progress=False).fingerprint() == (
        FramePairDataset(episodes[:1], 16, **options).fingerprint()
    )
    renamed = [replace(episodes[0], id="c"), episodes[1]]
    retimed = [replace(episodes[0], fps=12.0), episodes[1]]
    others = [
        FramePairDataset(renamed, 16, **options),
        FramePairDataset(retimed, 16, **options),
        FramePairDataset(episodes[::-1], 16, **options),
        FramePairDataset(episodes[:1], 16, **options),
        FramePairDataset(episodes, 24, **options),
        FramePairDataset(episodes, 16, idm_size=24, **options),
        FramePairDataset(episodes, 16, stride=3, progress=False),
        FramePairDataset(episodes, 16, stride_range=(2, 2), progress=False),
        FramePairDataset(episodes, 16, stride_range=(2, 3), progress=False),
        FramePairDataset(episodes, 16, **options, skip_front=0.2),
    ]
    write_video(tmp_path / "copy" / "a.mp4", 255 - numbered_frames(6), 10)
    others.append(FramePairDataset(copied, 16, **options))
    assert len({told, *(other.fingerprint() for other in others)}) == len(others) + 1


def test_a_pair_is_named_by_episode_and_frame(episodes) -> None:
    dataset = FramePairDataset(episodes, 16, stride=2, progress=False)
    assert [dataset.sample_id(row) for row in (0, 3, 4, 10)] == ["a, frame 0", "a, frame 3", "b, frame 0", "b, frame 6"]
    with pytest.raises(IndexError, match=r"item 11 is outside 0\.\.10"):
        dataset.sample_id(11)


def test_load_episode_frames(episodes) -> None:
    assert load_episode_frames(episodes[1]).shape == (9, 3, 32, 32)
    frames = load_episode_frames(episodes[0], 16)
    assert frames.shape == (6, 3, 16, 16) and frame_numbers(frames) == list(range(6))
