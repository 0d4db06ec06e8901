"""The BAKU trunk (Haldar et al., 2024): one token per modality, a causal transformer, and a chunk of actions per step.

Shapes: B batch, T steps, N tokens of a step without the action token, D token width, Q chunk, A action length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput

from ...video import as_float_frames, check_pixel_range
from ..attention import eager_attention
from ..loading import StrictLoadingMixin
from ..numerics import MeanOverParts, masked_mean, mean_count
from ..saving import SavingMixin
from .configuration_baku import BakuConfig

SHARED_ENCODER = "shared"


@dataclass
class BakuOutput(ModelOutput):
    """What a [`BakuModel`] returns.

    Args:
        loss: () mean negative log-likelihood, when actions were given.
        action_mean: (B, T, Q, A) predicted chunk of every step.
        features: (B, T, hidden) transformer output at the action tokens.
    """

    loss: Tensor | None = None
    action_mean: Tensor | None = None
    features: Tensor | None = None


class ResidualBlock(nn.Module):
    """ResNet basic block with group norm in the place of batch norm."""

    def __init__(self, in_channels: int, channels: int, stride: int, groups: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.GroupNorm(groups, channels)
            )

    def forward(self, hidden: Tensor) -> Tensor:
        residual = self.shortcut(hidden)
        hidden = F.relu(self.norm1(self.conv1(hidden)))
        hidden = self.norm2(self.conv2(hidden))
        return F.relu(hidden + residual)


class FilmLayer(nn.Module):
    """Per-channel scale and shift from a vector: h (1 + gamma) + beta; the projection's first half is beta."""

    def __init__(self, source_dim: int, channels: int):
        super().__init__()
        self.projection = nn.Linear(source_dim, 2 * channels)

    def forward(self, hidden: Tensor, source: Tensor) -> Tensor:
        beta, gamma = self.projection(source)[..., None, None].chunk(2, dim=1)
        return hidden * (1 + gamma) + beta


class SpatialSoftmax(nn.Module):
    """Expected (row, column) of each of K maps under its softmax, in [-1, 1]: all rows, then all columns."""

    def __init__(self, channels: int, num_keypoints: int):
        super().__init__()
        self.maps = nn.Conv2d(channels, num_keypoints, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        maps = self.maps(hidden)
        height, width = maps.shape[-2:]
        attention = maps.flatten(2).softmax(dim=-1).unflatten(2, (height, width))
        rows = torch.linspace(-1, 1, height, device=maps.device, dtype=maps.dtype)
        columns = torch.linspace(-1, 1, width, device=maps.device, dtype=maps.dtype)
        return torch.cat([attention.sum(3) @ rows, attention.sum(2) @ columns], dim=1)


class VisionEncoder(nn.Module):
    """ResNet stem and stages with group norm, FiLM after every block, and a spatial softmax: one token a frame."""

    def __init__(self, config: BakuConfig):
        super().__init__()
        widths, groups = config.vision_widths, config.vision_groups
        self.stem = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
        self.stem_norm = nn.GroupNorm(groups, widths[0])
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        blocks, films, channels = [], [], widths[0]
        for stage, width in enumerate(widths):
            for index in range(2):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(ResidualBlock(channels, width, stride, groups))
                films.append(FilmLayer(config.token_dim, width))
                channels = width
        self.blocks = nn.ModuleList(blocks)
        self.films = nn.ModuleList(films if config.film_source else [])
        self.spatial_softmax = SpatialSoftmax(channels, config.num_keypoints)
        self.projection = nn.Linear(2 * config.num_keypoints, config.token_dim)

    def forward(self, frames: Tensor, film_source: Tensor | None = None) -> Tensor:
        """(M, 3, H, W) in [0, 1], and (M, D) where there is FiLM, to (M, D)."""
        hidden = self.pool(F.relu(self.stem_norm(self.stem(frames))))
        for index, block in enumerate(self.blocks):
            hidden = block(hidden)
            if self.films:
                hidden = self.films[index](hidden, film_source)
        return self.projection(self.spatial_softmax(hidden))


class Projector(nn.Module):
    """Two-layer perceptron from a vector modality to its token."""

    def __init__(self, in_features: int, token_dim: int):
        super().__init__()
        self.input = nn.Linear(in_features, token_dim)
        self.output = nn.Linear(token_dim, token_dim)

    def forward(self, values: Tensor) -> Tensor:
        return self.output(F.relu(self.input(values)))


class BakuAttention(nn.Module):
    """Causal self-attention over the token sequence."""

    is_causal = True

    def __init__(self, config: BakuConfig):
        super().__init__()
        self.config = config
        self.scaling = (config.hidden_size // config.num_heads) ** -0.5
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, length, _ = hidden.shape
        query, key, value = (
            part.view(batch, length, self.config.num_heads, -1).transpose(1, 2)
            for part in self.qkv(hidden).chunk(3, dim=-1)
        )
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        dropout = self.config.dropout if self.training else 0.0
        attended, _ = attend(self, query, key, value, None, dropout=dropout, scaling=self.scaling)
        return self.output(attended.reshape(batch, length, -1))


class BakuLayer(GradientCheckpointingLayer):
    """Pre-norm transformer block with a tanh-GELU perceptron four times as wide."""

    def __init__(self, config: BakuConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size)
        self.attention = BakuAttention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size)
        self.mlp_up = nn.Linear(config.hidden_size, 4 * config.hidden_size)
        self.mlp_down = nn.Linear(4 * config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden)))
        expanded = F.gelu(self.mlp_up(self.mlp_norm(hidden)), approximate="tanh")
        return hidden + self.dropout(self.mlp_down(expanded))


class BakuTrunk(nn.Module):
    """The transformer: (B, L, D) tokens to (B, L, hidden)."""

    def __init__(self, config: BakuConfig):
        super().__init__()
        self.input_projection = nn.Linear(config.token_dim, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_positions, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList([BakuLayer(config) for _ in range(config.num_layers)])
        self.final_norm = nn.LayerNorm(config.hidden_size)
        self.output_projection = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        length, limit = tokens.shape[1], self.position_embedding.num_embeddings
        if length > limit:
            raise ValueError(f"A sequence of {length} tokens exceeds max_positions={limit}; use fewer steps.")
        positions = torch.arange(length, device=tokens.device)
        hidden = self.dropout(self.input_projection(tokens) + self.position_embedding(positions))
        for layer in self.layers:
            hidden = layer(hidden)
        return self.output_projection(self.final_norm(hidden))


class ActionHead(nn.Module):
    """Deterministic head: two hidden layers as wide as the trunk, then all numbers of the chunk at once."""

    def __init__(self, config: BakuConfig):
        super().__init__()
        self.config = config
        self.hidden1 = nn.Linear(config.hidden_size, config.hidden_size)
        self.hidden2 = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.chunk_size * config.action_dim)

    def forward(self, features: Tensor) -> Tensor:
        hidden = F.relu(self.hidden2(F.relu(self.hidden1(features))))
        chunk = self.output(hidden).unflatten(-1, (self.config.chunk_size, self.config.action_dim))
        return chunk.tanh() if self.config.use_tanh else chunk


class BakuPreTrainedModel(SavingMixin, StrictLoadingMixin, PreTrainedModel):
    """Weight initialisation as published: orthogonal matrices and kernels, standard normal action token."""

    config: BakuConfig
    config_class = BakuConfig
    base_model_prefix = "baku"
    main_input_name = "pixels"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules: ClassVar[list[str]] = ["BakuLayer", "VisionEncoder"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d):
            init.orthogonal_(module.weight, gain=math.sqrt(2) if isinstance(module, nn.Conv2d) else 1.0)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)
        if isinstance(module, BakuModel):
            init.normal_(module.action_token)


class BakuModel(BakuPreTrainedModel):
    """Tokens of every modality, the trunk and the action head.

    Example:
        >>> model = BakuModel(BakuConfig(cameras=["front"], image_size=64, language_dim=8, chunk_size=4))
        >>> output = model(pixels={"front": torch.rand(2, 1, 3, 64, 64)}, language=torch.rand(2, 8))
        >>> output.action_mean.shape
        torch.Size([2, 1, 4, 7])
    """

    def __init__(self, config: BakuConfig):
        super().__init__(config)
        encoders = {}
        if config.cameras and config.has_vision_encoder:
            names = [SHARED_ENCODER] if config.share_camera_encoder else config.cameras
            encoders = {name: VisionEncoder(config) for name in names}
        self.vision_encoders = nn.ModuleDict(encoders)
        self.language_projector = _optional_projector(config.language_dim, config.token_dim)
        self.proprioception_projector = _optional_projector(config.proprioception_dim, config.token_dim)
        self.condition_projector = _optional_projector(config.condition_dim, config.token_dim)
        self.action_token = nn.Parameter(torch.empty(config.token_dim))
        self.trunk = BakuTrunk(config)
        self.action_head = ActionHead(config)
        self.post_init()

    def encode_cameras(
        self, pixels: Mapping[str, Tensor], film_source: Tensor | None = None, cameras: Sequence[str] | None = None
    ) -> Tensor:
        """One token per camera and step.

        Args:
            pixels: (B, T, 3, H, W), uint8 or floats in [0, 1], for each camera.
            film_source: (B, T, D) token that modulates the encoder, where the config has one.
            cameras: Other cameras than the config's, for a shared encoder.

        Returns:
            (B, T, number of cameras, D).

        Raises:
            ValueError: A camera is missing or its frames have the wrong shape.
        """
        names = list(self.config.cameras if cameras is None else cameras)
        dtype = self.action_token.dtype
        frames = torch.stack([as_float_frames(self._frames(pixels, name), dtype) for name in names], dim=2)
        check_pixel_range(frames)
        if film_source is not None:
            film_source = film_source[:, :, None].expand(-1, -1, len(names), -1)
        if self.config.share_camera_encoder:
            return self._encode_frames(SHARED_ENCODER, frames, film_source)
        tokens = [
            self._encode_frames(name, frames[:, :, i], None if film_source is None else film_source[:, :, i])
            for i, name in enumerate(names)
        ]
        return torch.stack(tokens, dim=2)

    def encode_pixels(self, pixels: Mapping[str, Tensor], language: Tensor | None, cameras: Sequence[str]) -> Tensor:
        """Camera tokens (B, T, cameras, D) for another trunk, modulated by language where this one is."""
        prompt = self._project("language", language, self.config.language_dim)
        steps = self._frames(pixels, cameras[0]).shape[1]
        return self.encode_cameras(pixels, self.film_source(prompt, None, steps), cameras)

    def encode_observation(
        self,
        pixels: Mapping[str, Tensor] | None = None,
        language: Tensor | None = None,
        agent_pos: Tensor | None = None,
        condition: Tensor | None = None,
        camera_tokens: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        """Tokens of the instruction and of every step; no step's tokens depend on another step.

        Args:
            pixels: (B, T, 3, H, W), uint8 or floats in [0, 1], for each camera; not needed with `camera_tokens`.
            language: (B, E) instruction embedding.
            agent_pos: (B, T, P) proprioception.
            condition: (B, T, C) condition vector.
            camera_tokens: (B, T, cameras, D) finished camera tokens.

        Returns:
            (B, 1, D) instruction token or None, and (B, T, N, D) tokens of the steps.

        Raises:
            ValueError: An input that the config asks for is missing or has the wrong size.
        """
        prompt = self._project("language", language, self.config.language_dim)
        proprioception = self._project("agent_pos", agent_pos, self.config.proprioception_dim)
        condition_token = self._project("condition", condition, self.config.condition_dim)
        tokens = []
        if self.config.cameras:
            if camera_tokens is None:
                pixels = {} if pixels is None else pixels
                steps = self._frames(pixels, self.config.cameras[0]).shape[1]
                film_source = self.film_source(prompt, condition_token, steps)
                camera_tokens = self.encode_cameras(pixels, film_source)
            tokens.append(camera_tokens)
        tokens += [token[:, :, None] for token in (proprioception, condition_token) if token is not None]
        steps = {token.shape[1] for token in tokens}
        if len(steps) != 1:
            raise ValueError(f"Cameras, agent_pos and condition must have the same number of steps, got {steps}.")
        return None if prompt is None else prompt[:, None], torch.cat(tokens, dim=2)

    def film_source(self, prompt: Tensor | None, condition_token: Tensor | None, steps: int) -> Tensor | None:
        """(B, T, D) token that modulates the vision encoder, from (B, D) language or (B, T, D) condition tokens."""
        if self.config.film_source is None:
            return None
        if self.config.film_source == "condition":
            return condition_token
        return prompt[:, None].expand(-1, steps, -1)

    def insert_action_tokens(self, prompt: Tensor | None, step_tokens: Tensor) -> Tensor:
        """(B, 1, D) and (B, T, N, D) to the sequence (B, 1 + T (N + 1), D): an action token closes every step."""
        batch, steps = step_tokens.shape[:2]
        action = self.action_token.expand(batch, steps, 1, -1)
        sequence = torch.cat([step_tokens, action], dim=2).flatten(1, 2)
        return sequence if prompt is None else torch.cat([prompt, sequence], dim=1)

    def decode(self, prompt: Tensor | None, step_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted chunks (B, T, Q, A) and features (B, T, hidden) from the tokens of `encode_observation`."""
        hidden = self.trunk(self.insert_action_tokens(prompt, step_tokens))
        period = step_tokens.shape[2] + 1
        start = period - 1 + (0 if prompt is None else prompt.shape[1])
        features = hidden[:, start::period]
        return self.action_head(features), features

    def forward(
        self,
        pixels: Mapping[str, Tensor] | None = None,
        language: Tensor | None = None,
        agent_pos: Tensor | None = None,
        condition: Tensor | None = None,
        actions: Tensor | None = None,
        action_mask: Tensor | None = None,
        camera_tokens: Tensor | None = None,
        mean_over_parts: MeanOverParts | None = None,
    ) -> BakuOutput:
        """Predicts a chunk at every step, and its loss against `actions`.

        Args:
            pixels: (B, T, 3, H, W), uint8 or floats in [0, 1], for each camera.
            language: (B, E) instruction embedding.
            agent_pos: (B, T, P) proprioception, normalised.
            condition: (B, T, C) condition vector, such as the predicted skill.
            actions: (B, T, Q, A) targets, normalised.
            action_mask: (B, T, Q) true where an action is real rather than padding; all real when absent.
            camera_tokens: (B, T, cameras, D) in the place of `pixels`.
            mean_over_parts: For a part of a batch, see `hilam_hf.models.numerics.MeanOverParts`.

        Raises:
            ValueError: An input that the config asks for is missing or has the wrong size.
        """
        prompt, step_tokens = self.encode_observation(pixels, language, agent_pos, condition, camera_tokens)
        action_mean, features = self.decode(prompt, step_tokens)
        loss = None
        if actions is not None:
            if actions.shape != action_mean.shape:
                raise ValueError(
                    f"actions must have shape {tuple(action_mean.shape)} (B, T, chunk_size, action_dim), "
                    f"got {tuple(actions.shape)}."
                )
            count = mean_count("actions", actions, action_mask, mean_over_parts)
            loss = gaussian_nll(action_mean, actions, self.config.action_std, action_mask, count)
        return BakuOutput(loss=loss, action_mean=action_mean, features=features)

    def count_parts(
        self,
        mean_over_parts: MeanOverParts,
        *,
        actions: Tensor | None = None,
        action_mask: Tensor | None = None,
        **others: Any,
    ) -> None:
        """Makes the calls of `mean_over_parts` that `forward` makes for the same part of a batch, and nothing else.

        Args:
            mean_over_parts: Gets the names and counts; see `hilam_hf.models.numerics.MeanOverParts`.
            actions: (B, T, Q, A) targets.
            action_mask: (B, T, Q) true where an action is real rather than padding.
            **others: The other arguments of `forward`, which no count depends on.
        """
        if actions is not None:
            mean_count("actions", actions, action_mask, mean_over_parts)

    def _frames(self, pixels: Mapping[str, Tensor], camera: str) -> Tensor:
        if camera not in pixels:
            raise ValueError(f"Camera {camera!r} is missing from pixels; given: {sorted(pixels)}.")
        frames, size = pixels[camera], self.config.image_size
        if frames.ndim != 5 or frames.shape[2:] != (3, size, size):
            raise ValueError(
                f"Frames of camera {camera!r} must have shape (B, T, 3, {size}, {size}), got {tuple(frames.shape)}; "
                f"resize them to image_size={size}."
            )
        return frames

    def _encode_frames(self, encoder: str, frames: Tensor, film_source: Tensor | None) -> Tensor:
        leading = frames.shape[:-3]
        source = None if film_source is None else film_source.flatten(0, -2)
        return self.vision_encoders[encoder](frames.flatten(0, -4), source).unflatten(0, leading)

    def _project(self, name: str, values: Tensor | None, size: int | None) -> Tensor | None:
        if size is None:
            return None
        if values is None:
            raise ValueError(f"{name} is missing; this model expects vectors of length {size}.")
        ndim = 2 if name == "language" else 3
        if values.ndim != ndim or values.shape[-1] != size:
            expected = f"(B, {size})" if name == "language" else f"(B, T, {size})"
            raise ValueError(f"{name} must have shape {expected}, got {tuple(values.shape)}.")
        projector = self.proprioception_projector if name == "agent_pos" else getattr(self, f"{name}_projector")
        return projector(values.to(self.action_token.dtype))


def gaussian_nll(
    mean: Tensor, target: Tensor, std: float, mask: Tensor | None = None, count: Tensor | None = None
) -> Tensor:
    """Mean of -log N(target; mean, std^2) over the numbers whose vector the mask keeps.

    Args:
        mean: (..., A) predictions.
        target: (..., A) targets.
        std: Standard deviation, fixed.
        mask: (...) true where the vector counts.
        count: () the numbers to divide by, for a part of a batch; see `numerics.masked_mean`.
    """
    constant = math.log(std) + 0.5 * math.log(2 * math.pi)
    errors = masked_targets(mean, target, mask) - mean
    return masked_mean((errors / std).square() / 2 + constant, mask, count)


def masked_targets(predictions: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """The (..., A) targets, replaced by the predictions where the mask (...) is false.

    So padding of any value, NaN included, reaches neither the loss nor the gradient.
    """
    return targets if mask is None else torch.where(mask[..., None].bool(), targets, predictions.detach())


def _optional_projector(in_features: int | None, token_dim: int) -> Projector | None:
    return None if in_features is None else Projector(in_features, token_dim)
