"""Jobs of SLURM queue themselves again until they are finished, and no further; what they leave is as of one go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hilam_hf.data import LiberoHdf5Writer
from hilam_hf.models.hierarchical.configuration_hierarchical import HierarchicalPolicyConfig
from hilam_hf.models.hierarchical.modeling_hierarchical import HierarchicalPolicy
from tests.examples.cluster import Cluster
from tests.robot_recordings import demonstration
from tests.training.hilam.test_train import make_code_corpus
from tests.training.policy.test_runs import TRUNK
from tests.training.runs import files_of

OPTIONS = [
    "global_batch_size=4",
    "warmup_steps=2",
    "log_every=5",
    "save_every=10",
    "keep_checkpoints=1",
    "ema_decay=0.9",
]
ARRAY = {"TASKS": "5 8", "SEEDS": "0 1", "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "2"}


def status(run: Path) -> str:
    return json.loads((run / "run.json").read_text())["status"]


def write_record(run: Path, status: str) -> None:
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"status": status}, indent=2))


@pytest.mark.slow
def test_a_pretraining_on_two_nodes_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    make_code_corpus(tmp_path / "corpus")
    arguments = ["hilam", tmp_path / "corpus", "max_steps=40", *OPTIONS]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    # As many processes on one node.
    other = Cluster(tmp_path / "other", OUT=whole, GPUS_PER_NODE="2", SLURM_NNODES="1")
    assert other.run("pretrain.sbatch", *arguments) == 0, other.output()
    assert (status(whole), other.requeued) == ("finished", [])

    cluster = Cluster(tmp_path / "cluster", OUT=cut, GPUS_PER_NODE="1", SLURM_NNODES="2")
    ended = cluster.run_and_end_the_time("pretrain.sbatch", *arguments, when=(cut / "checkpoint-10").exists)
    assert (ended, status(cut), cluster.requeued) == (0, "interrupted", ["71"]), cluster.output()
    assert not (cut / "hilam").exists()
    # One process of the two says so.
    assert cluster.output().count("is saved: go on with --resume") == 1
    assert cluster.run("pretrain.sbatch", *arguments) == 0, cluster.output()
    assert (status(cut), cluster.requeued) == ("finished", ["71"])
    left = files_of(whole)
    assert {"checkpoint-40/model.safetensors", "hilam/model.safetensors", "history.json"} <= set(left)
    assert files_of(cut) == left


@pytest.mark.slow
def test_a_pretraining_that_fails_is_not_queued_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    # An interruption of before is none of now.
    write_record(out, "interrupted")
    cluster = Cluster(tmp_path / "cluster", OUT=out, GPUS_PER_NODE="1", SLURM_NNODES="1")
    assert cluster.run("pretrain.sbatch", "hilam", tmp_path / "corpus", "max_step=60") != 0
    assert "unknown option 'max_step'" in cluster.output()
    assert cluster.requeued == []


def test_a_finished_pretraining_is_left_as_it_is(tmp_path: Path) -> None:
    write_record(tmp_path / "run", "finished")
    cluster = Cluster(tmp_path / "cluster", OUT=tmp_path / "run", SLURM_NNODES="2")
    assert cluster.run("pretrain.sbatch", "hilam", "corpus") == 0
    assert (cluster.output(), cluster.requeued) == ("", [])


@pytest.mark.slow
def test_a_fine_tuning_of_an_array_goes_on(tmp_path: Path) -> None:
    trunk = TRUNK | {"cameras": ["agentview"]}
    config = HierarchicalPolicyConfig(high_config=dict(trunk), low_config=dict(trunk), skill_dim=3, latent_dim=4)
    policy = HierarchicalPolicy(config)
    policy.set_statistics(skills=(torch.zeros(3), torch.ones(3)), latent_actions=(torch.zeros(4), torch.ones(4)))
    policy.save_pretrained(tmp_path / "policy")
    with LiberoHdf5Writer(tmp_path / "recording") as writer:
        writer.add(demonstration(4, metadata={"renderer": {"quality": "fast"}}))
    inputs = {"POLICY": tmp_path / "policy", "DEMONSTRATIONS": tmp_path / "recording"}
    cluster = Cluster(tmp_path / "cluster", RUNS=tmp_path / "runs", **inputs, **ARRAY | {"TASKS": "0 1"})
    arguments = ["--suite", "goal", "--protocol", "baku", "--chunk-size", "2", "max_steps=40", *OPTIONS]
    out = tmp_path / "runs" / "task-1-seed-0"
    ended = cluster.run_and_end_the_time("finetune_array.sbatch", *arguments, when=(out / "checkpoint-10").exists)
    assert (ended, status(out), cluster.requeued) == (0, "interrupted", ["70_2"]), cluster.output()
    assert cluster.run("finetune_array.sbatch", *arguments) == 0, cluster.output()
    assert (status(out), cluster.requeued) == ("finished", ["70_2"])
    # None of the steps was left out or done twice.
    assert [step for step, _ in json.loads((out / "history.json").read_text())["loss"]] == list(range(5, 41, 5))
    assert (out / "policy" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("ending", "ended", "requeued"),
    [
        ("exit 75", 0, ["70_2"]),
        ("kill -TERM $$", 0, ["70_2"]),
        ("exit 1", 1, []),
        ("exit 0", 0, []),
    ],
)
def test_a_fine_tuning_is_queued_again_where_a_signal_ended_it(
    tmp_path: Path, ending: str, ended: int, requeued: list[str]
) -> None:
    cluster = Cluster(tmp_path, POLICY="pretrained", DEMONSTRATIONS="recordings", RUNS=tmp_path, **ARRAY)
    cluster.stand_in("hilam", f'#!/bin/sh\necho "$@"\n{ending}\n')
    assert cluster.run("finetune_array.sbatch", "max_steps=9") == ended
    # The third of two tasks with two seeds each.
    told = f"train finetune --policy pretrained --demonstrations recordings --tasks 8 --out {tmp_path}/task-8-seed-0"
    assert (cluster.output(), cluster.requeued) == (f"{told} max_steps=9 seed=0\n", requeued)


def test_a_finished_fine_tuning_is_left_as_it_is(tmp_path: Path) -> None:
    write_record(tmp_path / "task-8-seed-0", "finished")
    cluster = Cluster(tmp_path, RUNS=tmp_path, **ARRAY)
    assert cluster.run("finetune_array.sbatch") == 0
    assert (cluster.output(), cluster.requeued) == ("", [])


@pytest.mark.parametrize(
    ("ending", "ended", "requeued"), [("kill -TERM $$", 0, ["70_2"]), ("exit 1", 1, []), ("exit 0", 0, [])]
)
def test_an_evaluation_is_queued_again_where_a_signal_ended_it(
    tmp_path: Path, ending: str, ended: int, requeued: list[str]
) -> None:
    cluster = Cluster(tmp_path, RUNS="runs", RESULTS="results", SLURM_CPUS_PER_TASK="4", **ARRAY)
    cluster.stand_in("hilam", f'#!/bin/sh\necho "$@"\n{ending}\n')
    assert cluster.run("evaluate.sbatch", "--suite", "goal") == ended
    told = "eval --policy runs/task-8-seed-0/policy --tasks 8 --out results/task-8-seed-0 --num-envs 4 --suite goal\n"
    assert (cluster.output(), cluster.requeued) == (told, requeued)
