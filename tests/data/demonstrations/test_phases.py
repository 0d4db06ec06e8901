from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from hilam_hf.data import (
    CorpusInfo,
    VideoRecordingWriter,
    demonstration_phases,
    latent_phases,
    load_corpus,
    load_demonstrations,
    phase_boundaries,
    smooth_phases,
    write_latent_action_corpus,
)
from tests.robot_recordings import small_demonstration


def record(root: Path, phases: dict[str, str | None]) -> None:
    """Demonstrations whose phases are the letters of a word."""
    with VideoRecordingWriter(root) as writer:
        for name, word in phases.items():
            writer.add(small_demonstration(name, len(word or "aaaa"), phases=None if word is None else list(word)))


@pytest.mark.parametrize(
    ("phases", "starts"), [("aabccc", [0, 2, 3]), ("a", [0]), ("", []), ("aaaa", [0]), ("abab", [0, 1, 2, 3])]
)
def test_boundaries_are_where_segments_start(phases: str, starts: list[int]) -> None:
    boundaries = phase_boundaries(list(phases))
    assert boundaries.dtype == bool and boundaries.shape == (len(phases),)
    assert np.flatnonzero(boundaries).tolist() == starts


@pytest.mark.parametrize(
    ("phases", "min_length", "smooth"),
    [
        ("aaabaacccc", 2, "aaaaaacccc"),
        ("aaabbaaabb", 2, "aaabbaaabb"),
        ("aaaabababbbb", 3, "aaaaaaaabbbb"),
        ("aaabccdddd", 3, "aaaaaadddd"),
        ("abbbb", 3, "bbbbb"),
        ("abaaabbb", 3, "aaaaabbb"),
        ("abcddd", 3, "aaaddd"),
        ("abccc", 3, "ccccc"),
        ("aab", 9, "aaa"),
        ("ab", 1, "ab"),
        ("", 4, ""),
    ],
)
def test_short_segments_join_the_one_before(phases: str, min_length: int, smooth: str) -> None:
    assert "".join(smooth_phases(list(phases), min_length)) == smooth


def test_smoothing_leaves_no_short_segment_and_invents_no_boundary() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        phases = np.repeat(rng.choice(list("abc"), 12), rng.integers(1, 6, 12)).tolist()
        min_length = int(rng.integers(1, 7))
        smooth = smooth_phases(phases, min_length)
        lengths = [len(list(run)) for _, run in groupby(smooth)]
        assert sum(lengths) == len(phases)
        assert min(lengths) >= min_length or len(lengths) == 1
        assert smooth_phases(smooth, min_length) == smooth
        assert not (phase_boundaries(smooth) & ~phase_boundaries(phases)).any()
        # Segments that are long enough keep their name.
        starts = np.flatnonzero(phase_boundaries(phases))
        for start, end in zip(starts, [*starts[1:], len(phases)], strict=True):
            assert end - start < min_length or set(smooth[start:end]) == {phases[start]}


def test_no_smoothing_below_one_step() -> None:
    with pytest.raises(ValueError, match="min_length: got 0, expected at least 1"):
        smooth_phases(["a"], 0)


def test_phases_of_a_recording_by_id(tmp_path: Path) -> None:
    record(tmp_path, {"drawer/one": "aabaac", "drawer/two": "aacc", "door/one": "xy"})
    assert demonstration_phases(load_demonstrations(tmp_path)) == {
        "door/one": ["x", "y"],
        "drawer/one": list("aabaac"),
        "drawer/two": list("aacc"),
    }
    assert demonstration_phases(load_demonstrations(tmp_path, tasks="drawer"), min_length=2) == {
        "drawer/one": ["a"] * 6,
        "drawer/two": list("aacc"),
    }


def test_recordings_without_phases_are_named(tmp_path: Path) -> None:
    record(tmp_path, {"drawer/one": "ab", "drawer/two": None})
    with pytest.raises(ValueError, match=r"1 demonstrations tell no phases, such as drawer/two: record them again"):
        demonstration_phases(load_demonstrations(tmp_path))


def test_latent_action_has_the_phase_of_the_frame_it_starts_from(tmp_path: Path) -> None:
    record(tmp_path / "recording", {"drawer/one": "aabbcc", "drawer/two": "xyz"})
    rows = [
        {"id": "drawer/one", "fps": 20, "num_frames": 6, "latent_actions": np.zeros((4, 3))},
        {
            "id": "drawer/two",
            "fps": 20,
            "num_frames": 3,
            "stride": 1,
            "frame_indices": [1],
            "latent_actions": np.zeros((1, 3)),
        },
    ]
    info = CorpusInfo(model="org/idm", revision="v1", latent_dim=3, stride=2)
    write_latent_action_corpus(tmp_path / "corpus", rows, info=info)
    phases = demonstration_phases(load_demonstrations(tmp_path / "recording"))
    corpus = load_corpus(tmp_path / "corpus", cache_dir=tmp_path / "cache")
    assert [latent_phases(row, phases) for row in corpus] == [["a", "a", "b", "b"], ["y"]]


def test_corpus_of_another_recording_is_told() -> None:
    row = {"id": "videos/drawer/one", "num_frames": 3, "frame_indices": [0, 1]}
    with pytest.raises(ValueError, match=r"'videos/drawer/one': its phases are not there .* first being drawer/one"):
        latent_phases(row, {"drawer/one": ["a"] * 3})
    with pytest.raises(ValueError, match="phases of 4 frames for a video of 3"):
        latent_phases(row, {"videos/drawer/one": ["a"] * 4})
