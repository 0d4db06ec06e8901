"""Parallel rollouts: equal results whatever the order, and what becomes of episodes that the simulator spoils."""

from __future__ import annotations

import dataclasses
import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch

from hilam_hf.acting_spec import ActingSpec
from hilam_hf.envs import workers
from hilam_hf.envs.protocols import EpisodeSpec, EvaluationProtocol
from hilam_hf.envs.registry import get_protocol
from hilam_hf.envs.workers import WorkerError
from hilam_hf.evaluation import EvaluationResult, RandomPolicy, evaluate
from hilam_hf.evaluation.rollouts.scheduler import Episode, EpisodeQueue
from hilam_hf.models.baku import BakuConfig, BakuPolicy
from hilam_hf.models.hierarchical import HierarchicalPolicy, HierarchicalPolicyConfig
from tests.models.baku.tiny import FakeLanguageEncoder

TASKS = ["drawer-open", "door-open"]
TRUNK = {
    "cameras": ["corner2"],
    "image_size": 16,
    "vision_widths": [4, 8],
    "vision_groups": 4,
    "num_keypoints": 4,
    "token_dim": 16,
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
}


def short_protocol(**options: Any) -> EvaluationProtocol:
    return get_protocol("metaworld").with_options(max_steps={"": 12}, image_size=16, **options)


def hierarchical_policy(**changes: Any) -> HierarchicalPolicy:
    torch.manual_seed(0)
    changes = {"execution": "open_loop", "n_action_steps": 3} | changes
    high, low = changes.pop("high", {}), changes.pop("low", {})
    policy = HierarchicalPolicy(
        HierarchicalPolicyConfig(
            high_config=TRUNK | {"language_dim": 8} | high, low_config=TRUNK | low, skill_dim=4, latent_dim=4, **changes
        )
    ).eval()
    unit = torch.ones(4)
    policy.set_statistics(skills=(0 * unit, unit), latent_actions=(0 * unit, unit))
    policy.prepare_for_finetuning(action_dim=4, chunk_size=4, agent_pos_dim=4)
    policy.set_statistics(actions=(-unit, unit), agent_pos=(0 * unit, unit))
    policy.language_encoder = FakeLanguageEncoder()
    return policy


def baku_policy(**changes: Any) -> BakuPolicy:
    torch.manual_seed(0)
    options = {"language_dim": 8, "proprioception_dim": 4, "action_dim": 4, "chunk_size": 4, "dropout": 0.0}
    policy = BakuPolicy(BakuConfig(**TRUNK | options | changes)).eval()
    unit = torch.ones(4)
    policy.set_statistics(actions=(-unit, unit), agent_pos=(0 * unit, unit))
    policy.language_encoder = FakeLanguageEncoder()
    return policy


def run(policy: Any, tasks: Any = TASKS, **options: Any) -> EvaluationResult:
    defaults = {"protocol": short_protocol(), "episodes": 3, "progress": False}
    return evaluate(policy, tasks, **defaults | options)


class Spy:
    """Pushes by a constant and notes what it is asked."""

    def __init__(self, action: float = -1.0, **spec: Any) -> None:
        self.action = action
        options = {"cameras": (), "extra_observations": ("episode_seed",), "has_chunks": False}
        self.acting_spec = ActingSpec(**options | spec)
        self.resets: list[Any] = []
        self.calls: list[tuple[list[int], list[int]]] = []

    def reset(self, indices: Any = None) -> None:
        self.resets.append(None if indices is None else list(indices))

    def select_action(self, observation: dict[str, Any], active: Any = None) -> np.ndarray:
        rows = range(len(observation["task"])) if active is None else active
        self.calls.append((list(rows), [int(seed) for seed in observation["episode_seed"]]))
        return np.full((len(observation["task"]), 4), self.action, np.float32)


class Lockstep:
    """A policy of the old kind: it takes a step of all rows whenever it is called, and its steps count."""

    acting_spec = ActingSpec(extra_observations=("episode_seed",))

    def __init__(self) -> None:
        self.steps: dict[int, int] = {}

    def reset(self, indices: Any = None) -> None:
        for row in list(self.steps) if indices is None else indices:
            self.steps[row] = 0

    def select_action(self, observation: dict[str, Any]) -> np.ndarray:
        actions = np.zeros((len(observation["task"]), 4), np.float32)
        for row in range(len(actions)):
            self.steps[row] = self.steps.get(row, 0) + 1
            actions[row] = np.sin(self.steps[row]) * observation["agent_pos"][row]
        return actions


POLICIES = {
    "open loop": hierarchical_policy,
    "temporal aggregation": lambda: hierarchical_policy(execution="temporal_aggregation"),
    "history": lambda: hierarchical_policy(high={"history": 3}, low={"history": 2}),
    "baku": baku_policy,
    "lockstep": Lockstep,
}


@pytest.mark.parametrize("name", POLICIES)
def test_results_do_not_depend_on_the_number_of_simulators_nor_on_their_speed(name, fake_host):
    policy, results = POLICIES[name](), []
    for num_envs in (1, 2, 3):
        fake_host(slowness=0.004 * (num_envs - 1))
        results.append(run(policy, num_envs=num_envs, episodes=2))
    assert all(result.episodes == results[0].episodes for result in results[1:])
    totals = [episode.total_reward for episode in results[0].episodes]
    assert len(set(totals)) == 4 and len({episode.steps for episode in results[0].episodes}) > 1


def test_a_policy_predicts_in_batches_of_a_fixed_size_while_it_is_evaluated(fake_host):
    policy, sizes = hierarchical_policy(), []
    predict = policy._predict_chunk
    policy._predict_chunk = lambda inputs: [sizes.append(len(inputs.rows)), predict(inputs)][1]
    result = run(policy, num_envs=3, policy_batch_size=2)
    assert set(sizes) == {2} and result.provenance["policy_batch_size"] == 2
    assert run(policy, num_envs=3, episodes=1).provenance["policy_batch_size"] == 1
    assert set(sizes) == {1, 2} and policy.acting_batch_size is None


def test_pictures_are_drawn_only_for_rows_that_look(fake_host, monkeypatch):
    policy = hierarchical_policy()
    drawn = []
    send = workers.Worker.send

    def noting_send(self, method, *arguments, **options):
        if method in ("reset", "step"):
            drawn.append((method, arguments[-1]))
        return send(self, method, *arguments, **options)

    monkeypatch.setattr(workers.Worker, "send", noting_send)
    result = run(policy, "drawer-open", episodes=1, num_envs=1)
    # A chunk of three: the observation after its third action is looked at, and those after the others are not.
    expected = [("reset", True)] + [("step", step % 3 == 2) for step in range(result.episodes[0].steps)]
    assert drawn == expected


def test_rows_that_wait_are_left_alone_and_the_others_go_on(fake_host):
    fake_host(faults={"door-open/0": {"kind": "hang", "step": 1, "times": 1}})
    spy = Spy()
    result = run(spy, episodes=1, num_envs=2, step_timeout_s=2.5)
    assert [episode.attempts for episode in result.episodes] == [1, 2]
    # The other row's episode came to its end while this one hung.
    alone = [rows for rows, _ in spy.calls if len(rows) == 1]
    assert len(alone) >= 10


def test_fresh_rows_are_reset_before_their_first_action(fake_host):
    spy = Spy()
    run(spy, "drawer-open", episodes=3, num_envs=1)
    assert spy.resets == [None, [0], [0], [0]]
    seeds = [seeds[0] for _, seeds in spy.calls]
    assert [seed for seed, _ in itertools.groupby(seeds)] == [1_000_000, 1_000_001, 1_000_002]


def test_a_free_simulator_keeps_its_task_and_else_helps_where_most_is_left():
    episodes = [
        Episode(EpisodeSpec(task, index, index)) for task, count in (("a", 2), ("b", 4)) for index in range(count)
    ]
    queue = EpisodeQueue(episodes)
    taken = [queue.take(task) for task in ("a", None, "b", "a", "a", "a", "a")]
    got = [None if episode is None else f"{episode.spec.task}{episode.spec.index}" for episode in taken]
    assert got == ["a0", "b0", "b1", "a1", "b2", "b3", None]


FAULTS = {
    1: ("die", -1, "died", r"environment died \(signal SIGKILL\) at drawer-open, seed 1000001;"),
    2: ("die", 3, "died", r"environment died \(signal SIGKILL\) at drawer-open, seed 1000002, step 3;"),
    3: ("hang", 2, "hung", r"environment did not answer within 2.5 s at drawer-open, seed 1000003, step 2$"),
    4: (
        "error",
        0,
        "error",
        r"at drawer-open, seed 1000004, step 0: ZeroDivisionError: the simulator",
    ),
    5: ("nan", 4, "not finite", r"environment gave agent_pos \[.*nan.*\] at drawer-open, seed 1000005, step 4$"),
    6: ("nan reward", 4, "not finite", r"environment gave the reward nan at drawer-open, seed 1000006, step 4$"),
}
"""By episode: what the host does at which step, what is recorded."""


def test_a_spoilt_episode_is_run_again_once_and_then_counts_as_failed(fake_host):
    options = {"tasks": "drawer-open", "episodes": 8, "num_envs": 1, "step_timeout_s": 2.5}
    policy = RandomPolicy(seed=1)
    clean = run(policy, **options)
    assert min(episode.steps for episode in clean.episodes[1:7]) > 4 and clean.faults == []
    assert clean.overall.successes > 0
    faults = {f"drawer-open/{index}": {"kind": kind, "step": step} for index, (kind, step, *_) in FAULTS.items()}

    fake_host(faults={episode: {**fault, "times": 1} for episode, fault in faults.items()})
    once = run(policy, **options)
    assert [episode.attempts for episode in once.episodes] == [1, *[2] * 6, 1]
    assert [dataclasses.replace(episode, faults=()) for episode in once.episodes] == list(clean.episodes)
    assert not any(fault["counted_as_failed"] for fault in once.faults)

    fake_host(faults=faults)
    always = run(policy, **options)
    assert [episode.attempts for episode in always.episodes] == [1, *[2] * 6, 1]
    assert [always.episodes[index] for index in (0, 7)] == [clean.episodes[index] for index in (0, 7)]
    assert not any(episode.success for episode in always.episodes[1:7]) and always.overall.trials == 8
    assert [(fault["index"], fault["attempt"]) for fault in always.faults] == [(i, n) for i in FAULTS for n in (1, 2)]
    for fault in always.faults:
        _, _, kind, message = FAULTS[fault["index"]]
        assert fault["kind"] == kind and fault["counted_as_failed"] and fault["seed"] == 1_000_000 + fault["index"]
        assert re.search(message, fault["message"])


def test_simulators_that_all_fail_at_once_end_the_run(fake_host):
    faults = {f"{task}/{index}": {"kind": "die", "step": 0} for task in TASKS for index in range(5)}
    fake_host(faults=faults)
    with pytest.raises(WorkerError, match=r"3 faults before any episode came to its end; the last: .*SIGKILL"):
        run(Spy(), episodes=5, num_envs=2)


def test_what_users_can_mend_ends_the_run_with_its_message(fake_host):
    with pytest.raises(FileNotFoundError, match="there are no assets of door-lock"):
        run(Spy(), ["drawer-open", "door-lock"], num_envs=2)
    with pytest.raises(ValueError, match="got 'unheard-of'"):
        run(Spy(), quality="unheard-of")


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.full(4, np.nan), r"^(drawer|door)-open, seed 1000000, step 0: the policy's action is not finite: \[nan"),
        (np.zeros(3), r"Spy.select_action returned shape \(2, 3\) for a batch of 2 .*; expected \(2, 4\)"),
    ],
)
def test_bad_actions_are_named(action, message, fake_host):
    spy = Spy()
    spy.select_action = lambda observation, active=None: np.stack([action, action])
    with pytest.raises(ValueError, match=message):
        run(spy, num_envs=2)


def test_bad_actions_of_rows_that_wait_are_not_looked_at(fake_host):
    class BadElsewhere(Spy):
        def select_action(self, observation, active=None):
            actions = np.full((len(observation["task"]), 4), np.nan, np.float32)
            actions[active] = -1
            return actions

    fake_host(slowness=0.005)
    assert len(run(BadElsewhere(), num_envs=3).episodes) == 6
