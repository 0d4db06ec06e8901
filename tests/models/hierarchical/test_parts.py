"""The hierarchical policy on a batch in parts, before and after its preparation for fine-tuning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.hierarchical.test_hierarchical import (
    CHUNK,
    LATENT_DIM,
    SKILL_DIM,
    acting_policy,
    pretraining_policy,
    robot_batch,
    video_batch,
)
from tests.models.parts import EVEN, THIRDS, UNEQUAL, Recorder, assert_parts_make_the_whole, doubled, rows

REAL = [1, 4, 2, 4, 1, 3]
"""Real actions in the chunk of each sample."""

every_cut = pytest.mark.parametrize("cuts", [EVEN, THIRDS, UNEQUAL], ids=["halves", "thirds", "unequal"])


def chunk_mask() -> Tensor:
    return torch.arange(CHUNK) < torch.tensor(REAL)[:, None]


def chunks_of_latents() -> dict[str, Any]:
    """Targets of growing size, so that samples weigh unequally; NaN where a chunk is padding."""
    batch = doubled(video_batch(6)) | {"action_mask": chunk_mask()}
    sizes = torch.arange(1.0, 7)[:, None]
    latents = torch.randn(6, CHUNK, LATENT_DIM).double() * sizes[..., None]
    batch["latent_actions"] = latents.masked_fill(~batch["action_mask"][..., None], torch.nan)
    batch["skills"] = batch["skills"] * sizes
    return batch


@every_cut
def test_pretraining_in_parts(cuts: tuple[int, ...]) -> None:
    policy, batch = pretraining_policy(low={"chunk_size": CHUNK}).double(), chunks_of_latents()
    assert_parts_make_the_whole(policy, lambda first, last: rows(batch, first, last), cuts)


@every_cut
def test_pretraining_without_a_mask_in_parts(cuts: tuple[int, ...]) -> None:
    """Parts with as many samples are equal as they are; others are not."""
    policy, batch = pretraining_policy().double(), doubled(video_batch(6, steps=2))
    assert_parts_make_the_whole(policy, lambda first, last: rows(batch, first, last), cuts, differs=cuts == UNEQUAL)


@every_cut
@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_finetuning_in_parts(loss: str, cuts: tuple[int, ...]) -> None:
    policy, batch = acting_policy(action_loss=loss).double(), doubled(robot_batch(6))
    batch["action_mask"] = chunk_mask()
    batch["actions"] = batch["actions"].masked_fill(~batch["action_mask"][..., None], torch.nan)
    assert_parts_make_the_whole(policy, lambda first, last: rows(batch, first, last), cuts)


def test_counts_by_hand() -> None:
    """Numbers in the targets: 6 skills, and the 15 vectors of the chunks that are real."""
    recorder = Recorder()
    policy = pretraining_policy(low={"chunk_size": CHUNK})
    policy.count_parts(recorder, **chunks_of_latents())
    assert recorder.counts == {"skills": 6 * SKILL_DIM, "latent_actions": 15 * LATENT_DIM}
    recorder = Recorder()
    acting_policy().count_parts(recorder, **robot_batch(6), action_mask=chunk_mask())
    assert recorder.counts == {"actions": 15 * 3}


def test_a_mask_of_single_latents_counts_their_numbers() -> None:
    recorder = Recorder()
    mask = torch.tensor([[True], [False], [True]])
    pretraining_policy().count_parts(recorder, latent_actions=torch.randn(3, LATENT_DIM), action_mask=mask)
    assert recorder.counts == {"latent_actions": 2 * LATENT_DIM}
