"""Batches of policies, from samples of a data set."""

from __future__ import annotations

import pytest
import torch

from hilam_hf.training.policy.collator import PolicyCollator, encode_instructions
from tests.training.policy.test_train import (
    CHUNK,
    LENGTH,
    SKILL_DIM,
    FakeLanguageEncoder,
    make_dataset,
    make_policy,
    robot_labels,
    video_labels,
)


def test_samples_of_videos_become_the_arguments_of_pretraining() -> None:
    dataset = make_dataset(video_labels)
    collate = PolicyCollator(encode_instructions(make_policy(), dataset))
    batch = collate([dataset[0], dataset[LENGTH + 4]])
    assert set(batch) == {"pixels", "language", "skills", "latent_actions"}
    assert batch["pixels"]["front"].dtype == torch.uint8
    assert torch.equal(batch["pixels"]["front"][1], dataset[LENGTH + 4]["pixels"]["front"])
    assert torch.equal(batch["language"], FakeLanguageEncoder().encode(["task ", "task x"]))
    # The skill of the second sample's segment: frames 3 to 5 are segment 1.
    assert torch.equal(batch["skills"], torch.stack([dataset.episodes[0].skills[0], dataset.episodes[1].skills[1]]))
    assert torch.equal(batch["latent_actions"][1], dataset.episodes[1].latent_actions[4])


def test_samples_of_robots_bring_the_skills_predicted_for_them() -> None:
    dataset = make_dataset(robot_labels, CHUNK)
    steps = torch.arange(LENGTH)[:, None]
    skills = {str(episode): torch.full((LENGTH, SKILL_DIM), 10.0 * episode) + steps for episode in range(3)}
    collate = PolicyCollator(encode_instructions(make_policy(), dataset), skills)
    batch = collate([dataset[2 * LENGTH + 8], dataset[1]])
    assert set(batch) == {"pixels", "language", "agent_pos", "actions", "action_mask", "predicted_skills"}
    assert batch["predicted_skills"][:, 0].tolist() == [28.0, 1.0]
    assert batch["action_mask"][0].tolist() == [True, False, False, False]


def test_an_instruction_without_a_vector_is_an_error() -> None:
    dataset = make_dataset(video_labels)
    with pytest.raises(KeyError, match="task x"):
        PolicyCollator({"task ": torch.zeros(8)})([dataset[0], dataset[LENGTH]])
