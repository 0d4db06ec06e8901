"""From samples of a `PolicyDataset` to what the hierarchical policy's `forward` takes.

Shapes: B batch, E width of an instruction's vector, N samples of an episode, S width of a skill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...data.samples.collate import collate_policy
from ...data.samples.policy import PolicyDataset
from ...models.acting.policy import ActingMixin

# What a sample calls the arguments of `HierarchicalPolicy.forward`.
_KEYS = {
    "pixels": "pixels",
    "agent_pos": "agent_pos",
    "skills": "skill",
    "latent_actions": "latent_action",
    "actions": "actions",
    "action_mask": "action_mask",
}


class PolicyCollator:
    """Makes the keyword arguments of `HierarchicalPolicy.forward` from samples; pictures stay 8-bit.

    Args:
        language: Vector (E,) of every instruction of the data set.
        predicted_skills: Of every episode, by its id, the output (N, S) of a frozen π^h, which then does not run in
            training.
    """

    def __init__(self, language: Mapping[str, Tensor], predicted_skills: Mapping[str, Tensor] | None = None) -> None:
        self.language = language
        self.predicted_skills = predicted_skills

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = collate_policy(samples)
        inputs = {argument: batch[key] for argument, key in _KEYS.items() if key in batch}
        inputs["language"] = torch.stack([self.language[instruction] for instruction in batch["language"]])
        if self.predicted_skills is not None:
            skills = [self.predicted_skills[sample["id"]][sample["index"]] for sample in samples]
            inputs["predicted_skills"] = torch.stack(skills)
        return inputs


def encode_instructions(policy: ActingMixin, *datasets: PolicyDataset) -> dict[str, Tensor]:
    """Vector (E,) of every instruction of data sets, each computed once by the policy's frozen language encoder."""
    instructions = sorted({each for dataset in datasets for each in dataset.instructions})
    vectors = policy.language_encoder.encode(instructions)
    return dict(zip(instructions, vectors.cpu(), strict=True))
