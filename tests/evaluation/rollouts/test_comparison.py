"""Two evaluations compared: which episodes are pairs, what the figures are, what is warned of."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from hilam_hf.envs.registry import get_protocol
from hilam_hf.evaluation import EpisodeResult, EvaluationResult, compare
from hilam_hf.evaluation.rollouts.results import Fault

PROVENANCE: dict[str, Any] = {
    "policy": {"class": "BakuPolicy", "name": "flat"},
    "quality": "exact",
    "tasks": ["libero_goal/0"],
    "simulator": {"mujoco": "3.3.0", "assets_fingerprint": "abc"},
    "run": {"seconds": 1.0},
}


def save(folder: Path, outcomes: dict[tuple[str, int], bool], **changes: Any) -> Path:
    """Results in which each (task, initial state) was solved or not."""
    episodes = tuple(
        EpisodeResult(task=task, index=state, seed=7 + state, initial_state=state, success=success)
        for (task, state), success in outcomes.items()
    )
    provenance = copy.deepcopy(PROVENANCE) | changes.pop("provenance", {})
    protocol = get_protocol("openvla").with_options(**changes)
    EvaluationResult(episodes=episodes, protocol=protocol.to_dict(), provenance=provenance).save(folder)
    return folder


def outcomes(task: str, text: str) -> dict[tuple[str, int], bool]:
    return {(task, state): letter == "x" for state, letter in enumerate(text)}


def test_episodes_are_paired_by_task_initial_state_and_seed(tmp_path):
    a = save(tmp_path / "a", outcomes("libero_goal/0", "xxx..") | outcomes("libero_goal/1", "x...x"))
    second = outcomes("libero_goal/1", ".xxx.") | outcomes("libero_goal/0", "xx.x")
    b = save(tmp_path / "b", second | outcomes("libero_goal/2", "xx"), provenance={"policy": {"class": "Hierarchical"}})
    result = compare(a, b / "results.json")
    # Task 0: xxx. with xx.x; task 1: x...x with .xxx.
    assert (result.tasks["libero_goal/0"].both, result.tasks["libero_goal/0"].only_a) == (2, 1)
    assert (result.tasks["libero_goal/0"].only_b, result.tasks["libero_goal/0"].neither) == (1, 0)
    assert (result.counts.both, result.counts.only_a, result.counts.only_b, result.counts.neither) == (2, 3, 4, 0)
    assert result.difference == pytest.approx(1 / 9)
    # Seven discordant pairs: twice the chance of at most three heads in seven tosses, which is 1.
    assert result.p_value == 1.0
    assert (result.unpaired_first, result.unpaired_second) == (1, 2)
    assert result.warnings[:2] == (
        "1 episodes of a have no partner in the other and are left out",
        "2 episodes of b have no partner in the other and are left out",
    )
    table = str(result)
    assert "a: flat" in table and "b: Hierarchical" in table and "+11.1" in table
    record = json.loads(json.dumps(result.to_dict()))
    assert record["tasks"]["libero_goal/1"]["difference"] == pytest.approx(1 / 5)
    assert record["success_rates"] == pytest.approx([5 / 9, 6 / 9])


def test_an_evaluation_compared_with_itself_differs_in_nothing(tmp_path):
    a = save(tmp_path / "a", outcomes("libero_goal/0", "xx.x"))
    result = compare(a, a)
    assert result.difference == 0 and result.p_value == 1 and result.warnings == ()
    assert result.interval[0] < 0 < result.interval[1]


def test_what_else_differs_is_warned_of(tmp_path):
    a = save(tmp_path / "a", outcomes("libero_goal/0", "xx.x"))
    simulator = {"mujoco": "3.3.7", "assets_fingerprint": "def"}
    changes = {"policy": {"class": "BakuPolicy", "name": "other"}, "quality": "fast", "simulator": simulator}
    b = save(tmp_path / "b", outcomes("libero_goal/0", "xx.x"), provenance=changes, image_transform="none")
    warnings = compare(a, b).warnings
    for text in (
        'differs: protocol.name: "openvla" -> "openvla+image_transform"',
        'differs: protocol.image_transform: "rotate_180" -> "none"',
        'differs: quality: "exact" -> "fast"',
        'differs: simulator.mujoco: "3.3.0" -> "3.3.7"',
        'differs: simulator.assets_fingerprint: "abc" -> "def"',
    ):
        assert text in warnings
    assert len(warnings) == 6 and "light scenes differently" in warnings[-1]


def test_failures_of_the_simulator_are_warned_of(tmp_path):
    folder = save(tmp_path / "a", outcomes("libero_goal/0", "xx"))
    fault = Fault(kind="died", message="environment died")
    spoilt = EpisodeResult(task="libero_goal/0", index=0, seed=7, initial_state=0, completed=False, faults=(fault,))
    protocol = get_protocol("openvla").to_dict()
    EvaluationResult(episodes=(spoilt,), protocol=protocol, provenance=PROVENANCE).save(tmp_path / "b")
    assert "faults of the simulator in b count as failures" in compare(folder, tmp_path / "b").warnings


def test_what_cannot_be_compared_is_refused(tmp_path):
    a = save(tmp_path / "a", outcomes("libero_goal/0", "xx"))
    b = save(tmp_path / "b", outcomes("libero_goal/1", "xx"))
    with pytest.raises(ValueError, match="share no episode"):
        compare(a, b)
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such file"):
        compare(a, tmp_path / "nowhere")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json: no JSON"):
        compare(tmp_path / "bad.json", a)
    (tmp_path / "old.json").write_text('{"success_rate": 1}')
    with pytest.raises(ValueError, match="schema_version 2, got None"):
        compare(tmp_path / "old.json", a)
