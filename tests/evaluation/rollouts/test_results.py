"""Records of results: rates over what was counted, faults beside them, tables for people."""

from __future__ import annotations

import json

import pytest

from hilam_hf.envs.registry import get_protocol
from hilam_hf.evaluation import EpisodeResult, EvaluationResult, Fault, load_results

DIED = Fault(kind="died", message="environment died at libero_goal/1, initial state 3")


def result() -> EvaluationResult:
    episodes = (
        EpisodeResult(task="libero_goal/0", index=0, seed=7, initial_state=0, instruction="open it", success=True),
        EpisodeResult(task="libero_goal/0", index=1, seed=8, initial_state=1, instruction="open it", faults=(DIED,)),
        EpisodeResult(task="libero_goal/1", index=0, seed=7, initial_state=0, faults=(DIED, DIED), completed=False),
    )
    provenance = {"policy": {"class": "BakuPolicy", "name": "org/policy"}, "quality": "exact", "run": {}}
    return EvaluationResult(episodes=episodes, protocol=get_protocol("openvla").to_dict(), provenance=provenance)


def test_spoilt_episodes_count_as_failed_and_are_listed():
    record = result().to_dict()
    assert (record["success_rate"], record["successes"], record["episodes"]) == (pytest.approx(1 / 3), 1, 3)
    assert [episode["attempts"] for episode in record["episode_results"]] == [1, 2, 2]
    assert [(f["task"], f["index"], f["attempt"], f["counted_as_failed"]) for f in record["faults"]] == [
        ("libero_goal/0", 1, 1, False),
        ("libero_goal/1", 0, 1, True),
        ("libero_goal/1", 0, 2, True),
    ]
    assert set(record["episode_results"][0]) == {
        *("task", "index", "seed", "initial_state", "success", "steps", "total_reward", "video", "attempts")
    }


def test_saved_results_are_read_again(tmp_path):
    result().save(tmp_path)
    record = load_results(tmp_path)
    assert record == load_results(tmp_path / "results.json") == json.loads(json.dumps(result().to_dict()))
    assert record["protocol"]["name"] == "openvla" and record["tasks"]["libero_goal/0"]["instruction"] == "open it"
    table = (tmp_path / "results.md").read_text()
    assert "| libero_goal/0 | open it | 50.0 % | 1/2 | 9.5-90.5 % |" in table
    assert "The simulator spoilt 3 attempts:" in table and "- died: environment died at libero_goal/1" in table


def test_a_table_holds_no_html_of_instructions(tmp_path):
    hostile = EpisodeResult(task="a", index=0, seed=1, instruction="<script>x</script> | 100 %")
    protocol, provenance = {"name": "p", "source": "s"}, {"policy": {"name": "q"}, "quality": "fast"}
    table = EvaluationResult(episodes=(hostile,), protocol=protocol, provenance=provenance).to_markdown()
    assert "| a | &lt;script&gt;x&lt;/script&gt; \\| 100 % | 0.0 % | 0/1 |" in table
