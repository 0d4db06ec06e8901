"""Recordings of Meta-World: what they hold, that they go on where they stopped, that unsolved episodes are replaced."""

import json
import os
import signal
from dataclasses import replace
from itertools import groupby

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hilam_hf.data import demonstration_phases, load_demonstrations, scan_videos
from hilam_hf.envs import EpisodeSpec, WorkerError
from hilam_hf.envs.metaworld.declaration import METAWORLD
from hilam_hf.envs.metaworld.demonstrator import MetaWorldDemonstrator
from hilam_hf.metaworld_conventions import SAWYER
from hilam_hf.recording import recorder
from tests.helpers import ROOT

pytestmark = pytest.mark.sim
SMALL = {"image_size": 32, "progress": False}
WORKSPACE = METAWORLD.protocol().with_options(cameras=("workspace",))


def record(root, tasks, episodes_per_task, *, max_steps=200, **options):
    protocol = options.pop("protocol", METAWORLD.protocol().with_options(max_steps={"": max_steps}))
    return recorder.record(root, "metaworld", tasks, episodes_per_task, protocol=protocol, **SMALL | options)


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)


class DyingDemonstrator(MetaWorldDemonstrator):
    """Dies at one seed."""

    def record(self, spec):
        if spec.seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().record(spec)


def _files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".mp4", ".parquet")}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    root = tmp_path_factory.mktemp("recording")
    summary = record(root, ["button-press-topdown-v3", "drawer-open"], 2, protocol=WORKSPACE, num_workers=2)
    return root, summary


def test_videos_and_actions_are_kept_apart(recording):
    root, summary = recording
    assert (summary.recorded, summary.kept, summary.failures) == (4, 0, ())
    videos = scan_videos(root / "videos", progress=False)
    assert [video.language for video in videos.episodes] == ["press the button from above"] * 2 + [
        "open the drawer"
    ] * 2
    assert not {"actions", "agent_pos"} & set().union(*(video.metadata for video in videos.episodes))
    rows = load_demonstrations(root)
    assert rows.cameras == ("workspace",) and rows[0].robot == SAWYER
    assert [row.num_frames for row in rows] == [video.num_frames for video in videos.episodes]
    assert summary.frames == sum(video.num_frames for video in videos.episodes)
    assert {video.fps for video in videos.episodes} == {80.0} and {video.height for video in videos.episodes} == {32}


def test_actions_move_the_end_effector_of_the_next_row(recording):
    root, _ = recording
    for row in load_demonstrations(root):
        actions, positions = row.actions, row.agent_pos[:, :3]
        assert row.metadata["success"] and len(actions) == len(positions) == row.num_frames
        np.testing.assert_array_equal(positions, row.proprioception["ee_positions"])
        moved = np.diff(positions, axis=0)
        # The hand lags behind its target by a few steps; over the episode displacement follows the action.
        lagged = [np.corrcoef(actions[: len(moved) - lag, 2], moved[lag:, 2])[0, 1] for lag in range(6)]
        assert max(lagged) > 0.7


def test_every_frame_has_its_phase(recording):
    root, _ = recording
    # Smoothing takes out what noise does at a threshold.
    for name, phases in demonstration_phases(load_demonstrations(root), min_length=3).items():
        expected = ["approach", "descend", "pull"] if name.startswith("drawer") else ["approach", "press"]
        assert [phase for phase, _ in groupby(phases)] == expected
    for row in load_demonstrations(root):
        assert len(row.phases) == row.num_frames
        if row.task == "drawer-open":
            hand = row.proprioception["ee_positions"]
            down, pulled = (hand[np.array(row.phases) == phase] for phase in ("descend", "pull"))
            assert down[0, 2] - down[-1, 2] > 0.1 and pulled[0, 1] - pulled[-1, 1] > 0.1
    lines = (root / "videos" / "metadata.jsonl").read_text()
    assert "phase" not in lines and "approach" not in lines


def test_record_of_how_it_was_made(recording):
    root, _ = recording
    told = json.loads((root / "recording.json").read_text())
    assert told["finished"] and told["tasks"] == {"button-press-topdown": 2, "drawer-open": 2}
    assert told["settings"]["camera"] == "workspace" and told["settings"]["noise"] == 0.1
    assert told["settings"]["quality"] == told["renderer"]["quality"] == "fast"
    assert told["renderer"]["backend"] in ("egl", "osmesa")
    assert told["mujoco"] == told["renderer"]["mujoco"] and told["metaworld"]


def test_interrupted_recording_goes_on_and_equals_an_uninterrupted_one(recording, tmp_path):
    root, _ = recording
    first = record(tmp_path, "drawer-open", 1, protocol=WORKSPACE, num_workers=1)
    there = _files(tmp_path)
    summary = record(tmp_path, ["drawer-open"], 2, protocol=WORKSPACE, num_workers=2)
    assert (first.recorded, summary.recorded, summary.kept) == (1, 1, 1)
    assert there.items() <= _files(tmp_path).items()
    expected = load_demonstrations(root, tasks="drawer-open")
    for again, one in zip(load_demonstrations(tmp_path), expected, strict=True):
        rows = [pq.read_table(folder / "demonstrations" / f"{one.id}.parquet") for folder in (tmp_path, root)]
        assert again.id == one.id and rows[0].equals(rows[1])
        first, second = (each.frames("workspace").float() for each in (again, one))
        assert torch.equal(first, second)
        assert (first - second[:1]).abs().mean() > 0.5


def test_finished_recording_starts_no_worker(recording, monkeypatch):
    root, _ = recording
    monkeypatch.setattr("hilam_hf.envs.pool.Worker", None)
    summary = record(root, "drawer-open", 2, protocol=WORKSPACE)
    assert (summary.recorded, summary.kept) == (0, 2)


def test_other_options_are_refused_and_named(recording):
    root, _ = recording
    with pytest.raises(ValueError, match=r"other options \(camera 'workspace' -> 'corner3', noise 0.1 -> 0.0\)"):
        record(root, "drawer-open", 2, protocol=WORKSPACE.with_options(cameras=("corner3",)), noise=0.0)


def test_unsolved_episodes_are_replaced_and_listed(tmp_path):
    summary = record(tmp_path, "button-press-topdown", 1, noise=0.0, max_steps=62, settle_steps=0, num_workers=2)
    told = json.loads((tmp_path / "recording.json").read_text())
    failed = [failure["episode"] for failure in told["failures"]]
    kept = load_demonstrations(tmp_path)
    number = int(kept[0].id[-5:])
    assert len(kept) == 1 and kept[0].metadata["success"] and kept[0].num_frames <= 62
    assert failed == list(range(number)) and number > 0 and len(summary.failures) == number
    assert {failure["steps"] for failure in told["failures"]} == {62}


def test_expert_that_never_succeeds_is_told(tmp_path):
    with pytest.raises(
        ValueError, match=r"drawer-open: the expert did not solve enough of 13 episodes; raise the protocol's max_steps"
    ):
        record(tmp_path, "drawer-open", 1, max_steps=3, num_workers=1)
    assert not json.loads((tmp_path / "recording.json").read_text())["finished"]


def test_failures_are_kept_on_demand(tmp_path):
    record(tmp_path, "drawer-open", 1, max_steps=3, only_successful=False, num_workers=1)
    (row,) = load_demonstrations(tmp_path)
    assert not row.metadata["success"] and row.num_frames == 3


def test_labels_are_the_experts_intention_or_what_was_executed():
    episodes = {}
    for labels in ("expert", "executed"):
        demonstrator = MetaWorldDemonstrator(
            protocol=replace(WORKSPACE, image_size=16), quality="fast", noise=0.3, settle_steps=2, action_labels=labels
        )
        episodes[labels] = demonstrator.record(EpisodeSpec("button-press-topdown", 4, seed=4))
        demonstrator.close()
    expert, executed = episodes["expert"], episodes["executed"]
    for part in ("ee_positions", "gripper_openings"):
        np.testing.assert_array_equal(expert.proprioception[part], executed.proprioception[part])
    np.testing.assert_array_equal(expert.actions[:, 3], executed.actions[:, 3])
    free = np.abs(executed.actions[:, :3]) < 1
    noise = (executed.actions - expert.actions)[:, :3][free & (np.abs(expert.actions[:, :3]) < 0.3)]
    assert noise.std() == pytest.approx(0.3, rel=0.3)


def test_death_of_a_worker_names_task_and_seed_and_keeps_what_is_done(tmp_path, monkeypatch):
    dying = replace(METAWORLD.recording, demonstrator=f"{__name__}:DyingDemonstrator")
    monkeypatch.setattr(METAWORLD, "recording", dying)
    with pytest.raises(WorkerError, match=r"recorder died \(signal SIGKILL\) at drawer-open, seed 1"):
        record(tmp_path, "drawer-open", 2, num_workers=1, max_steps=3, only_successful=False)
    assert len(load_demonstrations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tasks": "draw-open"}, "did you mean drawer-open"),
        ({"tasks": []}, "at least one task"),
        ({"episodes_per_task": 0}, "episodes_per_task must be at least 1"),
        ({"protocol": WORKSPACE.with_options(cameras=("corner9",))}, "corner9"),
        ({"protocol": "openvla"}, "Meta-World has no protocol 'openvla'"),
        ({"settle_steps": -1}, "settle_steps must be at least 0"),
        ({"hold_steps": 5}, "recordings have no hold_steps; they have noise, settle_steps, action_labels"),
        ({"initial_states": [0]}, "draws initial states by seeds and has none of its own"),
        ({"quality": "best"}, "best"),
        ({"image_size": 33}, "image_size must be even"),
        ({"noise": float("nan")}, "noise"),
        ({"seed": 100}, "seed of a recording"),
        ({"action_labels": "both"}, "action_labels"),
    ],
)
def test_bad_options_are_named_before_anything_is_recorded(tmp_path, options, named):
    with pytest.raises(ValueError, match=named):
        record(tmp_path, **{"tasks": "drawer-open", "episodes_per_task": 1, **options})
    assert not (tmp_path / "recording.json").exists()


def test_recording_from_before_protocols_were_told_goes_on(recording, tmp_path):
    """What `recording.json` held when Meta-World's recorder was one of its own."""
    settings = {"seed": 0, "camera": "workspace", "image_size": 32, "quality": "fast", "max_steps": 200, "noise": 0.1}
    settings |= {"settle_steps": 5, "action_labels": "expert", "only_successful": True}
    before = {"simulator": "metaworld", "settings": settings, "tasks": {"drawer-open": 0}, "finished": False}
    failure = {"id": "drawer-open/episode_00000", "task": "drawer-open", "episode": 0, "seed": 0, "initial_state": None}
    before["failures"] = [{**failure, "steps": 200}]
    (tmp_path / "recording.json").write_text(json.dumps(before))
    assert record(tmp_path, "drawer-open", 1, protocol=WORKSPACE, num_workers=1).recorded == 1
    (row,) = load_demonstrations(tmp_path)
    assert row.id == "drawer-open/episode_00001"
    np.testing.assert_array_equal(row.actions, load_demonstrations(recording[0], tasks="drawer-open")[1].actions)
