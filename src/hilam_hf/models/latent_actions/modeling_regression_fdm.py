"""A forward dynamics model that regresses the next frame in pixel space: the light alternative to UniSkill's diffusion.

A small U-Net over space-to-depth cells predicts the change of the frame; the latent action modulates every residual
block (FiLM, Perez et al. 2018). Shapes: B batch, C channels, H and W pixels, D width of a latent action.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from ...video.pixels import MAX_LEVEL, check_pixel_range
from ..numerics import MeanOverParts
from .configuration_regression_fdm import RegressionFDMConfig
from .dynamics import (
    ForwardDynamicsModel,
    InverseDynamicsModel,
    check_finite_latents,
    check_frames,
    check_pair,
    mean_num_pairs,
)

# Keeps the relative error finite where nothing moves: the square of a tenth of an 8-bit step.
MIN_CHANGE = (0.1 / MAX_LEVEL) ** 2


class ZeroConv2d(nn.Conv2d):
    """A convolution that starts at zero, so that what it adds to starts unchanged."""


class ModulatedResidualBlock(nn.Module):
    """Two 3x3 convolutions around a scale and shift that come from the latent action."""

    def __init__(self, channels: int, condition_dim: int, num_groups: int = 8):
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(num_groups, channels)
        self.modulation = nn.Linear(condition_dim, 2 * channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden_states: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        residual = self.norm2(self.conv1(F.silu(self.norm1(hidden_states))))
        return hidden_states + self.conv2(F.silu(residual * (1 + scale) + shift))


@dataclass
class RegressionFDMOutput(ModelOutput):
    """Output of [`RegressionFDM`].

    Attributes:
        loss: Squared error relative to that of copying the current frame; only with `next_frames`.
        predictions: (B, C, H, W) predicted frames, not yet limited to [0, 1].
    """

    loss: Tensor | None = None
    predictions: Tensor | None = None


class RegressionFDM(ForwardDynamicsModel):
    """Predicts I_{t+k} = I_t + change(I_t, z_t). Before training the change is zero: it copies the frame.

    Example:
        >>> fdm = RegressionFDM(RegressionFDMConfig())
        >>> fdm.predict(torch.rand(2, 3, 64, 64), torch.randn(2, 64)).shape
        torch.Size([2, 3, 64, 64])
    """

    config: RegressionFDMConfig
    base_model_prefix = "fdm"
    main_input_name = "frames"
    input_modalities = ("image",)

    def __init__(self, config: RegressionFDMConfig):
        super().__init__(config)
        width = config.hidden_size
        cell_channels = config.num_channels * config.patch_size**2
        condition_dim = 2 * width

        def blocks(channels: int) -> nn.ModuleList:
            return nn.ModuleList(ModulatedResidualBlock(channels, condition_dim) for _ in range(config.num_blocks))

        # UniSkill, too, normalises the latent before it conditions the prediction.
        self.condition_norm = nn.LayerNorm(config.latent_dim)
        self.condition_proj = nn.Sequential(
            nn.Linear(config.latent_dim, condition_dim), nn.SiLU(), nn.Linear(condition_dim, condition_dim)
        )
        self.in_conv = nn.Conv2d(cell_channels, width, 3, padding=1)
        self.down_blocks = blocks(width)
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.mid_blocks = blocks(2 * width)
        self.up = nn.Conv2d(2 * width, 4 * width, 1)
        self.up_blocks = blocks(width)
        self.out_conv = ZeroConv2d(width, cell_channels, 3, padding=1)
        self.post_init()

    @classmethod
    def for_idm(cls, idm: InverseDynamicsModel, **changes: Any) -> "RegressionFDM":
        """A new model that takes the latent actions of an inverse dynamics model.

        Args:
            idm: The inverse dynamics model.
            **changes: Fields of [`RegressionFDMConfig`] to set.
        """
        return cls(RegressionFDMConfig(**{"latent_dim": idm.config.latent_dim} | changes))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ZeroConv2d):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="linear")
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def forward(
        self,
        frames: Tensor,
        latents: Tensor,
        next_frames: Tensor | None = None,
        mean_over_parts: MeanOverParts | None = None,
    ) -> RegressionFDMOutput:
        """Predicts the frames that follow, and the loss where they are given.

        Args:
            frames: (B, C, H, W) floats in [0, 1], the frames I_t.
            latents: (B, D) latent actions.
            next_frames: (B, C, H, W) floats in [0, 1], the frames I_{t+k}, for the loss.
            mean_over_parts: For a part of a batch, see `hilam_hf.models.numerics.MeanOverParts`; the loss relates its
                errors to the change of the whole batch.

        Raises:
            ValueError: If the frames aren't (B, C, H, W) floats of the model's size or the latents have another width.
        """
        check_frames(frames, self.config.num_channels, self.config.image_size)
        if latents.shape != (len(frames), self.config.latent_dim):
            raise ValueError(
                f"latents must have shape ({len(frames)}, {self.config.latent_dim}), got {tuple(latents.shape)}"
            )
        condition = self.condition_proj(self.condition_norm(latents))
        hidden_states = self.in_conv(F.pixel_unshuffle(frames * 2 - 1, self.config.patch_size))
        for block in self.down_blocks:
            hidden_states = block(hidden_states, condition)
        coarse = self.down(hidden_states)
        for block in self.mid_blocks:
            coarse = block(coarse, condition)
        hidden_states = hidden_states + F.pixel_shuffle(self.up(coarse), 2)
        for block in self.up_blocks:
            hidden_states = block(hidden_states, condition)
        predictions = frames + F.pixel_shuffle(self.out_conv(hidden_states), self.config.patch_size)

        loss = None
        if next_frames is not None:
            check_pair(frames, next_frames)
            check_pixel_range(next_frames)
            error = F.mse_loss(predictions, next_frames)
            if mean_over_parts is None:
                loss = error / (F.mse_loss(next_frames, frames) + MIN_CHANGE)
            else:
                num_pairs, change = self._mean_change(mean_over_parts, frames, next_frames)
                loss = error * len(frames) / num_pairs / (change + MIN_CHANGE)
        return RegressionFDMOutput(loss=loss, predictions=predictions)

    def predict(self, frames: Tensor, latents: Tensor) -> Tensor:
        """Predicted frames (B, C, H, W) in [0, 1] for frames (B, C, H, W) in [0, 1] and latent actions (B, D)."""
        check_finite_latents(latents)
        return self(frames, latents).predictions.clamp(0, 1)

    def loss(self, frames: Tensor, latents: Tensor, next_frames: Tensor) -> Tensor:
        """Squared error of the predictions relative to copying the frame (1 means no better than a copy), a scalar."""
        return self(frames, latents, next_frames).loss

    def loss_of_part(
        self, frames: Tensor, latents: Tensor, next_frames: Tensor, mean_over_parts: MeanOverParts
    ) -> Tensor:
        """See `ForwardDynamicsModel.loss_of_part`; the loss is no mean over pairs, but a quotient of two."""
        return self(frames, latents, next_frames, mean_over_parts).loss

    @torch.no_grad()
    def count_parts(self, mean_over_parts: MeanOverParts, frames: Tensor, next_frames: Tensor) -> None:
        """See `ForwardDynamicsModel.count_parts`."""
        self._mean_change(mean_over_parts, frames, next_frames)

    def _mean_change(
        self, mean_over_parts: MeanOverParts, frames: Tensor, next_frames: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pairs of a part as the mean over the parts, and the mean squared change of the whole batch's frames."""
        num_pairs = mean_num_pairs(frames, mean_over_parts)
        squares = (next_frames - frames).detach().square().flatten(1).mean(1).sum()
        return num_pairs, mean_over_parts("squared_change", squares.float()) / num_pairs
