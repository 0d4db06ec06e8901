"""LAPA's latent action quantization (Ye et al. 2025): discrete latent actions between two frames, and the decoder.

The one model infers latent actions (a spatial, then a temporal transformer, then NSVQ) and predicts frames from them (a
spatial transformer over the first frame's patches that attends to the action). Shapes: B batch, C channels, H and W
pixels, h and w patches along the sides of a frame, D width of a token, N codes of a latent action, K entries of the
codebook, E width of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, overload

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from ...video import check_pixel_range
from ..latent_actions.dynamics import (
    ForwardDynamicsModel,
    InverseDynamicsModel,
    check_finite_latents,
    check_frames,
    check_pair,
)
from ..numerics import upcast
from .configuration_lapa import LapaConfig
from .layers import Attention, LapaTransformer, PositionBias, PositionConv
from .quantization import LatentQuantizer, is_refresh_step


class LapaLatents(NamedTuple):
    """Latent actions in both forms.

    Attributes:
        codes: (B, N) int64 indices into the codebook.
        vectors: (B, N, E) the entries of the codebook that they stand for.
    """

    codes: Tensor
    vectors: Tensor


@dataclass
class LapaOutput(ModelOutput):
    """Output of [`LapaModel`].

    Attributes:
        loss: Mean squared error of the predictions, a scalar.
        perplexity: How many entries of the codebook are in use in this batch (1 to K), as exp of their entropy.
        codes: (B, N) int64 latent actions.
        vectors: (B, N, E) what was decoded: the codes' vectors, or in training their noisy substitutes.
        action_tokens: (B, N, D) tokens that the decoder attended to.
        predictions: (B, C, H, W) predicted frames, not limited to [0, 1].
    """

    loss: Tensor | None = None
    perplexity: Tensor | None = None
    codes: Tensor | None = None
    vectors: Tensor | None = None
    action_tokens: Tensor | None = None
    predictions: Tensor | None = None


class PatchEmbedding(nn.Module):
    """Patches to tokens; a patch is read channel by channel, each row by row."""

    def __init__(self, config: LapaConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        patch_dim = config.num_channels * config.patch_size**2
        self.patch_norm = nn.LayerNorm(patch_dim, eps=config.layer_norm_eps)
        self.proj = nn.Linear(patch_dim, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, C, H, W) to (B, h, w, D)."""
        side = self.patch_size
        patches = rearrange(frames, "b c (h p1) (w p2) -> b h w (c p1 p2)", p1=side, p2=side)
        return self.norm(self.proj(self.patch_norm(patches)))


class LapaModel(InverseDynamicsModel, ForwardDynamicsModel):
    """LAPA's latent action quantization: both the inverse and the forward dynamics model.

    A latent action is a row of `num_codes` codes. `forward` trains both sides at once; a training loop calls
    [`~LapaModel.refresh_codebook`] at the steps that `is_refresh_step` names, after the optimiser's step.

    Example:
        >>> lapa = LapaModel(LapaConfig.preset("tiny")).eval()
        >>> codes = lapa.encode_video(torch.rand(10, 3, 64, 64), stride=4)
        >>> codes.shape, codes.dtype
        (torch.Size([6, 4]), torch.int64)
        >>> lapa.predict(torch.rand(6, 3, 64, 64), codes).shape
        torch.Size([6, 3, 64, 64])
    """

    config: LapaConfig
    config_class = LapaConfig
    base_model_prefix = "lapa"
    main_input_name = "frames"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ("LapaLayer",)

    def __init__(self, config: LapaConfig) -> None:
        super().__init__(config)
        self.patch_embedding = PatchEmbedding(config)
        self.position_bias = PositionBias(config)
        self.spatial_encoder = LapaTransformer(config, config.num_spatial_layers)
        self.temporal_encoder = LapaTransformer(config, config.num_temporal_layers)
        self.quantizer = LatentQuantizer(config)
        self.decoder = LapaTransformer(config, config.num_spatial_layers, has_context=True)
        self.pixel_proj = nn.Linear(config.hidden_size, config.num_channels * config.patch_size**2)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d | PositionConv):
            # PyTorch's defaults, with which the published model starts.
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                bound = module.weight[0].numel() ** -0.5
                init.uniform_(module.bias, -bound, bound)
        else:
            super()._init_weights(module)
        if isinstance(module, Attention):
            init.ones_(module.query_gain)
            init.ones_(module.key_gain)
            if module.null_pairs is not None:
                init.normal_(module.null_pairs)
        elif isinstance(module, LatentQuantizer):
            init.normal_(module.codebook)
            init.zeros_(module.codebook_usage)

    @property
    def codebook(self) -> Tensor:
        """(K, E) vectors of the codes; all positions share them."""
        return self.quantizer.codebook

    def extract_features(self, frames: Tensor) -> Tensor:
        """Patch tokens (B, h, w, D) of frames (B, C, H, W) in [0, 1]."""
        check_frames(frames, self.config.num_channels, self.config.image_size)
        return self.patch_embedding(frames)

    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        """Codes (B, N) int64 from patch tokens (B, h, w, D) of both frames.

        Raises:
            ValueError: If NaN or infinite values arise, to which no code can be given.
        """
        differences = self._encode(features, next_features, self.position_bias())
        if not bool(torch.isfinite(differences).all()):
            raise ValueError(
                "frames: got NaN or infinite features, expected finite ones. Check the frames for NaN, and in float16 "
                "for values far outside [0, 1]."
            )
        return self.quantizer.nearest(differences)

    @overload
    def encode(self, frames: Tensor, next_frames: Tensor, return_vectors: Literal[False] = False) -> Tensor: ...

    @overload
    def encode(self, frames: Tensor, next_frames: Tensor, return_vectors: Literal[True]) -> LapaLatents: ...

    def encode(self, frames: Tensor, next_frames: Tensor, return_vectors: bool = False) -> Tensor | LapaLatents:
        """Latent actions between paired frames.

        Args:
            frames: (B, C, H, W) floats in [0, 1], the frames I_t.
            next_frames: (B, C, H, W) floats in [0, 1], the frames I_{t+k}.
            return_vectors: Give the codes' vectors, too.

        Returns:
            (B, N) int64 codes, or a [`LapaLatents`] with `codes` and `vectors` (B, N, E).

        Raises:
            ValueError: If the batches differ in shape, or frames aren't finite (B, C, H, W) floats of the model's size.
        """
        codes = super().encode(frames, next_frames)
        return LapaLatents(codes, self.codebook[codes]) if return_vectors else codes

    def predict(self, frames: Tensor, latents: Tensor) -> Tensor:
        """Predicted frames.

        Args:
            frames: (B, C, H, W) floats in [0, 1], the frames I_t.
            latents: (B, N) integer codes, or (B, N E) floats, their vectors one after the other, as
                [`~InverseDynamicsModel.latent_vectors`] gives them; any vectors will do.

        Returns:
            (B, C, H, W) floats in [0, 1], the predictions of I_{t+k}.

        Raises:
            ValueError: If frames aren't floats of the model's size, or latent actions have another form.
        """
        check_finite_latents(latents)
        return self._predict(frames, latents).clamp(0, 1)

    def loss(self, frames: Tensor, latents: Tensor, next_frames: Tensor) -> Tensor:
        """Mean squared error of the predictions for given latent actions, a scalar; gradients reach float `latents`.

        Args:
            frames: As in [`~LapaModel.predict`].
            latents: As in [`~LapaModel.predict`].
            next_frames: (B, C, H, W) floats in [0, 1], the frames I_{t+k}.
        """
        predictions = self._predict(frames, latents)
        check_pair(frames, next_frames)
        check_pixel_range(next_frames)
        return F.mse_loss(upcast(predictions), upcast(next_frames))

    def forward(self, frames: Tensor, next_frames: Tensor, noise: Tensor | None = None) -> LapaOutput:
        """Infers the latent actions, predicts the second frames from them, and compares.

        In training, noise is substituted for the quantisation error, the codes that occur are counted for the next
        refresh, and the decoder's own tokens are detached. Otherwise the nearest codes are decoded.

        Args:
            frames: (B, C, H, W) floats in [0, 1], the frames I_t.
            next_frames: (B, C, H, W) floats in [0, 1], the frames I_{t+k}.
            noise: (B, N, E) standard normal numbers for training; None draws them.

        Raises:
            ValueError: If the batches differ in shape, or frames aren't (B, C, H, W) floats of the model's size.
        """
        check_pair(frames, next_frames)
        features, next_features = self.extract_features(torch.cat([frames, next_frames])).chunk(2)
        bias = self.position_bias()
        quantized = self.quantizer(self._encode(features, next_features, bias), noise)
        action_tokens = self.quantizer.action_tokens(quantized.vectors)
        predictions = self._decode(features, action_tokens, bias)
        return LapaOutput(
            loss=F.mse_loss(upcast(predictions), upcast(next_frames)),
            perplexity=quantized.perplexity,
            codes=quantized.codes,
            vectors=quantized.vectors,
            action_tokens=action_tokens,
            predictions=predictions,
        )

    def refresh_codebook(self, batch_size: int, generator: torch.Generator | None = None) -> int:
        """Replaces the entries that were hardly used since the last refresh by those that were; resets the counts.

        To be called by the training loop, in every process, after the optimiser's step. The published code does it
        inside `forward`, between quantising and decoding, and not in step between processes; here all processes
        count together and end with the first one's codebook, and `forward` stays free of what depends on the step. The
        counts are saved with the weights.

        Args:
            batch_size: Pairs of frames that one process sees in a forward pass. Entries that occurred in fewer passes
                than `config.refresh_threshold` of it are replaced.
            generator: CPU generator of the order, where used entries have to be repeated; None is the global one.

        Returns:
            How many entries were replaced.

        Raises:
            ValueError: If `batch_size` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}, expected 1 or more. Give what a process trains with.")
        return self.quantizer.refresh(batch_size, generator)

    def end_training_step(self, step: int, batch_size: int) -> dict[str, float]:
        """Refreshes the codebook at the published steps; see `InverseDynamicsModel.end_training_step`."""
        return {"refreshed_codes": float(self.refresh_codebook(batch_size))} if is_refresh_step(step) else {}

    def _encode(self, features: Tensor, next_features: Tensor, bias: Tensor) -> Tensor:
        """(B, N, E) differences of the two frames' reduced tokens, before quantisation."""
        tokens = torch.stack([features, next_features], dim=1)  # (B, 2, h, w, D)
        grid = tokens.shape[:-1]
        batch, _, height, width = grid
        spatial = self.spatial_encoder(rearrange(tokens, "b t h w d -> (b t) (h w) d"), grid, bias)
        patches = rearrange(spatial, "(b t) (h w) d -> (b h w) t d", b=batch, h=height)
        # Attention over time sees both frames from both: it is not causal and knows no position.
        temporal = self.temporal_encoder(patches, grid)
        first, last = rearrange(temporal, "(b h w) t d -> t b h w d", h=height, w=width)
        return self.quantizer.reduce(last) - self.quantizer.reduce(first)

    def _predict(self, frames: Tensor, latents: Tensor) -> Tensor:
        features = self.extract_features(frames)
        action_tokens = self.quantizer.action_tokens(self._vectors_of(latents, len(frames)))
        return self._decode(features, action_tokens, self.position_bias())

    def _decode(self, features: Tensor, action_tokens: Tensor, bias: Tensor) -> Tensor:
        """(B, C, H, W) predictions from the first frame's (B, h, w, D) tokens and (B, N, D) action tokens."""
        if self.training:
            # As published: the patch embedding learns for the encoder alone.
            features = features.detach()
        batch, height, width, _ = features.shape
        tokens = self.decoder(features.flatten(1, 2), (batch, 1, height, width), bias, action_tokens)
        pixels = rearrange(self.pixel_proj(tokens), "b (h w) c -> b c h w", h=height)
        return F.pixel_shuffle(pixels, self.config.patch_size)

    def _vectors_of(self, latents: Tensor, batch: int) -> Tensor:
        """(B, N, E) vectors of (B, N) codes or (B, N E) floats.

        Raises:
            ValueError: If the shape or a code does not fit.
        """
        config = self.config
        is_float = latents.is_floating_point()
        width = config.vector_dim if is_float else config.num_codes
        if latents.shape != (batch, width) or latents.is_complex() or latents.dtype == torch.bool:
            raise ValueError(
                f"latents: got {latents.dtype} of shape {tuple(latents.shape)}, expected integers of shape ({batch}, "
                f"{config.num_codes}), the codes, or floats of shape ({batch}, {config.vector_dim}), their vectors one "
                "after the other. Take them from encode or latent_vectors."
            )
        if is_float:
            return latents.unflatten(1, (config.num_codes, config.quant_dim))
        if bool(((latents < 0) | (latents >= config.codebook_size)).any()):
            raise ValueError(
                f"latents: got codes from {int(latents.min())} to {int(latents.max())}, expected 0 to "
                f"{config.codebook_size - 1}. Check the model that made them."
            )
        return self.codebook[latents.long()]
