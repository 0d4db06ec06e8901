"""New policies that fit a corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...data.corpora.info import CorpusInfo
from ...models.hierarchical import HierarchicalPolicy, HierarchicalPolicyConfig
from ...models.numerics import seeded_weights


def new_policy(
    info: CorpusInfo,
    *,
    stage: int,
    cameras: Sequence[str],
    image_size: int,
    trunk: Mapping[str, Any] | None = None,
    detach_skill: bool = True,
    seed: int = 0,
) -> HierarchicalPolicy:
    """An untrained policy that fits a skill corpus.

    Where latent actions are codes, π^l predicts their vectors.

    Args:
        info: What the corpus' card says.
        stage: Stage whose skills π^h predicts.
        cameras: Names of the cameras.
        image_size: Side in pixels of the frames.
        trunk: Further options of both trunks, of `BakuConfig`.
        detach_skill: No gradient from π^l's loss into π^h.
        seed: Of the weights, whatever was drawn before.

    Raises:
        ValueError: The corpus has no skills of that stage, or an option is not valid.
    """
    if stage not in info.skill_dims:
        known = ", ".join(map(str, sorted(info.skill_dims))) or "none"
        raise ValueError(f"stage: got {stage}, but the corpus has skills of stages: {known}; choose one of these")
    options = {"cameras": list(cameras), "image_size": image_size, **(trunk or {})}
    config = HierarchicalPolicyConfig(
        high_config=dict(options),
        low_config=dict(options),
        skill_dim=info.skill_dims[stage],
        latent_dim=info.vector_dim,
        stage=stage,
        detach_skill=detach_skill,
    )
    with seeded_weights(seed):
        return HierarchicalPolicy(config)
