"""Acting, by a BAKU policy: batches whose rows restart alone, chunks, histories, units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoProcessor

from hilam_hf.models.baku import BakuPolicy
from hilam_hf.models.processing import SquareImageProcessorPil
from hilam_hf.video import resize_frames
from tests.models.baku.tiny import FakeLanguageEncoder, observations, row_of, tiny_config, tiny_policy


@pytest.mark.parametrize("changes", [{"history": 3}, {"history": 2, "execution": "open_loop", "n_action_steps": 2}, {}])
def test_batch_with_restarting_rows_equals_single_episodes(changes: dict[str, Any]):
    steps = observations(6, 2)
    together, restarts = tiny_policy(**changes), {3: 1}
    actions = []
    for step, observation in enumerate(steps):
        if step in restarts:
            together.reset([restarts[step]])
        actions.append(together.select_action(observation))
    for row in range(2):
        single = tiny_policy(**changes)
        for step, observation in enumerate(steps):
            if restarts.get(step) == row:
                single.reset()
            action = single.select_action(row_of(observation, row))
            assert action.shape == (3,) and action.dtype == np.float32
            np.testing.assert_allclose(action, actions[step][row], atol=1e-4)


ACTING = [{}, {"history": 3}, {"execution": "open_loop", "n_action_steps": 2}]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("changes", ACTING)
def test_after_proprioception_that_is_not_finite_a_policy_acts_as_if_it_had_not_come(
    changes: dict[str, Any], bad: float
):
    policy, undisturbed = tiny_policy(**changes), tiny_policy(**changes)
    for observation in observations(4, 2):
        damaged = {**observation, "agent_pos": observation["agent_pos"].copy()}
        damaged["agent_pos"][1, 2] = bad
        with pytest.raises(ValueError, match=r"'agent_pos' must be finite, got .* in row 1"):
            policy.select_action(damaged)
        np.testing.assert_array_equal(policy.select_action(observation), undisturbed.select_action(observation))


def test_a_prediction_that_is_not_finite_is_no_action_and_is_forgotten():
    policy = tiny_policy(history=3)
    first, second = observations(2, 1)
    weight = next(policy.parameters())
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"predicts NaN or infinite actions for rows \[0\], which start anew"):
        policy.select_action(first)
    with torch.no_grad():
        weight.copy_(kept)
    np.testing.assert_array_equal(policy.select_action(second), tiny_policy(history=3).select_action(second))


@pytest.mark.parametrize("changes", ACTING)
def test_rows_that_are_not_active_are_neither_read_nor_advanced(changes: dict[str, Any]):
    steps, turns = observations(6, 3), [[0, 1, 2], [0], [2, 0], [], [1], [0, 1, 2]]
    together, taken = tiny_policy(**changes), {0: [], 1: [], 2: []}
    for observation, active in zip(steps, turns, strict=True):
        for row in {0, 1, 2} - set(active):
            observation["pixels"]["front"][row] = 255
            observation["agent_pos"][row] = np.nan
        actions = together.select_action(observation, active)
        assert actions.shape == (3, 3) and np.isfinite(actions).all()
        assert not actions[[row for row in range(3) if row not in active]].any()
        for row in active:
            taken[row].append((row_of(observation, row), actions[row]))
    for row, steps_taken in taken.items():
        single = tiny_policy(**changes)
        for observation, action in steps_taken:
            np.testing.assert_allclose(single.select_action(observation), action, atol=1e-4, err_msg=str(row))


@pytest.mark.parametrize("changes", ACTING)
def test_predicting_rows_one_by_one_gives_them_the_same_bits_in_any_company(changes: dict[str, Any]):
    steps, policies = observations(4, 3), [tiny_policy(**changes) for _ in range(2)]
    for policy in policies:
        policy.predict_in_batches(1)
    for observation in steps:
        together = policies[0].select_action(observation)
        for row in (2, 0, 1):
            np.testing.assert_array_equal(policies[1].select_action(observation, [row])[row], together[row])


def test_predictions_are_made_in_batches_of_the_given_size_filled_up_with_a_row():
    policy, batches = tiny_policy(), []
    predict = policy._predict_chunk
    policy._predict_chunk = lambda inputs: [batches.append(inputs.rows), predict(inputs)][1]
    observation = observations(1, 5)[0]
    expected = policy.select_action(observation)
    policy.reset()
    policy.predict_in_batches(2)
    np.testing.assert_allclose(policy.select_action(observation), expected, atol=1e-5)
    policy.select_action(observation, [4, 1])
    assert batches == [[0, 1, 2, 3, 4], [0, 1], [2, 3], [4, 4], [4, 1]]
    with pytest.raises(ValueError, match="acting_batch_size must be at least 1, got 0"):
        policy.predict_in_batches(0)


def test_open_loop_reads_pictures_only_where_a_chunk_is_used_up():
    policy = tiny_policy(execution="open_loop", n_action_steps=2)
    assert policy.reads_next().shape == (0,)
    observation = observations(1, 3)[0]
    policy.select_action(observation, [0, 1])
    assert policy.reads_next().tolist() == [False, False, True]
    first = policy.select_action(observation, [1, 2])
    assert policy.reads_next().tolist() == [False, True, False]
    policy.reset([2])
    assert policy.reads_next().tolist() == [False, True, True]
    # What is not read may be anything.
    observation["pixels"]["front"][0] = 0
    unread = policy.select_action(observation, [0])
    assert policy.reads_next().tolist() == [True, True, True] and not np.array_equal(unread[0], first[1])


@pytest.mark.parametrize("changes", [{}, {"execution": "open_loop", "n_action_steps": 2, "history": 2}])
def test_aggregation_and_histories_read_every_picture(changes: dict[str, Any]):
    policy = tiny_policy(**changes)
    policy.select_action(observations(1, 2)[0])
    assert policy.reads_next().tolist() == [True, True]


def test_executed_chunk_length_can_be_overruled():
    policy = tiny_policy()
    spec = policy.acting_spec
    assert spec.executed_chunk_length == 1
    assert spec.settings["execution"] == "temporal_aggregation" and spec.settings["aggregation_decay"] == 0.01
    policy.execute_chunks(3)
    expected = tiny_policy(execution="open_loop", n_action_steps=3)
    for observation in observations(4, 2):
        np.testing.assert_array_equal(policy.select_action(observation), expected.select_action(observation))
    assert policy.acting_spec == expected.acting_spec and policy.acting_spec.executed_chunk_length == 3
    policy.execute_chunks(None)
    assert policy.acting_spec == spec
    with pytest.raises(ValueError, match="chunks of 4 actions, so it cannot execute 9 of each"):
        policy.execute_chunks(9)


def test_what_a_policy_takes_and_gives():
    spec = tiny_policy(training_data={"mujoco": "3.3.0"}).acting_spec
    assert (spec.cameras, spec.agent_pos_dim, spec.action_dim) == (("front", "wrist"), 5, 3)
    assert (spec.has_chunks, spec.device, spec.training_data) == (True, "cpu", {"mujoco": "3.3.0"})
    assert (spec.name, spec.revision, spec.extra_observations) == (None, None, ())


def test_the_saved_processor_gives_the_trunk_the_pictures_of_acting(tmp_path: Path):
    policy, seen = tiny_policy(), []
    policy.model.vision_encoders["shared"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    observation = observations(1, 2)[0]
    policy.select_action(observation)
    policy.save_pretrained(tmp_path)
    # One camera after the other for each row.
    pictures = [observation["pixels"][camera][row] for row in range(2) for camera in ("front", "wrist")]
    for auto_class in (AutoImageProcessor, AutoProcessor):
        processor = auto_class.from_pretrained(tmp_path)
        assert isinstance(processor, SquareImageProcessorPil)
        assert torch.equal(processor(pictures, return_tensors="pt")["pixel_values"], seen[0])
    assert tiny_policy(cameras=[], film_source=None).image_processor() is None


def test_rows_outside_the_batch_are_refused():
    policy, observation = tiny_policy(), observations(1, 2)[0]
    with pytest.raises(ValueError, match=r"rows must be in 0\.\.1"):
        policy.select_action(observation, [2])
    with pytest.raises(ValueError, match=r"rows must be in 0\.\.1"):
        policy.reset([-1])
    with pytest.raises(ValueError, match="from 2 rows to 3"):
        policy.select_action(observations(1, 3)[0])
    policy.reset()
    assert policy.select_action(observations(1, 3)[0]).shape == (3, 3)


def test_first_action_is_the_first_of_the_predicted_chunk_in_environment_units():
    policy = tiny_policy()
    observation = observations(1, 2)[0]
    inputs = {
        "pixels": {
            camera: resize_frames(torch.from_numpy(frames).permute(0, 3, 1, 2), 32)
            for camera, frames in observation["pixels"].items()
        },
        "language": policy.language_encoder.encode(observation["task"]),
        "agent_pos": torch.from_numpy(observation["agent_pos"]),
    }
    with torch.no_grad():
        expected = policy(**inputs).action_mean[:, 0, 0]
    np.testing.assert_allclose(policy.select_action(observation), expected.numpy(), atol=1e-5)


def test_actions_stay_in_the_range_of_the_demonstrations():
    policy = tiny_policy(use_tanh=False)
    torch.nn.init.constant_(policy.model.action_head.output.bias, 50.0)
    action = policy.select_action(row_of(observations(1, 1)[0], 0))
    np.testing.assert_allclose(action, [1.0, 4.0, 2.0])


def test_acting_ignores_dropout_and_gives_the_mode_back():
    policy = tiny_policy(dropout=0.5).train()
    observation = observations(1, 1)[0]
    first = policy.select_action(observation)
    policy.reset()
    np.testing.assert_array_equal(policy.select_action(observation), first)
    assert policy.training


def test_loaded_policy_acts_the_same(tmp_path):
    policy = tiny_policy(history=2)
    policy.save_pretrained(tmp_path)
    loaded = BakuPolicy.from_pretrained(tmp_path)
    loaded.language_encoder = FakeLanguageEncoder()
    for observation in observations(3, 2):
        np.testing.assert_allclose(loaded.select_action(observation), policy.select_action(observation), atol=1e-5)


def test_policy_without_statistics_refuses_to_run():
    policy = BakuPolicy(tiny_config(proprioception_dim=None))
    policy.language_encoder = FakeLanguageEncoder()
    with pytest.raises(ValueError, match="statistics of actions are not set"):
        policy.select_action(observations(1, 1)[0])
    with pytest.raises(ValueError, match="takes no agent_pos"):
        policy.set_statistics(agent_pos=(torch.zeros(5), torch.ones(5)))


def test_language_encoder_of_another_size_is_refused():
    policy = tiny_policy()
    policy.language_encoder = FakeLanguageEncoder(dim=9)
    with pytest.raises(ValueError, match="vectors of length 9"):
        policy.select_action(observations(1, 1)[0])
