"""The recorder of every simulator, on the toy one: what it writes, resumes, replaces and refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hilam_hf.data import load_demonstrations, scan_videos
from hilam_hf.envs import WorkerError
from hilam_hf.envs.registry import register_simulator, unregister_simulator
from hilam_hf.locks import LOCK_FILE, FolderInUseError
from hilam_hf.recording import record, recorder
from hilam_hf.recording.output import Output
from tests.envs.toy_simulator import GOALS, TOY, ToyDemonstrator
from tests.helpers import ROOT
from tests.other_writers import run_python


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    register_simulator(TOY)
    yield
    unregister_simulator("toy")


def _record(root, episodes=2, tasks=("left", "right"), **options):
    return record(root, "toy", tasks, episodes, **{"image_size": 32, "progress": False, **options})


class HalfBlindDemonstrator(ToyDemonstrator):
    """Solves no episode with an even number."""

    def record(self, spec):
        return replace(super().record(spec), success=spec.index % 2 == 1)


class HopelessDemonstrator(ToyDemonstrator):
    """Solves nothing."""

    def record(self, spec):
        return replace(super().record(spec), success=False)


class OnceDyingDemonstrator(ToyDemonstrator):
    """Dies at one seed, the first time."""

    def record(self, spec):
        mark = Path(os.environ["TEST_MARK"])
        if spec.seed == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().record(spec)


class DyingDemonstrator(ToyDemonstrator):
    """Dies at one seed."""

    def record(self, spec):
        if spec.seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().record(spec)


class UnevenDemonstrator(HalfBlindDemonstrator):
    """Takes long for the first episodes of the first task, and does not solve those with even numbers."""

    def record(self, spec):
        time.sleep(0.6 if spec.task == "left" and spec.index < 2 else 0)
        return super().record(spec)


@pytest.fixture
def demonstrator(monkeypatch):
    def choose(kind):
        monkeypatch.setattr(TOY, "recording", replace(TOY.recording, demonstrator=f"{__name__}:{kind.__name__}"))

    return choose


def test_demonstrations_lead_to_the_goal(tmp_path):
    summary = _record(tmp_path)
    assert (summary.recorded, summary.kept, summary.failures) == (4, 0, ())
    rows = load_demonstrations(tmp_path)
    assert [row.id for row in rows] == [f"{task}/episode_{n:05d}" for task in GOALS for n in (0, 1)]
    assert summary.frames == sum(row.num_frames for row in rows)
    for row in rows:
        last = row.agent_pos[-1, :2] + 0.1 * row.actions[-1]
        assert np.linalg.norm(last - GOALS[row.task]) < 0.1 and row.language == f"go {row.task}"
        # The point, in red and blue, is where proprioception says.
        picture = row.frames("above", [0])[0]
        centre = [float(axis.float().mean()) for axis in (picture[0] > 128).nonzero(as_tuple=True)]
        np.testing.assert_allclose(centre[::-1], 15.5 * (row.agent_pos[0, :2] + 1), atol=1)
    assert len(scan_videos(tmp_path / "videos", progress=False).episodes) == 4
    told = json.loads((tmp_path / "recording.json").read_text())
    assert (told["simulator"], told["toy"], told["finished"]) == ("toy", "1.0", True)
    assert told["settings"]["protocol"]["name"] == "toy" and told["settings"]["noise"] == 0.1
    assert rows[0].metadata["metadata"]["toy"] == "1.0"


def test_interrupted_recording_goes_on_and_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    parts = [_record(tmp_path / "a", 1, "left", num_workers=1), _record(tmp_path / "a", 3), _record(tmp_path / "b", 3)]
    assert [(part.recorded, part.kept) for part in parts] == [(1, 0), (5, 1), (6, 0)]
    for one, other in zip(*(load_demonstrations(tmp_path / name) for name in "ab"), strict=True):
        assert one.id == other.id
        np.testing.assert_array_equal(one.actions, other.actions)
    monkeypatch.setattr("hilam_hf.envs.pool.Worker", None)
    assert _record(tmp_path / "a", 3).kept == 6


def test_other_options_are_refused_and_named(tmp_path):
    _record(tmp_path, 1)
    with pytest.raises(ValueError, match=r"other options \(seed 0 -> 1, noise 0.1 -> 0.2\); repeat them"):
        _record(tmp_path, 1, noise=0.2, seed=1)
    with pytest.raises(ValueError, match=r"other options \(protocol .*, only_successful True -> False\)"):
        _record(tmp_path, 1, only_successful=False, image_size=16)


def test_unsolved_episodes_are_replaced_and_listed(tmp_path, demonstrator):
    demonstrator(HalfBlindDemonstrator)
    summary = _record(tmp_path, 2, "left")
    assert [row.id[-1] for row in load_demonstrations(tmp_path)] == ["1", "3"]
    assert [failure["episode"] for failure in summary.failures] == [0, 2]
    failure = json.loads((tmp_path / "recording.json").read_text())["failures"][1]
    assert list(failure) == ["id", "task", "episode", "seed", "initial_state", "steps"]
    assert (failure["id"], failure["seed"]) == ("left/episode_00002", 2)
    # What is known to fail is not tried again.
    assert [failure["episode"] for failure in _record(tmp_path, 3, "left").failures] == [0, 2, 4]


def test_expert_that_never_succeeds_is_told(tmp_path, demonstrator):
    demonstrator(HopelessDemonstrator)
    with pytest.raises(ValueError, match="left: the expert did not solve enough of 13 episodes; choose easier tasks"):
        _record(tmp_path, 1, "left", num_workers=1)
    told = json.loads((tmp_path / "recording.json").read_text())
    assert not told["finished"] and len(told["failures"]) == 13


def test_failures_are_kept_on_demand(tmp_path, demonstrator):
    demonstrator(HalfBlindDemonstrator)
    _record(tmp_path, 3, "left", only_successful=False)
    assert [row.metadata["success"] for row in load_demonstrations(tmp_path)] == [False, True, False]


def test_a_simulator_that_dies_is_replaced_once(tmp_path, demonstrator, monkeypatch, caplog):
    monkeypatch.setenv("TEST_MARK", str(tmp_path / "died"))
    demonstrator(OnceDyingDemonstrator)
    assert _record(tmp_path / "a", 2, "left", num_workers=1).recorded == 2
    assert (tmp_path / "died").exists() and "attempt 1: recorder died (signal SIGKILL) at left, seed 1" in caplog.text
    demonstrator(ToyDemonstrator)
    _record(tmp_path / "b", 2, "left", num_workers=1)
    for one, other in zip(*(load_demonstrations(tmp_path / name) for name in "ab"), strict=True):
        assert one.id == other.id
        np.testing.assert_array_equal(one.actions, other.actions)


def _files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def held(monkeypatch):
    """How many finished episodes were held back, after each that came."""
    counts, write = [], recorder._Run._write_held

    def count_and_write(run, bar):
        counts.append(len(run._held))
        write(run, bar)

    monkeypatch.setattr(recorder._Run, "_write_held", count_and_write)
    return counts


def test_files_are_the_same_whoever_ends_first(tmp_path, demonstrator, held):
    """Order of lines and every byte, with one worker and with three of different speed."""
    demonstrator(UnevenDemonstrator)
    _record(tmp_path / "alone", 3, num_workers=1)
    assert max(held) == 1
    _record(tmp_path / "together", 3, num_workers=3)
    assert max(held) > 1
    lines = (tmp_path / "together" / "videos" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["file_name"] for line in lines] == [
        f"{task}/episode_0000{number}.mp4" for task in ("left", "right") for number in (1, 3, 5)
    ]
    assert _files(tmp_path / "together") == _files(tmp_path / "alone")


def test_few_episodes_are_held_back_in_memory(tmp_path, demonstrator, held):
    """While the first episodes take long, the third worker could end all the others."""
    demonstrator(UnevenDemonstrator)
    _record(tmp_path, 10, num_workers=3, only_successful=False)
    assert len(load_demonstrations(tmp_path)) == 20
    # Two for each worker, and what the others end after that.
    assert 6 <= max(held) <= 8


def test_death_of_a_worker_names_task_and_seed_and_keeps_what_is_done(tmp_path, demonstrator):
    demonstrator(DyingDemonstrator)
    with pytest.raises(WorkerError, match=r"recorder died \(signal SIGKILL\) at left, seed 1"):
        _record(tmp_path, 2, "left", num_workers=1)
    assert len(load_demonstrations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tasks": "up"}, "unknown toy task 'up'"),
        ({"episodes": 0}, "episodes_per_task must be at least 1"),
        ({"num_workers": 0}, "num_workers must be at least 1"),
        ({"image_size": 33}, "image_size must be even"),
        ({"image_size": 0}, "image_size must be at least 2"),
        ({"quality": "best"}, "render quality must be one of"),
        ({"seed": 100}, "seed of a recording"),
        ({"formats": ["zarr"]}, r"formats: got \['zarr'\], expected some of .*videos"),
        ({"formats": []}, r"formats: got \[\]"),
        ({"speed": 2}, "toy's recordings have no speed; they have noise"),
        ({"assets": "folder"}, "toy takes none; got folder"),
        ({"initial_states": [0]}, "has none of its own, got 0"),
        ({"protocol": "openvla"}, "toy has no protocol 'openvla'"),
    ],
)
def test_bad_options_are_named_before_anything_is_written(tmp_path, options, named):
    with pytest.raises(ValueError, match=named):
        _record(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_simulators_without_experts_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(TOY, "recording", None)
    with pytest.raises(ValueError, match="toy has no scripted experts"):
        _record(tmp_path)


def test_a_second_recording_into_the_folder_is_refused(tmp_path, monkeypatch):
    """It comes while the first one writes an episode, and must change nothing of it."""
    add, refused = Output.add, []

    def add_meanwhile(output, demonstration):
        with pytest.raises(FolderInUseError, match=rf"{re.escape(str(tmp_path / 'a'))} is in use by .*hilam record"):
            _record(tmp_path / "a")
        refused.append(demonstration.id)
        add(output, demonstration)

    _record(tmp_path / "b")
    monkeypatch.setattr(Output, "add", add_meanwhile)
    _record(tmp_path / "a")
    assert len(refused) == 4 and _files(tmp_path / "a") == _files(tmp_path / "b")


def test_a_recording_goes_on_after_one_that_was_killed(tmp_path):
    program = """
        from hilam_hf.recording import record
        from hilam_hf.recording.output import Output
        from hilam_hf.envs.registry import register_simulator
        from tests.envs.toy_simulator import TOY
        register_simulator(TOY)
        add, added = Output.add, []
        def die_at_the_second(output, demonstration):
            if added:
                os.kill(os.getpid(), signal.SIGKILL)
            added.append(add(output, demonstration))
        Output.add = die_at_the_second
        record(sys.argv[1], "toy", ("left", "right"), 2, image_size=32, progress=False)
    """
    run_python(program, tmp_path / "a", code=-signal.SIGKILL)
    assert (tmp_path / "a" / LOCK_FILE).exists()
    assert [_record(tmp_path / name).recorded for name in "ab"] == [3, 4]
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
