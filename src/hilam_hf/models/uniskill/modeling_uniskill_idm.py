"""UniSkill's inverse dynamics model (Kim et al. 2025): a spatio-temporal transformer over the patches of two frames.

Shapes: B batch, T = 2 frames, S patches a frame, D hidden width, C channels, H heads.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput

from ..dynamics import InverseDynamicsModel, check_frames
from .configuration_uniskill import UniSkillIDMConfig


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """The reference for the fast attention kernels; (B, H, S, D) in, (B, S, H, D) out."""
    scores = query @ key.transpose(-1, -2) * scaling
    if module.is_causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, float("-inf"))
    weights = scores.softmax(-1)
    return (weights @ value).transpose(1, 2), weights


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values (rows in this order)."""

    def __init__(self, config: UniSkillIDMConfig, is_causal: bool):
        super().__init__()
        self.config = config
        self.is_causal = is_causal
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.in_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        batch, length, _ = hidden_states.shape
        # (B, S, 3D) -> 3 x (B, H, S, D / H)
        query, key, value = self.in_proj(hidden_states).view(batch, length, 3, -1, self.head_dim).permute(2, 0, 3, 1, 4)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        output, _ = attend(
            self, query, key, value, None, dropout=0.0, scaling=self.head_dim**-0.5, is_causal=self.is_causal
        )
        return self.out_proj(output.reshape(batch, length, -1))


class SpatioTemporalBlock(GradientCheckpointingLayer):
    """Attention among the patches of a frame, causal attention along time at a patch, then an MLP; pre-norm."""

    def __init__(self, config: UniSkillIDMConfig):
        super().__init__()
        width = config.hidden_size
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.spatial_attention = Attention(config, is_causal=False)
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.temporal_attention = Attention(config, is_causal=True)
        self.norm3 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.mlp_ratio * width), nn.GELU(), nn.Linear(config.mlp_ratio * width, width)
        )

    def forward(self, hidden_states: Tensor) -> Tensor:
        batch, time, patches, _ = hidden_states.shape
        spatial = self.spatial_attention(self.norm1(hidden_states).flatten(0, 1))  # (B * T, S, D)
        hidden_states = hidden_states + spatial.unflatten(0, (batch, time))
        temporal = self.norm2(hidden_states).transpose(1, 2).flatten(0, 1)  # (B * S, T, D)
        temporal = self.temporal_attention(temporal).unflatten(0, (batch, patches))
        hidden_states = hidden_states + temporal.transpose(1, 2)
        return hidden_states + self.mlp(self.norm3(hidden_states))


@dataclass
class UniSkillIDMOutput(ModelOutput):
    """Output of [`UniSkillIDM`].

    Attributes:
        latents: (B, latent_dim) latent actions.
        last_hidden_state: (B, 2, S, D) patch tokens of both frames after the last block.
    """

    latents: Tensor | None = None
    last_hidden_state: Tensor | None = None


class UniSkillIDM(InverseDynamicsModel):
    """UniSkill's inverse dynamics model with a continuous latent action.

    Example:
        >>> idm = UniSkillIDM(UniSkillIDMConfig())
        >>> idm.encode_video(torch.rand(10, 3, 64, 64), stride=4).shape
        torch.Size([6, 64])
    """

    config: UniSkillIDMConfig
    base_model_prefix = "idm"
    main_input_name = "frames"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ("SpatioTemporalBlock",)

    def __init__(self, config: UniSkillIDMConfig):
        super().__init__(config)
        width = config.hidden_size
        self.patch_embedding = nn.Conv2d(config.num_channels, width, config.patch_size, stride=config.patch_size)
        self.spatial_positions = nn.Parameter(torch.zeros(1, 1, config.num_patches, width))
        self.temporal_positions = nn.Parameter(torch.zeros(1, 2, 1, width))
        self.blocks = nn.ModuleList(SpatioTemporalBlock(config) for _ in range(config.num_hidden_layers))
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.latent_proj = nn.Linear(width, config.latent_dim)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            # A fixed 0.02 would leave layers this narrow almost silent.
            init.normal_(module.weight, std=module.in_features**-0.5)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)
        if isinstance(module, UniSkillIDM):
            init.normal_(module.spatial_positions, std=self.config.initializer_range)
            init.normal_(module.temporal_positions, std=self.config.initializer_range)

    def extract_features(self, frames: Tensor) -> Tensor:
        """Patch features (B, S, D) of frames (B, C, H, W) in [0, 1]."""
        check_frames(frames, self.config.num_channels, self.config.image_size)
        return self.patch_embedding(frames * 2 - 1).flatten(2).transpose(1, 2)

    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        """Latent actions (B, latent_dim) from patch features (B, S, D) of both frames."""
        return self._pool(self._transform(features, next_features))

    def forward(self, frames: Tensor, next_frames: Tensor) -> UniSkillIDMOutput:
        """Latent actions between `frames` and `next_frames`, both (B, C, H, W) floats in [0, 1]."""
        hidden_states = self._transform(self.extract_features(frames), self.extract_features(next_frames))
        return UniSkillIDMOutput(latents=self._pool(hidden_states), last_hidden_state=hidden_states)

    def _transform(self, features: Tensor, next_features: Tensor) -> Tensor:
        hidden_states = torch.stack([features, next_features], dim=1)  # (B, 2, S, D)
        hidden_states = hidden_states + self.spatial_positions + self.temporal_positions
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states

    def _pool(self, hidden_states: Tensor) -> Tensor:
        # Attention along time is causal, so only the second frame's tokens have seen both frames.
        return self.latent_proj(self.norm(self.proj(hidden_states[:, -1].mean(1))))
