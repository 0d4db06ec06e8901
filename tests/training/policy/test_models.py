"""New policies that fit a corpus."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hilam_hf.data import CorpusInfo
from hilam_hf.training.policy import new_policy

TRUNK = {"vision_widths": [8, 16], "vision_groups": 4, "num_keypoints": 6, "token_dim": 24, "hidden_size": 16}


def skill_corpus(**changes: Any) -> CorpusInfo:
    options = {"model": "m", "latent_dim": 5, "stride": 3, "kind": "latent-skills", "skill_dims": {1: 6, 2: 7}}
    return CorpusInfo(**options | changes)


def make(info: CorpusInfo, **changes: Any) -> Any:
    options = {"stage": 2, "cameras": ["front"], "image_size": 32, "trunk": TRUNK | {"num_layers": 1, "num_heads": 2}}
    torch.manual_seed(0)
    return new_policy(info, **options | changes)


def test_a_policy_has_the_corpus_widths() -> None:
    config = make(skill_corpus(), detach_skill=False).config
    assert (config.skill_dim, config.latent_dim, config.stage, config.detach_skill) == (7, 5, 2, False)
    for trunk in (config.high_config, config.low_config):
        assert (trunk.cameras, trunk.image_size, trunk.hidden_size) == (["front"], 32, 16)
    assert make(skill_corpus(), stage=1).config.skill_dim == 6


def test_codes_are_predicted_by_their_vectors() -> None:
    # 4 codes of 8, each a vector of 3 numbers.
    info = skill_corpus(latent_dim=4, codebook=torch.rand(8, 3).tolist())
    policy = make(info)
    assert policy.config.latent_dim == policy.config.low_config.action_dim == 12


def test_the_weights_follow_from_the_seed() -> None:
    first, second = make(skill_corpus()).state_dict(), make(skill_corpus()).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first if "normalizer" not in name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({}, "stage: got 3, but the corpus has skills of stages: 1, 2"), ({"skill_dims": {}}, "stages: none")],
)
def test_a_stage_that_is_not_there_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(skill_corpus(**changes), stage=3)
