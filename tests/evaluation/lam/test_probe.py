"""Probes for true motion: what it is, and what a linear map finds of it on other videos."""

from pathlib import Path

import numpy as np
import pytest

from hilam_hf.data import LeRobotWriter, LiberoHdf5Writer, VideoRecordingWriter, load_demonstrations
from hilam_hf.evaluation.lam.probe import (
    REGULARISATIONS,
    Motion,
    MotionProbe,
    NoProbe,
    choose_regularisation,
    probe_motion,
    recorded_motion,
    recording_of,
)
from hilam_hf.robots import RobotDescription
from tests.evaluation.lam.stand_ins import make_pairs
from tests.robot_recordings import demonstration, small_demonstration

RNG = np.random.default_rng(0)
EPISODES = np.repeat(np.arange(10), 40)


def motion_of(latents: np.ndarray, num_episodes: int = 10) -> Motion:
    """Actions of 100 frames whose sum over frames t and t + 1 is the row of `latents` of pair t."""
    values = {}
    for episode in range(num_episodes):
        rows = latents[episode * 40 : (episode + 1) * 40]
        actions = np.zeros((100, latents.shape[1]))
        for t, row in enumerate(rows):
            actions[t + 1] = row - actions[t]
        values[f"e{episode}"] = actions
    return Motion(values=values, names=("left", "up")[: latents.shape[1]], unit="m", kind="actions")


def test_motion_is_the_change_of_positions_or_the_sum_of_actions() -> None:
    values = {"a": np.array([[0.0], [1.0], [3.0], [6.0]])}
    positions = Motion(values=values, names=("x",), unit="m")
    assert positions.over_pairs("a", 4, np.array([0, 1]), 2).tolist() == [[3], [5]]
    actions = Motion(values=values, names=("x",), unit="m", kind="actions")
    # The action at frame t leads to frame t + 1; that of the last frame leads nowhere.
    assert actions.over_pairs("a", 4, np.array([0, 1]), 2).tolist() == [[1], [4]]
    assert actions.over_pairs("a", 5, np.array([2]), 2).tolist() == [[9]]


def test_motion_that_does_not_belong_to_its_video_is_refused() -> None:
    values = {"a": np.zeros((4, 1))}
    with pytest.raises(ValueError, match="motion of episode 'a': got 4 rows for a video of 5 frames, expected 5:"):
        Motion(values=values, names=("x",), unit="m").over_pairs("a", 5, np.array([0]), 1)
    with pytest.raises(ValueError, match="got 4 rows for a video of 6 frames, expected 6 or 5"):
        Motion(values=values, names=("x",), unit="m", kind="actions").over_pairs("a", 6, np.array([0]), 1)
    with pytest.raises(ValueError, match=r"got shape \(4, 1\), expected \(T, 2\)"):
        Motion(values=values, names=("x", "y"), unit="m")
    with pytest.raises(ValueError, match="NaN or infinite"):
        Motion(values={"a": np.full((4, 1), np.nan)}, names=("x",), unit="m")
    with pytest.raises(ValueError, match="kind: got 'speed'"):
        Motion(values=values, names=("x",), unit="m", kind="speed")  # type: ignore[arg-type]


def test_motion_that_is_linear_in_latents_is_found_and_the_controls_find_nothing() -> None:
    vectors = RNG.normal(size=(400, 6))
    targets = vectors @ RNG.normal(size=(6, 2)) * [1, 1000] + 5
    probe = probe_motion(make_pairs(EPISODES, vectors), motion_of(targets))
    assert isinstance(probe, MotionProbe)
    assert probe.r2_per_dimension == pytest.approx([1, 1], abs=1e-3)
    assert probe.r2 == pytest.approx(np.mean(probe.r2_per_dimension))
    assert probe.control_r2 < 0.05
    # The thumbnails are noise.
    assert probe.pixels_r2 < 0.05
    assert probe.names == ("left", "up")
    assert (probe.num_fitted_episodes, probe.num_held_out_episodes) == (7, 3)
    assert (probe.num_fitted_pairs, probe.num_held_out_pairs) == (280, 120)


def test_latents_that_have_nothing_to_do_with_the_motion_find_nothing() -> None:
    targets = RNG.normal(size=(400, 2))
    pairs = make_pairs(EPISODES, RNG.normal(size=(400, 6)), thumbnails=np.tile(targets, 3).astype(np.float32))
    probe = probe_motion(pairs, motion_of(targets))
    assert isinstance(probe, MotionProbe)
    assert probe.r2 < 0.05
    assert probe.pixels_r2 == pytest.approx(1, abs=1e-3)


def test_episodes_are_held_out_whole() -> None:
    """Latents that name the video predict its constant motion on its own pairs, but on no other video."""
    speeds = RNG.normal(size=(10, 1))
    vectors = np.eye(10)[EPISODES]
    probe = probe_motion(make_pairs(EPISODES, vectors), motion_of(speeds[EPISODES]))
    assert isinstance(probe, MotionProbe)
    assert probe.r2 < 0.05


def test_dimensions_that_do_not_vary_are_left_out_and_named() -> None:
    vectors = RNG.normal(size=(400, 3))
    probe = probe_motion(make_pairs(EPISODES, vectors), motion_of(np.stack([vectors[:, 0], np.zeros(400)], axis=1)))
    assert isinstance(probe, MotionProbe)
    assert (probe.names, probe.constant_dimensions) == (("left",), ("up",))
    still = probe_motion(make_pairs(EPISODES, vectors), motion_of(np.zeros((400, 1))))
    assert still == NoProbe(reason="nothing moves on the videos that the probe would be measured on")


def test_vectors_that_are_not_finite_and_videos_without_motion_are_left_out() -> None:
    vectors = RNG.normal(size=(400, 3))
    targets = vectors[:, :1].copy()
    vectors[::7] = np.nan
    motion = motion_of(targets, num_episodes=6)
    probe = probe_motion(make_pairs(EPISODES, vectors), motion)
    assert isinstance(probe, MotionProbe)
    assert probe.r2 == pytest.approx(1, abs=1e-3)
    assert probe.num_episodes_without_motion == 4
    assert probe.num_fitted_episodes + probe.num_held_out_episodes == 6
    assert probe.num_fitted_pairs + probe.num_held_out_pairs == int((np.arange(240) % 7 > 0).sum())


@pytest.mark.parametrize(
    ("known", "reason"),
    [(None, "no actions or positions are known"), ([], "none of these videos"), (["e0"], "the motion of one video")],
)
def test_without_motion_the_reason_is_told(known: list[str] | None, reason: str) -> None:
    motion = None
    if known is not None:
        motion = Motion(values={name: np.zeros((100, 1)) for name in known}, names=("x",), unit="m")
    probe = probe_motion(make_pairs(EPISODES, RNG.normal(size=(400, 3))), motion)
    assert isinstance(probe, NoProbe) and reason in probe.reason


def test_regularisation_follows_the_noise() -> None:
    inputs, groups = RNG.normal(size=(60, 40)), np.repeat(np.arange(6), 10)
    assert choose_regularisation(inputs, inputs[:, :2] * [1, 1e6], groups) == min(REGULARISATIONS)
    assert choose_regularisation(inputs, RNG.normal(size=(60, 2)), groups) >= 1000
    # A dimension of noise counts as much as one of a million times its scale.
    mixed = np.stack([1e6 * inputs[:, 0], RNG.normal(size=60)], axis=1)
    assert choose_regularisation(inputs, mixed, groups) > min(REGULARISATIONS)
    assert choose_regularisation(inputs, inputs[:, :1], np.zeros(60, dtype=int)) == 1.0


def test_a_recording_is_found_from_its_folder_or_its_videos(tmp_path: Path) -> None:
    root = tmp_path / "recording"
    with VideoRecordingWriter(root) as writer:
        writer.add(demonstration(6))
    for videos in ("", "videos", "videos_robot0_eye_in_hand"):
        assert recording_of(root / videos) == root
    with LiberoHdf5Writer(tmp_path / "libero") as writer:
        writer.add(demonstration(6))
    assert recording_of(tmp_path / "libero") == tmp_path / "libero"
    (tmp_path / "plain" / "videos").mkdir(parents=True)
    assert recording_of(tmp_path / "plain") is recording_of(tmp_path / "plain" / "videos") is None


@pytest.mark.parametrize("writer_class", [VideoRecordingWriter, LiberoHdf5Writer, LeRobotWriter])
def test_the_end_effector_of_any_recording(writer_class: type, tmp_path: Path) -> None:
    demo = demonstration(6)
    with writer_class(tmp_path) as writer:
        writer.add(demo)
    motion = recorded_motion(load_demonstrations(tmp_path))
    assert motion is not None and motion.names == ("x", "y", "z")
    change = motion.over_pairs(demo.id, 6, np.array([1]), 3)
    positions = demo.proprioception["ee_positions"]
    assert change[0] == pytest.approx(positions[4] - positions[1], abs=1e-6)


def test_a_robot_that_does_not_tell_where_its_hand_is(tmp_path: Path) -> None:
    robot = RobotDescription(
        name="arm", environment="lab", action_dim=4, proprioception={"joints": 2}, layouts={"joints": ("joints",)}
    )
    with VideoRecordingWriter(tmp_path) as writer:
        writer.add(small_demonstration("push/one", 6, robot=robot, proprioception={"joints": np.zeros((6, 2))}))
    assert recorded_motion(load_demonstrations(tmp_path)) is None
