"""Sampling and encoding of pairs of frames."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hilam_hf.data.episodes import scan_videos
from hilam_hf.data.samples.frame_pairs import load_episode_frames
from hilam_hf.evaluation.lam.pairs import allot, encode_pairs, spread
from tests.evaluation.lam.stand_ins import BrightnessIDM, BrokenIDM, CodeIDM, walk_videos


@pytest.mark.parametrize(
    ("available", "budget", "expected"),
    [
        ([10, 2, 10], 12, [5, 2, 5]),
        ([3, 3], 100, [3, 3]),
        ([10, 10, 10], 0, [0, 0, 0]),
        ([1, 100, 4], 50, [1, 45, 4]),
        ([5, 5, 5, 5], 2, [0, 1, 0, 1]),
        ([], 5, []),
    ],
)
def test_a_budget_is_shared_evenly(available: list[int], budget: int, expected: list[int]) -> None:
    assert allot(available, budget) == expected


def test_shares_add_up_and_differ_by_one_at_most_where_there_is_enough() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        available, budget = rng.integers(0, 20, size=rng.integers(1, 9)).tolist(), int(rng.integers(0, 80))
        shares = allot(available, budget)
        assert sum(shares) == min(budget, sum(available))
        assert all(0 <= share <= limit for share, limit in zip(shares, available, strict=True))
        not_full = [share for share, limit in zip(shares, available, strict=True) if share < limit]
        assert not not_full or max(shares) <= min(not_full) + 1


def test_spread_numbers_are_different_and_cover_the_range() -> None:
    for total in range(1, 30):
        for count in range(total + 1):
            numbers = spread(total, count)
            assert len(set(numbers)) == count and all(0 <= number < total for number in numbers)
            gaps = np.diff([-1, *numbers, total])
            assert count == 0 or gaps.max() - gaps.min() <= total / count
    assert spread(10, 2).tolist() == [2, 7]


def test_pairs_are_those_of_the_videos_at_both_sizes(tmp_path: Path) -> None:
    episodes = scan_videos(walk_videos(tmp_path, [20, 6]), progress=False).episodes
    idm = BrightnessIDM(image_size=8)
    pairs = encode_pairs(idm, episodes, [3, 2], kept_size=12, max_pairs=12, max_kept=6, batch_size=5)
    assert pairs.episode.tolist() == [0] * 8 + [1] * 4
    assert pairs.index.tolist() == [*spread(17, 8), 0, 1, 2, 3]
    assert pairs.strides == [3, 2]
    frames = [load_episode_frames(episode, 8).float() / 255 for episode in episodes]
    for row, (episode, t) in enumerate(zip(pairs.episode, pairs.index, strict=True)):
        first, second = frames[episode][t], frames[episode][t + pairs.strides[episode]]
        torch.testing.assert_close(pairs.latents[row], idm.encode(first[None], second[None])[0])
        assert pairs.changes[row] == pytest.approx((second - first).square().mean().item(), rel=1e-5)
        assert pairs.thumbnails[row] == pytest.approx(np.full(768, (second - first).mean()), abs=1e-6)
    assert (pairs.still_vectors == 0).all()
    assert pairs.finite.all()
    # Three of each video are kept, at the other size.
    assert pairs.episode[pairs.kept].tolist() == [0, 0, 0, 1, 1, 1]
    assert pairs.frames.shape == pairs.next_frames.shape == (6, 3, 12, 12)
    for kept, (frame, next_frame) in enumerate(zip(pairs.frames, pairs.next_frames, strict=True)):
        row = pairs.kept[kept]
        change = (next_frame.float() - frame.float()).mean() / 255
        assert change.item() == pytest.approx(pairs.latents[row].item(), abs=1e-3)


def test_codes_stay_codes_beside_their_vectors(tmp_path: Path) -> None:
    episodes = scan_videos(walk_videos(tmp_path, [10]), progress=False).episodes
    pairs = encode_pairs(CodeIDM(), episodes, [1], kept_size=None, max_pairs=100, max_kept=100)
    assert pairs.latents.dtype == torch.int64 and pairs.latents.shape == (9, 2)
    assert pairs.vectors.shape == (9, 4)
    np.testing.assert_array_equal(pairs.vectors[:, 0], 2 * pairs.latents[:, 0].numpy() - 1)
    assert len(pairs.kept) == len(pairs.frames) == 0


def test_latents_that_are_not_finite_are_told(tmp_path: Path) -> None:
    episodes = scan_videos(walk_videos(tmp_path, [10]), progress=False).episodes
    pairs = encode_pairs(BrokenIDM(), episodes, [1], kept_size=None, max_pairs=100, max_kept=0)
    assert 0 < pairs.finite.sum() < 9
    np.testing.assert_array_equal(pairs.finite, ~np.isnan(pairs.vectors[:, 0]))


def test_a_video_that_turns_out_to_be_damaged_is_set_aside(tmp_path: Path) -> None:
    episodes = scan_videos(walk_videos(tmp_path, [8, 8, 8]), progress=False).episodes
    (tmp_path / "01.mp4").write_bytes(b"no video")
    options = {"kept_size": 8, "max_pairs": 30, "max_kept": 6}
    pairs = encode_pairs(BrightnessIDM(), episodes, [1] * 3, **options)
    assert [episode.id for episode in pairs.episodes] == ["00", "02"]
    assert set(pairs.episode) == {0, 1}
    assert [Path(video.path).name for video in pairs.rejected] == ["01.mp4"]
    with pytest.raises(ValueError, match="none of the 1 videos can be used"):
        encode_pairs(BrightnessIDM(), episodes[1:2], [1], **options)


def test_more_videos_than_pairs(tmp_path: Path) -> None:
    episodes = scan_videos(walk_videos(tmp_path, [4] * 5), progress=False).episodes
    pairs = encode_pairs(BrightnessIDM(), episodes, [1] * 5, kept_size=8, max_pairs=2, max_kept=10)
    assert [episode.id for episode in pairs.episodes] == ["01", "03"]
    assert len(pairs) == len(pairs.kept) == 2
