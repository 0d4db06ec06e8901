"""`recording.json`: what a recording that goes on must have again, and what recordings of before tell."""

from __future__ import annotations

import json

import pytest

from hilam_hf.envs import EpisodeSpec
from hilam_hf.recording.log import RecordingLog

SETTINGS = {"formats": ["hdf5"], "initial_states": None, "seed": 0, "only_successful": True, "noise": 0.1}


def test_failures_are_kept_and_sorted(tmp_path):
    log = RecordingLog(tmp_path, SETTINGS, {"simulator": "toy"})
    log.tasks["left"] = 2
    log.add_failure("left/seed_5", EpisodeSpec("left", 5, 105), 30)
    log.add_failure("left/init_001_seed_3", EpisodeSpec("left", 3, 103, 1), 20)
    again = RecordingLog(tmp_path, SETTINGS, {"simulator": "toy"})
    assert [failure["episode"] for failure in again.failures] == [3, 5] and again.tasks == {"left": 2}
    assert again.failures[0] == {
        "id": "left/init_001_seed_3",
        "task": "left",
        "episode": 3,
        "seed": 103,
        "initial_state": 1,
        "steps": 20,
    }
    assert again.failed(EpisodeSpec("left", 5, 0)) and not again.failed(EpisodeSpec("right", 5, 0))


def test_settings_that_older_recordings_do_not_tell_are_those_that_they_had(tmp_path):
    before = {"suite": "libero_goal", "formats": ["hdf5"], "initial_states": None, "seed": 0, "noise": 0.1}
    record = {"settings": before, "tasks": {}, "failures": []}
    (tmp_path / "recording.json").write_text(json.dumps(record))
    RecordingLog(tmp_path, SETTINGS, {}).save()
    assert json.loads((tmp_path / "recording.json").read_text())["settings"] == SETTINGS | {"suite": "libero_goal"}
    with pytest.raises(ValueError, match=r"other options \(only_successful True -> False\); repeat them"):
        RecordingLog(tmp_path, SETTINGS | {"only_successful": False}, {})
    with pytest.raises(ValueError, match=r"other options \(seed 0 -> 1, noise 0.1 -> 0.2\)"):
        RecordingLog(tmp_path, SETTINGS | {"noise": 0.2, "seed": 1}, {})
