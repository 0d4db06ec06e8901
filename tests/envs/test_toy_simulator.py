"""A new simulator is its own file: known by its name alone, it is recorded, learnt from and evaluated in."""

from __future__ import annotations

import json
import os

import pytest
import torch

from hilam_hf.envs.registry import register_simulator, unregister_simulator
from hilam_hf.evaluation import ExpertPolicy, RandomPolicy, evaluate
from hilam_hf.models.hierarchical import HierarchicalPolicy, HierarchicalPolicyConfig
from hilam_hf.recording import record
from hilam_hf.training.policy.runs import finetune_on_demonstrations
from hilam_hf.training.policy.train import FinetuningConfig
from hilam_hf.video import check_video
from tests.cli.test_cli import run
from tests.envs.toy_simulator import TOY
from tests.helpers import ROOT

TRUNK = {
    "cameras": ["above"],
    "image_size": 32,
    "vision_widths": [8, 8],
    "vision_groups": 2,
    "num_keypoints": 4,
    "token_dim": 16,
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
}


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    register_simulator(TOY)
    yield
    unregister_simulator("toy")


def _pretrained(folder):
    policy = HierarchicalPolicy(
        HierarchicalPolicyConfig(high_config=dict(TRUNK), low_config=dict(TRUNK), skill_dim=3, latent_dim=4)
    )
    policy.set_statistics(skills=(torch.zeros(3), torch.ones(3)), latent_actions=(torch.zeros(4), torch.ones(4)))
    policy.save_pretrained(folder)
    return folder


def test_a_policy_learns_and_acts_in_it(tmp_path):
    recording = tmp_path / "recording"
    assert record(recording, "toy", ["left", "right"], 2, image_size=32, progress=False).recorded == 4
    pretrained = _pretrained(tmp_path / "pretrained")
    options = FinetuningConfig(max_steps=2, global_batch_size=2)
    finetune_on_demonstrations(str(pretrained), recording, options, output_dir=tmp_path / "tuned", chunk_size=3)
    policy = HierarchicalPolicy.from_pretrained(tmp_path / "tuned" / "policy").eval()
    spec = policy.acting_spec
    assert (spec.action_dim, spec.agent_pos_dim, spec.cameras) == (2, 3, ("above",))
    out = tmp_path / "results"
    result = evaluate(policy, ["left", "right"], protocol="toy", episodes=1, out_dir=out, progress=False)
    assert [(episode.task, episode.instruction) for episode in result.episodes] == [
        ("left", "go left"),
        ("right", "go right"),
    ]
    told = json.loads((out / "results.json").read_text())
    assert told["protocol"]["simulator"] == "toy" and told["provenance"]["simulator"] == {"toy": "1.0"}
    for episode in result.episodes:
        assert check_video(out / episode.video).num_frames == episode.steps + 1


def test_its_expert_reaches_the_goal_and_chance_does_not():
    options = {"protocol": "toy", "render": False, "progress": False}
    result = evaluate(ExpertPolicy(), ["left", "right"], **options)
    assert (result.overall.successes, result.overall.trials) == (6, 6)
    # A tenth a step, from a start at most 0.8 away on either axis to within a tenth of the goal.
    assert all(episode.steps <= 9 for episode in result.episodes)
    assert len({episode.steps for episode in result.episodes}) > 1
    assert evaluate(RandomPolicy(), "left", **options).overall.successes == 0


def test_commands_know_it_by_its_name(tmp_path, capsys):
    assert run("record", "--simulator", "toy", "--tasks", "left", "--episodes", "1", "--out", tmp_path / "a") == 0
    assert "1 episodes" in capsys.readouterr().out
    arguments = ["--policy", "expert", "--simulator", "toy", "--tasks", "right", "--episodes", "2"]
    assert run("eval", *arguments, "--out", tmp_path / "b") == 0
    assert "overall: 100 % (2/2" in capsys.readouterr().out
    assert run("eval", *arguments, "--protocol", "openvla", "--out", tmp_path / "c") == 1
    assert "toy has no protocol 'openvla'; it has toy" in capsys.readouterr().err
