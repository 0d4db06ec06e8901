"""A policy that is no BAKU acts through the same room: it says what it looks at, and predicts chunks."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel

from hilam_hf.models.acting import ActingConfig, ActingMixin, Normalizer, PolicyInputs, TrunkConfig
from hilam_hf.models.processing import SquareImageProcessorPil
from hilam_hf.video import as_float_frames


@strict
class BrightnessConfig(ActingConfig):
    model_type = "brightness_policy"

    cameras: list[str] = field(default_factory=lambda: ["front"])
    image_size: int = 8
    proprioception_dim: int | None = None
    language_dim: int | None = None
    history: int = 1
    action_dim: int = 3
    chunk_size: int = 2


class BrightnessPolicy(ActingMixin, PreTrainedModel):
    """Acts by how bright its camera's picture is; the second action of a chunk is the first, negated."""

    config: BrightnessConfig
    config_class = BrightnessConfig

    def __init__(self, config: BrightnessConfig):
        super().__init__(config)
        self.gain = nn.Parameter(torch.ones(()))
        self.action_normalizer = Normalizer("actions", config.action_dim)
        self._init_acting()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Normalizer):
            module.init_weights()

    def _trunk_configs(self) -> list[TrunkConfig]:
        return [self.config]

    def _action_normalizer(self) -> Normalizer:
        return self.action_normalizer

    def _predict_chunk(self, inputs: PolicyInputs) -> Tensor:
        frames = as_float_frames(inputs.frames(self.config)["front"])
        brightness = self.gain * frames.mean((1, 2, 3, 4))
        return (brightness[:, None] * torch.tensor([1.0, -1.0]))[..., None].expand(-1, -1, self.config.action_dim)


def make_policy(**options: object) -> BrightnessPolicy:
    policy = BrightnessPolicy(BrightnessConfig(**options))
    policy.action_normalizer.set_min_max(torch.full((3,), -2.0), torch.full((3,), 2.0))
    return policy.eval()


def test_it_acts_in_its_units_and_executes_its_chunks() -> None:
    policy = make_policy(execution="open_loop")
    # 51 of 255 is 0.2, and actions reach from -2 to 2.
    pictures = np.stack([np.full((20, 12, 3), 51, np.uint8), np.full((20, 12, 3), 255, np.uint8)])
    first, second = (policy.select_action({"pixels": {"front": pictures}}) for _ in range(2))
    np.testing.assert_allclose(first, [[0.4] * 3, [2.0] * 3], rtol=1e-6)
    np.testing.assert_allclose(second, -first)


def test_it_says_what_it_looks_at_and_gives() -> None:
    spec = make_policy(execution="open_loop").acting_spec
    assert (spec.cameras, spec.agent_pos_dim, spec.action_dim, spec.executed_chunk_length) == (("front",), None, 3, 2)
    assert make_policy().acting_spec.executed_chunk_length == 1


def test_it_is_saved_with_its_processor(tmp_path: Path) -> None:
    make_policy().save_pretrained(tmp_path)
    assert SquareImageProcessorPil.from_pretrained(tmp_path).size == {"height": 8, "width": 8}
    loaded = BrightnessPolicy.from_pretrained(tmp_path)
    assert loaded.acting_spec.name == str(tmp_path) and loaded.action_normalizer.is_set
