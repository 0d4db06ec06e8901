"""BAKU models small enough for tests, and what they see."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hilam_hf.models.baku import BakuConfig, BakuModel, BakuPolicy

TINY = {
    "image_size": 32,
    "vision_widths": [8, 16],
    "vision_groups": 4,
    "num_keypoints": 6,
    "token_dim": 24,
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "language_dim": 8,
    "action_dim": 3,
    "chunk_size": 4,
    "dropout": 0.0,
}


class FakeLanguageEncoder:
    """Vectors that differ between instructions, without weights."""

    def __init__(self, dim: int = 8):
        self.dim = dim

    def encode(self, instructions: list[str]) -> Tensor:
        return torch.stack([torch.sin(torch.arange(self.dim) * (1.0 + len(text))) for text in instructions])


def tiny_config(**changes: Any) -> BakuConfig:
    return BakuConfig(**{"cameras": ["front", "wrist"], "proprioception_dim": 5} | TINY | changes)


def tiny_model(**changes: Any) -> BakuModel:
    torch.manual_seed(0)
    return BakuModel(tiny_config(**changes)).eval()


def set_policy_statistics(policy: BakuPolicy) -> None:
    policy.set_statistics(
        actions=(torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, 4.0, 2.0])),
        agent_pos=(torch.arange(5.0), torch.full((5,), 2.0)),
    )


def tiny_policy(**changes: Any) -> BakuPolicy:
    torch.manual_seed(0)
    policy = BakuPolicy(tiny_config(**changes)).eval()
    set_policy_statistics(policy)
    policy.language_encoder = FakeLanguageEncoder()
    return policy


def observations(steps: int, batch: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    return [
        {
            "pixels": {
                camera: generator.integers(0, 256, (batch, 40, 48, 3), dtype=np.uint8) for camera in ("front", "wrist")
            },
            "agent_pos": generator.normal(size=(batch, 5)).astype(np.float32),
            "task": [f"task {'x' * row}" for row in range(batch)],
        }
        for _ in range(steps)
    ]


def row_of(observation: dict[str, Any], row: int) -> dict[str, Any]:
    return {
        "pixels": {camera: frames[row] for camera, frames in observation["pixels"].items()},
        "agent_pos": observation["agent_pos"][row],
        "task": observation["task"][row],
    }
