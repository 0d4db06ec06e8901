"""The record of a running evaluation: an interrupted one goes on, one with other settings is refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilam_hf.envs.workers import WorkerError
from hilam_hf.evaluation import EpisodeResult, Fault, RandomPolicy, evaluate
from hilam_hf.evaluation.rollouts.journal import JOURNAL_FILE, Journal, differences
from hilam_hf.locks import LOCK_FILE, FolderInUseError
from tests.evaluation.rollouts.test_scheduler import short_protocol
from tests.other_writers import writing

SETTINGS = {"protocol": {"name": "metaworld", "cameras": ("corner2",)}, "seeds": [1, 2]}


def episode(index: int, **changes: Any) -> EpisodeResult:
    return EpisodeResult(**{"task": "door-open", "index": index, "seed": 100 + index, **changes})


def test_journal_gives_back_what_it_was_given(tmp_path):
    fault = Fault(kind="died", message="environment died")
    given = [
        episode(0, success=True, steps=3, total_reward=0.1 + 0.2),
        episode(1, faults=(fault,), video="videos/a.mp4"),
    ]
    with Journal(tmp_path, SETTINGS) as journal:
        for item in given:
            journal.add(item)
    with Journal(tmp_path, SETTINGS) as journal:
        assert journal.finished == given


@pytest.mark.parametrize("torn", [b'{"task": "door-op', b'{"task": "door-op\n', b"\0\0\0\0"])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    with Journal(tmp_path, SETTINGS) as journal:
        journal.add(episode(0))
    path = tmp_path / JOURNAL_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with Journal(tmp_path, SETTINGS) as journal:
        assert journal.finished == [episode(0)]
        journal.add(episode(1))
    assert path.read_bytes().startswith(whole)
    with Journal(tmp_path, SETTINGS) as journal:
        assert journal.finished == [episode(0), episode(1)]


def test_a_torn_first_line_begins_anew(tmp_path):
    (tmp_path / JOURNAL_FILE).write_text('{"schema')
    with Journal(tmp_path, SETTINGS) as journal:
        assert journal.finished == []
    assert json.loads((tmp_path / JOURNAL_FILE).read_text())["seeds"] == [1, 2]


def test_damage_within_is_named(tmp_path):
    with Journal(tmp_path, SETTINGS) as journal:
        journal.add(episode(0))
    path = tmp_path / JOURNAL_FILE
    path.write_text(path.read_text().replace('{"task"', "{task") + '{"task": "x"}\n')
    with pytest.raises(ValueError, match=r"episodes\.jsonl, line 2: no JSON"):
        Journal(tmp_path, SETTINGS)


def test_other_settings_are_refused_and_named(tmp_path):
    Journal(tmp_path, SETTINGS).close()
    other = {"protocol": {"name": "metaworld", "cameras": ("corner2",), "seed": 3}, "seeds": [1]}
    with pytest.raises(ValueError, match=r"other settings: protocol.seed: null -> 3; seeds: \[1, 2\] -> \[1\]\."):
        Journal(tmp_path, other)
    with pytest.raises(ValueError, match="holds an evaluation; choose another folder, resume it, or overwrite it"):
        Journal(tmp_path, SETTINGS, resume=False)


def test_overwriting_removes_what_an_evaluation_left_and_nothing_else(tmp_path):
    with Journal(tmp_path, SETTINGS) as journal:
        journal.add(episode(0, video="videos/a.mp4"))
    (tmp_path / "videos").mkdir()
    for name in ("videos/a.mp4", "videos/mine.mp4", "results.json", "results.md"):
        (tmp_path / name).write_text('{"schema_version": 1}')
    with Journal(tmp_path, {"seeds": []}, overwrite=True) as journal:
        assert journal.finished == []
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [JOURNAL_FILE, "mine.mp4"]


def test_differences_name_nested_keys_and_shorten_long_values():
    first, second = {"a": {"b": 1, "c": [1]}, "d": "x" * 50}, {"a": {"b": 2, "c": [1]}, "e": None}
    assert differences(first, second, limit=5) == ["a.b: 1 -> 2", 'd: "xxxx... -> null']


class Interrupted(RandomPolicy):
    """Acts so many times, then the user stops the run."""

    def __init__(self, calls: int) -> None:
        super().__init__(seed=1)
        self.calls = calls

    def select_action(self, observation: Any, active: Any = None) -> np.ndarray:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return super().select_action(observation, active)


Interrupted.__name__ = RandomPolicy.__name__


def without_run(folder: Path) -> str:
    record = json.loads((folder / "results.json").read_text())
    del record["provenance"]["run"]
    return json.dumps(record)


def test_an_interrupted_evaluation_ends_as_if_it_had_not_been(tmp_path, fake_host):
    fake_host(faults={"door-open/1": {"kind": "die", "step": 1, "times": 1}})
    options: dict[str, Any] = {
        "tasks": ["door-open", "drawer-open"],
        "protocol": short_protocol(),
        "episodes": 3,
        "videos_per_task": 1,
        "progress": False,
    }
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    evaluate(RandomPolicy(seed=1), out_dir=whole, num_envs=2, **options)
    fake_host(faults={"door-open/1": {"kind": "die", "step": 1, "times": 1}})
    # Two simulators may answer together, in half as many calls as one after the other.
    for calls, num_envs in ((20, 1), (12, 2)):
        with pytest.raises(KeyboardInterrupt):
            evaluate(Interrupted(calls), out_dir=parts, num_envs=num_envs, **options)
    before = len((parts / JOURNAL_FILE).read_text().splitlines())
    assert 2 < before < 7 and not (parts / "results.json").exists()
    resumed = evaluate(RandomPolicy(seed=1), out_dir=parts, num_envs=2, **options)
    assert resumed.provenance["run"]["episodes_resumed"] == before - 1
    assert without_run(parts) == without_run(whole)
    assert (parts / "results.md").read_bytes() == (whole / "results.md").read_bytes()
    assert sorted(path.name for path in (parts / "videos").iterdir()) == sorted(
        path.name for path in (whole / "videos").iterdir()
    )
    # Nothing is left to do.
    again = evaluate(RandomPolicy(seed=1), out_dir=parts, **options)
    assert again.provenance == resumed.provenance and again.provenance["run"]["environment_steps"] > 0
    assert json.loads((parts / "results.json").read_text())["provenance"] == resumed.provenance
    assert without_run(parts) == without_run(whole)
    with pytest.raises(ValueError, match=r"other settings: provenance.policy.acting.seed: 1 -> 2; provenance.episodes"):
        evaluate(RandomPolicy(seed=2), out_dir=parts, **options | {"episodes": 2})
    assert len(evaluate(RandomPolicy(seed=2), out_dir=parts, overwrite=True, **options | {"episodes": 1}).episodes) == 2


@pytest.mark.parametrize("named", ["../precious.mp4", "{outside}", "linked/precious.mp4"])
def test_overwriting_deletes_nothing_outside_of_the_folder(tmp_path, named):
    """A stranger's journal names a file of the user's."""
    outside = tmp_path / "precious.mp4"
    outside.write_bytes(b"mine")
    folder = tmp_path / "results"
    with Journal(folder, SETTINGS) as journal:
        journal.add(episode(0, video="videos/a.mp4"))
        journal.add(episode(1, video=named.format(outside=outside)))
    (folder / "linked").symlink_to(tmp_path)
    (folder / "videos").mkdir()
    (folder / "videos" / "a.mp4").write_bytes(b"film")
    with pytest.raises(ValueError, match=r"episodes\.jsonl: names .*precious\.mp4', which lies outside of"):
        Journal(folder, SETTINGS, overwrite=True)
    assert outside.read_bytes() == b"mine"
    assert (folder / "videos" / "a.mp4").exists()


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("results.json", '{"accuracy": 0.9}'),
        ("results.json", "[1, 2]"),
        ("results.json", "half a fi"),
        ("results.md", "# My thesis"),
        ("episodes.jsonl", '{"episode": 1}\n{"episode": 2}'),
        ("episodes.jsonl", '{"episode": 1}'),
        ("episodes.jsonl", "not JSON\n"),
    ],
)
def test_a_users_file_of_an_evaluations_name_is_not_replaced(tmp_path, name, text, overwrite):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}: is not the .* of an evaluation and is not replaced"):
        Journal(tmp_path, SETTINGS, overwrite=overwrite)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, text)]


def test_results_without_their_journal_are_replaced_only_when_asked(tmp_path):
    (tmp_path / "results.json").write_text('{"schema_version": 2}')
    with pytest.raises(ValueError, match=r"holds results whose episodes\.jsonl is gone; choose another folder"):
        Journal(tmp_path, SETTINGS)
    Journal(tmp_path, SETTINGS, overwrite=True).close()
    assert not (tmp_path / "results.json").exists()


def test_a_damaged_journal_can_be_overwritten(tmp_path):
    with Journal(tmp_path, SETTINGS) as journal:
        journal.add(episode(0))
        journal.add(episode(1))
    path = tmp_path / JOURNAL_FILE
    path.write_text(path.read_text().replace('{"task"', "{task", 1))
    with Journal(tmp_path, SETTINGS, overwrite=True) as journal:
        assert journal.finished == []


def test_an_evaluation_of_faults_alone_is_an_error_and_leaves_marked_results(tmp_path, fake_host):
    fake_host(faults={"door-open/0": {"kind": "die", "step": 1}})
    options = {"protocol": short_protocol(), "episodes": 1, "progress": False, "out_dir": tmp_path}
    for _ in range(2):
        with pytest.raises(WorkerError, match=r"no episode of 1 came to its end.*overwriting"):
            evaluate(RandomPolicy(seed=1), ["door-open"], **options)
        record = json.loads((tmp_path / "results.json").read_text())
        assert (record["episodes"], record["episodes_completed"], len(record["faults"])) == (1, 0, 2)
        assert "No episode came to its end" in (tmp_path / "results.md").read_text()
    fake_host()
    assert evaluate(RandomPolicy(seed=1), ["door-open"], overwrite=True, **options).num_completed == 1


def test_a_second_evaluation_into_the_folder_is_refused(tmp_path, fake_host):
    """It comes with every action of the first one, and must change nothing of it."""
    options: dict[str, Any] = {"tasks": ["door-open"], "protocol": short_protocol(), "episodes": 2, "progress": False}
    refused = []

    class Meanwhile(RandomPolicy):
        def select_action(self, observation: Any, active: Any = None) -> np.ndarray:
            for overwrite in (False, True):
                with pytest.raises(FolderInUseError, match=rf"{tmp_path / 'a'} is in use by .* \(hilam eval"):
                    evaluate(RandomPolicy(seed=1), out_dir=tmp_path / "a", overwrite=overwrite, **options)
                refused.append(overwrite)
            return super().select_action(observation, active)

    Meanwhile.__name__ = RandomPolicy.__name__
    evaluate(RandomPolicy(seed=1), out_dir=tmp_path / "b", **options)
    evaluate(Meanwhile(seed=1), out_dir=tmp_path / "a", **options)
    assert refused and without_run(tmp_path / "a") == without_run(tmp_path / "b")
    assert (tmp_path / "a" / JOURNAL_FILE).read_bytes() == (tmp_path / "b" / JOURNAL_FILE).read_bytes()
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in "ab"]
    assert names[0] == names[1] == [JOURNAL_FILE, "results.json", "results.md", "videos"]


def test_an_evaluation_goes_on_after_one_that_was_killed(tmp_path, fake_host):
    options: dict[str, Any] = {"tasks": ["door-open"], "protocol": short_protocol(), "episodes": 6, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        evaluate(Interrupted(20), out_dir=tmp_path / "a", num_envs=1, **options)
    finished = len((tmp_path / "a" / JOURNAL_FILE).read_text().splitlines()) - 1
    with writing("lock = FolderLock(sys.argv[1], 'hilam eval')\nlock.acquire()", tmp_path / "a") as process:
        with pytest.raises(FolderInUseError, match=rf"process {process.pid} on"):
            evaluate(RandomPolicy(seed=1), out_dir=tmp_path / "a", **options)
        process.send_signal(signal.SIGKILL)
        process.wait()
    resumed = evaluate(RandomPolicy(seed=1), out_dir=tmp_path / "a", **options)
    assert resumed.provenance["run"]["episodes_resumed"] == finished > 0 and len(resumed.episodes) == 6
    assert not (tmp_path / "a" / LOCK_FILE).exists()
