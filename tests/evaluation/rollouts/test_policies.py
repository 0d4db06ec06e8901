"""What policies say of themselves, and whether it fits what they are evaluated in."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from hilam_hf.acting_spec import ActingSpec
from hilam_hf.envs.registry import get_protocol
from hilam_hf.evaluation import ExpertPolicy, RandomPolicy
from hilam_hf.evaluation.provenance import policy_record
from hilam_hf.evaluation.rollouts.policies import (
    acting_as_evaluated,
    check_fit,
    looks_at_pictures,
    prediction_batch_size,
    spec_of,
    takes_active_rows,
)
from tests.evaluation.rollouts.test_scheduler import Lockstep, baku_policy, hierarchical_policy, run, short_protocol

METAWORLD = get_protocol("metaworld")


def test_contracts_are_told_by_signature():
    class Keywords:
        def select_action(self, observation: Any, **options: Any) -> None: ...

    assert all(map(takes_active_rows, (hierarchical_policy(), RandomPolicy(), Keywords())))
    assert not takes_active_rows(Lockstep())
    assert looks_at_pictures(hierarchical_policy()) and looks_at_pictures(Lockstep())
    assert not looks_at_pictures(ExpertPolicy())


def test_nothing_is_known_of_a_policy_that_says_nothing():
    class Bare:
        def reset(self, indices: Any = None) -> None: ...

        def select_action(self, observation: dict[str, Any]) -> np.ndarray:
            return np.zeros((len(observation["task"]), 4), np.float32)

    assert spec_of(Bare()) == ActingSpec()
    assert policy_record(Bare(), spec_of(Bare())) == {
        "class": "Bare",
        "name": None,
        "revision": None,
        "weights": None,
        "device": None,
        "executed_chunk_length": None,
        "image_transform": None,
        "acting": None,
    }
    assert prediction_batch_size(Bare()) is None and looks_at_pictures(Bare())
    check_fit(Bare(), METAWORLD, render=False)


def test_what_experts_and_chance_say_of_themselves():
    expert, chance = spec_of(ExpertPolicy(noise=0.2)), spec_of(RandomPolicy(seed=3))
    assert (expert.name, expert.expert_noise, expert.settings) == ("expert", 0.2, {"noise": 0.2})
    assert (chance.name, chance.action_dim, chance.settings) == ("random", None, {"seed": 3})
    assert spec_of(RandomPolicy(action_dim=7)).action_dim == 7
    assert expert.cameras == chance.cameras == () and expert.has_chunks is chance.has_chunks is False


def test_random_actions_depend_on_the_episode_alone():
    policy, seeds = RandomPolicy(seed=4), np.array([7, 9])
    observation = {"episode_seed": seeds, "action_dim": 5}
    together = [policy.select_action(observation) for _ in range(2)]
    policy.reset()
    alone = [policy.select_action(observation, [1]) for _ in range(2)]
    assert together[0].shape == (2, 5) and np.abs(together[0]).max() <= 1
    for one, both in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one[1], both[1])
        assert not one[0].any()
    policy.reset([1])
    np.testing.assert_array_equal(policy.select_action(observation, [1])[1], together[0][1])


def test_cameras_and_actions_must_be_the_protocols():
    check_fit(hierarchical_policy(), METAWORLD, render=True)
    other = METAWORLD.with_options(cameras=("topview",))
    with pytest.raises(
        ValueError, match=r"looks at camera corner2, but protocol metaworld\+cameras gives topview; choose"
    ):
        check_fit(hierarchical_policy(), other, render=True)
    with pytest.raises(ValueError, match="looks at corner2, but nothing is drawn"):
        check_fit(hierarchical_policy(), METAWORLD, render=False)
    libero = get_protocol("openvla").with_options(cameras=("corner2",))
    with pytest.raises(ValueError, match="HierarchicalPolicy gives actions of 4 numbers, but libero takes 7"):
        check_fit(hierarchical_policy(), libero, render=True)


def test_policy_without_actions_is_refused_before_the_first_episode():
    policy = hierarchical_policy()
    policy.action_normalizer = None
    with pytest.raises(ValueError, match="call prepare_for_finetuning"):
        check_fit(policy, METAWORLD, render=True)


def test_proprioception_of_another_size_is_refused_before_the_first_action(fake_host):
    fake_host(agent_pos_dim=6)
    with pytest.raises(
        ValueError, match=r"takes agent_pos of 4 numbers, but protocol metaworld\S* gives 6 \(ee_gripper\)"
    ):
        run(hierarchical_policy())


def test_a_protocol_says_how_many_actions_of_a_chunk_are_executed(fake_host):
    policy = hierarchical_policy()
    assert policy.acting_spec.executed_chunk_length == 3
    two = run(policy, protocol=short_protocol(executed_chunk_length=2), episodes=1)
    assert two.provenance["policy"]["executed_chunk_length"] == 2 and policy.acting_spec.executed_chunk_length == 3
    assert two.episodes != run(policy, episodes=1).episodes
    policy = hierarchical_policy(n_action_steps=2)
    assert two.episodes == run(policy, episodes=1).episodes
    with pytest.raises(ValueError, match="chunks of 4 actions, so it cannot execute 5 of each"):
        run(policy, protocol=short_protocol(executed_chunk_length=5))
    with pytest.raises(ValueError, match="which Lockstep cannot be told"):
        run(Lockstep(), protocol=short_protocol(executed_chunk_length=2))
    # Experts have no chunks.
    run(ExpertPolicy(), "door-open", protocol=short_protocol(executed_chunk_length=2), episodes=1)


def test_policies_are_left_as_they_were():
    policy, threads = baku_policy(), torch.get_num_threads()
    torch.set_num_threads(2)
    with (
        pytest.raises(RuntimeError, match="stop"),
        acting_as_evaluated(policy, short_protocol(executed_chunk_length=2), 3),
    ):
        spec = policy.acting_spec
        assert (policy.acting_batch_size, spec.executed_chunk_length, torch.get_num_threads()) == (3, 2, 1)
        assert spec.settings["execution"] == "open_loop"
        raise RuntimeError("stop")
    spec = policy.acting_spec
    assert (policy.acting_batch_size, spec.executed_chunk_length, torch.get_num_threads()) == (None, 1, 2)
    assert spec.settings["execution"] == "temporal_aggregation"
    torch.set_num_threads(threads)


def test_batch_size_follows_the_device():
    policy = baku_policy()
    assert prediction_batch_size(policy) == 1 and prediction_batch_size(policy, 5) == 5
    assert prediction_batch_size(baku_policy().to("meta")) == 16
    assert prediction_batch_size(ExpertPolicy()) is None
    with pytest.raises(ValueError, match="policy_batch_size must be at least 1, got 0"):
        prediction_batch_size(policy, 0)


def test_pictures_drawn_otherwise_than_the_training_data_are_warned_of(fake_host, caplog):
    fake_host(provenance={"mujoco": "3.3.4"})
    policy = baku_policy(training_data={"mujoco": "3.3.0", "dataset": "libero"})
    with caplog.at_level(logging.WARNING):
        result = run(policy, "door-open", episodes=1)
    assert "MuJoCo 3.3.0 and 3.3.4 light scenes differently" in caplog.text
    assert len(result.provenance["warnings"]) == 1 and result.provenance["training_data"]["dataset"] == "libero"
