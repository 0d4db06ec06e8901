"""A latent action model of another package: all that it takes to add a kind."""

from collections.abc import Iterable

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.utils import ModelOutput

from hilam_hf.models.latent_actions import InverseDynamicsModel, LatentActionKind, RegressionFDM


@strict
class ToyConfig(PreTrainedConfig):
    model_type = "toy_idm"

    image_size: int = 16
    num_channels: int = 3
    latent_dim: int = 2
    gain: float = 1.0


class ToyIDM(InverseDynamicsModel):
    """How much brighter the left and the right half of the picture become, beside what is usual, times a gain."""

    config: ToyConfig
    base_model_prefix = "idm"
    main_input_name = "frames"
    input_modalities = ("video",)
    usual: Tensor

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.proj = nn.Linear(2, config.latent_dim, bias=False)
        self.register_buffer("usual", torch.zeros(2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.post_init()

    def extract_features(self, frames: Tensor) -> Tensor:
        return torch.stack([half.mean((1, 2, 3)) for half in frames.chunk(2, dim=-1)], dim=1)

    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        return self.config.gain * self.proj(next_features - features - self.usual)

    def forward(self, frames: Tensor, next_frames: Tensor) -> ModelOutput:
        return ModelOutput(latents=self.encode(frames, next_frames))

    @property
    def needs_fit(self) -> bool:
        return bool((self.usual == 0).all())

    def fit(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> "ToyIDM":
        changes = [self.extract_features(after / 255) - self.extract_features(before / 255) for before, after in pairs]
        self.usual.copy_(torch.cat(changes).mean(0))
        return self

    def end_training_step(self, step: int, batch_size: int) -> dict[str, float]:
        self.steps += 1
        return {"toy_pairs": float(step * batch_size)}


def _build(idm_options: dict, fdm_options: dict) -> tuple[ToyIDM, RegressionFDM]:
    idm = ToyIDM(ToyConfig(**idm_options))
    return idm, RegressionFDM.for_idm(idm, **{"hidden_size": 8, "num_blocks": 1} | fdm_options)


TOY = LatentActionKind(
    name="toy",
    description="brightness of both halves; regression of the next frame; 16 and 64 px",
    idm_class=ToyIDM,
    fdm_class=RegressionFDM,
    build=_build,
    training={"learning_rate": 3e-3, "warmup_steps": 0},
    card="toy.md",
)
