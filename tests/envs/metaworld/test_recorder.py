"""The recorder: what it writes, that it goes on where it stopped, that it replaces unsolved episodes."""

import json
import os
import signal
from itertools import groupby

import numpy as np
import pyarrow.parquet as pq
import pytest

from hilam_hf.data import demonstration_phases, load_demonstrations, scan_videos
from hilam_hf.envs import WorkerError, record_demonstrations
from hilam_hf.envs.metaworld import recorder
from hilam_hf.envs.metaworld.recorder import Demonstrator
from hilam_hf.envs.recording import Job
from hilam_hf.metaworld_conventions import SAWYER
from hilam_hf.video import VideoReader
from tests.helpers import ROOT

pytestmark = pytest.mark.sim
SMALL = {"image_size": 32, "progress": False}


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)


class DyingDemonstrator(Demonstrator):
    """Dies at one seed."""

    def record(self, job):
        if job.seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().record(job)


def _files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".mp4", ".parquet")}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    root = tmp_path_factory.mktemp("recording")
    summary = record_demonstrations(
        root, ["button-press-topdown-v3", "drawer-open"], 2, camera="workspace", num_workers=2, **SMALL
    )
    return root, summary


def test_videos_and_actions_are_kept_apart(recording):
    root, summary = recording
    assert (summary.recorded, summary.kept, summary.failures) == (4, 0, ())
    videos = scan_videos(root / "videos", progress=False)
    assert [video.language for video in videos.episodes] == ["press the button from above"] * 2 + [
        "open the drawer"
    ] * 2
    assert not {"actions", "agent_pos"} & set().union(*(video.metadata for video in videos.episodes))
    demonstrations = load_demonstrations(root)
    assert demonstrations.cameras == ("workspace",) and demonstrations[0].robot == SAWYER
    assert [each.num_frames for each in demonstrations] == [video.num_frames for video in videos.episodes]
    assert summary.frames == sum(video.num_frames for video in videos.episodes)
    assert {video.fps for video in videos.episodes} == {80.0} and {video.height for video in videos.episodes} == {32}


def test_actions_move_the_end_effector_of_the_next_row(recording):
    root, _ = recording
    for each in load_demonstrations(root):
        actions, positions = each.actions, each.agent_pos[:, :3]
        assert each.metadata["success"] and len(actions) == len(positions) == each.num_frames
        np.testing.assert_array_equal(positions, each.proprioception["ee_positions"])
        moved = np.diff(positions, axis=0)
        # The hand lags behind its target by a few steps; over the episode displacement follows the action.
        lagged = [np.corrcoef(actions[: len(moved) - lag, 2], moved[lag:, 2])[0, 1] for lag in range(6)]
        assert max(lagged) > 0.7


def test_every_frame_has_its_phase(recording):
    root, _ = recording
    # Smoothing takes out what noise does at a threshold.
    demonstrations = load_demonstrations(root)
    for name, phases in demonstration_phases(demonstrations, min_length=3).items():
        expected = ["approach", "descend", "pull"] if name.startswith("drawer") else ["approach", "press"]
        assert [phase for phase, _ in groupby(phases)] == expected
    for each in demonstrations:
        assert len(each.phases) == each.num_frames
        if each.task == "drawer-open":
            hand = each.proprioception["ee_positions"]
            down, pulled = (hand[np.array(each.phases) == phase] for phase in ("descend", "pull"))
            assert down[0, 2] - down[-1, 2] > 0.1 and pulled[0, 1] - pulled[-1, 1] > 0.1
    lines = (root / "videos" / "metadata.jsonl").read_text()
    assert "phase" not in lines and "approach" not in lines


def test_record_of_how_it_was_made(recording):
    root, _ = recording
    record = json.loads((root / "recording.json").read_text())
    assert record["finished"] and record["tasks"] == {"button-press-topdown": 2, "drawer-open": 2}
    assert record["settings"]["camera"] == "workspace" and record["settings"]["noise"] == 0.1
    assert record["settings"]["quality"] == record["renderer"]["quality"] == "fast"
    assert record["renderer"]["backend"] in ("egl", "osmesa")
    assert record["packages"]["mujoco"] == record["renderer"]["mujoco"]


def test_interrupted_recording_goes_on_and_equals_an_uninterrupted_one(recording, tmp_path):
    root, _ = recording
    first = record_demonstrations(tmp_path, "drawer-open", 1, camera="workspace", num_workers=1, **SMALL)
    there = _files(tmp_path)
    summary = record_demonstrations(tmp_path, ["drawer-open"], 2, camera="workspace", num_workers=2, **SMALL)
    assert (first.recorded, summary.recorded, summary.kept) == (1, 1, 1)
    assert there.items() <= _files(tmp_path).items()
    expected = load_demonstrations(root, tasks="drawer-open")
    assert [each.id for each in load_demonstrations(tmp_path)] == [each.id for each in expected]
    for each in expected:
        rows = [pq.read_table(folder / "demonstrations" / f"{each.id}.parquet") for folder in (tmp_path, root)]
        assert rows[0].equals(rows[1])
        # Not bit for bit: of equal frames, libx264 made other bytes in 5 of 1,200 tries.
        first, second = (VideoReader(folder / f"videos/{each.id}.mp4").read().float() for folder in (tmp_path, root))
        assert (first - second).abs().mean() < 0.25
        assert (first - second[:1]).abs().mean() > 0.5


def test_finished_recording_starts_no_worker(recording, monkeypatch):
    root, _ = recording
    monkeypatch.setattr(recorder, "Worker", None)
    summary = record_demonstrations(root, "drawer-open", 2, camera="workspace", **SMALL)
    assert (summary.recorded, summary.kept) == (0, 2)


def test_other_options_are_refused_and_named(recording):
    root, _ = recording
    with pytest.raises(ValueError, match=r"other options \(camera 'workspace' -> 'corner3', noise 0.1 -> 0.0\)"):
        record_demonstrations(root, "drawer-open", 2, camera="corner3", noise=0.0, **SMALL)


def test_unsolved_episodes_are_replaced_and_listed(tmp_path):
    summary = record_demonstrations(
        tmp_path, "button-press-topdown", 1, noise=0.0, max_steps=62, settle_steps=0, num_workers=2, **SMALL
    )
    record = json.loads((tmp_path / "recording.json").read_text())
    failed = [failure["episode"] for failure in record["failures"]]
    kept = load_demonstrations(tmp_path)
    number = int(kept[0].id[-5:])
    assert len(kept) == 1 and kept[0].metadata["success"] and kept[0].num_frames <= 62
    assert failed == list(range(number)) and number > 0 and len(summary.failures) == number
    assert {failure["steps"] for failure in record["failures"]} == {62}


def test_expert_that_never_succeeds_is_told(tmp_path):
    with pytest.raises(
        ValueError, match=r"drawer-open: the expert did not solve enough of 13 episodes; raise max_steps"
    ):
        record_demonstrations(tmp_path, "drawer-open", 1, max_steps=3, num_workers=1, **SMALL)
    assert not json.loads((tmp_path / "recording.json").read_text())["finished"]


def test_failures_are_kept_on_demand(tmp_path):
    record_demonstrations(tmp_path, "drawer-open", 1, max_steps=3, only_successful=False, num_workers=1, **SMALL)
    (only,) = load_demonstrations(tmp_path)
    assert not only.metadata["success"] and only.num_frames == 3


def test_labels_are_the_experts_intention_or_what_was_executed():
    episodes = {}
    for labels in ("expert", "executed"):
        demonstrator = Demonstrator(
            noise=0.3, settle_steps=2, action_labels=labels, max_steps=200, image_size=16, camera="workspace"
        )
        episodes[labels] = demonstrator.record(Job("button-press-topdown/4", "button-press-topdown", 4, seed=4))
        demonstrator.close()
    expert, executed = episodes["expert"], episodes["executed"]
    np.testing.assert_array_equal(expert.agent_pos, executed.agent_pos)
    np.testing.assert_array_equal(expert.actions[:, 3], executed.actions[:, 3])
    free = np.abs(executed.actions[:, :3]) < 1
    noise = (executed.actions - expert.actions)[:, :3][free & (np.abs(expert.actions[:, :3]) < 0.3)]
    assert noise.std() == pytest.approx(0.3, rel=0.3)


def test_death_of_a_worker_names_task_and_seed_and_keeps_what_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "_WORKER", f"{__name__}:DyingDemonstrator")
    with pytest.raises(WorkerError, match=r"recorder 0 died \(signal SIGKILL\) at drawer-open, seed 1"):
        record_demonstrations(tmp_path, "drawer-open", 2, num_workers=1, max_steps=3, only_successful=False, **SMALL)
    assert len(load_demonstrations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tasks": "draw-open"}, "did you mean drawer-open"),
        ({"tasks": []}, "at least one task"),
        ({"episodes_per_task": 0}, "episodes_per_task must be at least 1"),
        ({"camera": "corner9"}, "corner9"),
        ({"camera": ("corner", "corner2")}, "one view"),
        ({"quality": "best"}, "best"),
        ({"image_size": 33}, "image_size must be even"),
        ({"noise": float("nan")}, "noise"),
        ({"seed": 100}, "seed of a recording"),
        ({"action_labels": "both"}, "action_labels"),
    ],
)
def test_bad_options_are_named_before_anything_is_recorded(tmp_path, options, named):
    arguments = {"tasks": "drawer-open", "episodes_per_task": 1, "progress": False, **options}
    with pytest.raises(ValueError, match=named):
        record_demonstrations(tmp_path, **arguments)
    assert not (tmp_path / "recording.json").exists()
