"""Episodes and pairs of frames for latent action models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hilam_hf.data import CorpusInfo, Episode, scan_videos, split_episodes, write_latent_action_corpus
from hilam_hf.data.samples.frame_pairs import FramePairDataset
from hilam_hf.data.samples.keys import SampleKey
from hilam_hf.training.lam.data import FramesOnly, frame_pairs, lam_episodes
from tests.models.uniskill.test_uniskill import tiny_fdm, tiny_idm
from tests.numbered_videos import MakeVideo
from tests.training.lam.moving_bars import MovingBars


def make_episodes(lengths: list[int]) -> list[Episode]:
    return [
        Episode(id=f"e{i}", path=f"e{i}.mp4", language=None, source=None, fps=10.0, num_frames=n, height=8, width=8)
        for i, n in enumerate(lengths)
    ]


def ids(episodes: list[Episode]) -> list[str]:
    return [episode.id for episode in episodes]


def write_corpus(folder: Path, splits: dict[str, list[str]]) -> str:
    rows = {
        split: [{"id": name, "fps": 10.0, "num_frames": 8, "latent_actions": torch.zeros(6, 2)} for name in names]
        for split, names in splits.items()
    }
    write_latent_action_corpus(folder, rows, info=CorpusInfo(model="m", latent_dim=2, stride=2))
    return str(folder)


def test_episodes_are_held_out_as_everywhere() -> None:
    episodes = make_episodes([8] * 10)
    training, held_out = lam_episodes(episodes, stride=2, held_out_fraction=0.3)
    assert (ids(training), ids(held_out)) == tuple(map(ids, split_episodes(episodes, 0.3)))
    assert lam_episodes(episodes, stride=2) == (episodes, [])


def test_only_episodes_with_a_pair_are_held_out() -> None:
    # By their hashes e0, e4 and e5 are held out.
    episodes = make_episodes([8, 3, 3, 3, 3, 3, 3, 8])
    training, held_out = lam_episodes(episodes, stride_seconds=0.4, held_out_fraction=0.5)
    assert (ids(training), ids(held_out)) == (["e1", "e2", "e3", "e4", "e5", "e6", "e7"], ["e0"])
    with pytest.raises(ValueError, match="all of 1 episodes: it takes at least 2"):
        lam_episodes(episodes[:5], stride=4, held_out_fraction=0.5)


def test_the_smallest_stride_behind_the_front_decides_what_is_long_enough() -> None:
    # e0, e4 and e5 are below 0.5; of 8, 5 and 6 frames behind a quarter remain 6, 4 and 5, and a pair takes 5.
    episodes = make_episodes([8, 8, 8, 8, 5, 6])
    _, held_out = lam_episodes(episodes, stride_range=(4, 20), skip_front=0.25, held_out_fraction=0.5)
    assert ids(held_out) == ["e0", "e5"]
    _, held_out = lam_episodes(episodes, stride_seconds_range=(0.5, 2.0), skip_front=0.25, held_out_fraction=0.5)
    assert ids(held_out) == ["e0"]


def test_a_corpus_names_the_episodes_and_its_validation_split_is_held_out(tmp_path: Path) -> None:
    episodes = make_episodes([8] * 5)
    corpus = write_corpus(tmp_path / "split", {"train": ["e3", "e1"], "validation": ["e0"]})
    training, held_out = lam_episodes(episodes, stride=2, corpus=corpus)
    assert (ids(training), ids(held_out)) == (["e3", "e1"], ["e0"])
    with pytest.raises(ValueError, match=r"has a validation split, which is held out; leave out the fraction 0\.5"):
        lam_episodes(episodes, stride=2, corpus=corpus, held_out_fraction=0.5)
    whole = write_corpus(tmp_path / "whole", {"train": ["e3", "e1"]})
    training, held_out = lam_episodes(episodes, stride=2, corpus=whole, held_out_fraction=0.6)
    assert (ids(training), ids(held_out)) == (["e3"], ["e1"])


def test_an_episode_of_the_corpus_without_a_video_is_named(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", {"train": ["e0", "gone"]})
    with pytest.raises(ValueError, match=r"1 of 2 episodes of .*corpus have no video, for one 'gone'"):
        lam_episodes(make_episodes([8]), stride=2, corpus=corpus)


def test_pairs_come_at_the_sizes_of_both_models(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video("a.mp4", num_frames=6)
    episodes = scan_videos(tmp_path / "videos", progress=False).episodes
    pairs = FramesOnly(frame_pairs(episodes, tiny_idm(image_size=32), tiny_fdm(), stride=2))
    assert {name: tuple(frames.shape) for name, frames in pairs[0].items()} == {
        "frames": (3, 16, 16),
        "next_frames": (3, 16, 16),
        "idm_frames": (3, 32, 32),
        "idm_next_frames": (3, 32, 32),
    }
    assert set(FramesOnly(frame_pairs(episodes, tiny_idm(), tiny_fdm(), stride=2))[0]) == {"frames", "next_frames"}


def test_frames_alone_say_what_the_pairs_say(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video("a.mp4", num_frames=6)
    episodes = scan_videos(tmp_path / "videos", progress=False).episodes
    pairs = FramePairDataset(episodes, 16, stride_range=(1, 3), progress=False)
    frames = FramesOnly(pairs)
    assert frames.draws_samples and not FramesOnly(MovingBars()).draws_samples
    assert (frames.fingerprint(), frames.sample_id(2)) == (pairs.fingerprint(), "a, frame 2")
    assert (FramesOnly(MovingBars()).fingerprint(), FramesOnly(MovingBars()).sample_id(2)) == (None, "sample 2")
    for seed in range(5):
        key = SampleKey(0, seed)
        assert torch.equal(frames[key]["next_frames"], pairs[key]["next_frames"])


def test_a_stride_longer_than_every_video_is_refused(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video("a.mp4", num_frames=6)
    episodes = scan_videos(tmp_path / "videos", progress=False).episodes
    training, _ = lam_episodes(episodes, stride_seconds=0.6, held_out_fraction=0.5)
    with pytest.raises(ValueError, match="none of the 1 episodes has a pair of frames 6 frames apart"):
        frame_pairs(training, tiny_idm(), tiny_fdm(), stride_seconds=0.6)
