"""The transformer layers of LAPA's latent action quantization, after C-ViViT (Villegas et al. 2022).

Shapes: B batch, T = 1 or 2 frames, h and w patches along the sides of a frame, D width of a token, M sequences of S
tokens (the patches of a frame, or a patch over time), N tokens of the context, H heads, E width of one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..attention import eager_attention
from ..numerics import upcast
from .configuration_lapa import LapaConfig

_LOGIT_SCALE = 8.0
_NULL_PAIRS = 2

Grid = tuple[int, int, int, int]
"""B, T, h and w."""


class PositionBias(nn.Module):
    """Attention bias as a function of how far apart two patches are, computed once for each distance."""

    def __init__(self, config: LapaConfig) -> None:
        super().__init__()
        self.side = config.grid_size
        width = config.hidden_size
        self.mlp = nn.Sequential(
            nn.Linear(2, width),
            nn.LeakyReLU(0.1),
            nn.Linear(width, width),
            nn.LeakyReLU(0.1),
            nn.Linear(width, config.num_attention_heads),
        )

    def forward(self) -> Tensor:
        """(H, h w, h w) biases of each query patch (second axis) towards each key patch."""
        weight = self.mlp[0].weight
        exact = torch.promote_types(weight.dtype, torch.float32)
        offsets = torch.arange(1 - self.side, self.side, device=weight.device, dtype=exact)
        pairs = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), dim=-1)  # (2h - 1, 2w - 1, 2)
        biases = self.mlp((pairs.sign() * pairs.abs().log1p()).to(weight.dtype))  # (2h - 1, 2w - 1, H)
        places = torch.arange(self.side, device=weight.device)
        index = places[:, None] - places + self.side - 1
        biases = biases[index[:, None, :, None], index[None, :, None, :]]  # (h, w, h, w, H)
        return rearrange(biases, "h w h2 w2 heads -> heads (h w) (h2 w2)")


class PositionConv(nn.Module):
    """Position encoding generator: each channel's own 3 x 3 x 3 convolution over two frames before and this one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, 1, 3, 3, 3))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """(M, S, D) tokens to the (M, S, D) to be added to them."""
        # Oddity that published weights depend on: memory is read as (B, T, h, w) in whatever order the tokens lie, so
        # that the temporal stack, whose sequences are patches over time, mixes places and frames.
        frames = rearrange(tokens.reshape(*grid, -1), "b t h w d -> b t d h w")
        moved = self._convolve(frames, 2, self.bias)
        # Of the two frames before the first there are only zeros, and no video here has a third one.
        if frames.shape[1] > 1:
            moved = torch.cat([moved[:, :1], moved[:, 1:] + self._convolve(frames[:, :-1], 1)], dim=1)
        return rearrange(moved, "b t d h w -> b t h w d").reshape(tokens.shape)

    def _convolve(self, frames: Tensor, slice_index: int, bias: Tensor | None = None) -> Tensor:
        weight = self.weight[:, :, slice_index]
        moved = F.conv2d(frames.flatten(0, 1), weight, bias, padding=1, groups=len(weight))
        return moved.unflatten(0, frames.shape[:2])


class Attention(nn.Module):
    """Cosine attention with learned gains; of the tokens to themselves, or to a context and learned null pairs."""

    is_causal = False

    def __init__(self, config: LapaConfig, is_cross: bool = False) -> None:
        super().__init__()
        self.config = config
        self.head_dim = config.head_dim
        width, inner = config.hidden_size, config.num_attention_heads * config.head_dim
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=False)
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)
        self.query_gain = nn.Parameter(torch.ones(config.head_dim))
        self.key_gain = nn.Parameter(torch.ones(config.head_dim))
        self.context_norm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=False) if is_cross else None
        shape = (config.num_attention_heads, 2 * _NULL_PAIRS, config.head_dim)
        self.null_pairs = nn.Parameter(torch.empty(shape)) if is_cross else None

    def forward(self, tokens: Tensor, bias: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """(M, S, D) tokens, (H, S, S) bias and (M, N, D) context to (M, S, D)."""
        # Oddity that published weights depend on: only queries come from normalised tokens, keys and values do not.
        source = tokens if self.context_norm is None else self.context_norm(context)
        query = rearrange(self.query(self.norm(tokens)), "m s (h e) -> m h s e", e=self.head_dim)
        key, value = rearrange(self.key_value(source), "m n (two h e) -> two m h n e", two=2, e=self.head_dim)
        if self.null_pairs is not None:
            # Oddity that published weights depend on: keys and values of the null pairs lie in turns.
            null_pairs = self.null_pairs.to(key.dtype)
            null_key, null_value = repeat(null_pairs, "h (pairs two) e -> two m h pairs e", two=2, m=len(key))
            key, value = torch.cat([null_key, key], dim=2), torch.cat([null_value, value], dim=2)
        query, key = (
            (F.normalize(upcast(states), dim=-1) * gain).to(value.dtype)
            for states, gain in ((query, self.query_gain), (key, self.key_gain))
        )
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        mask = None if bias is None else bias[None].to(value.dtype)
        mixed, _ = attend(self, query, key, value, mask, dropout=0.0, scaling=_LOGIT_SCALE, is_causal=False)
        return self.output(mixed.flatten(2))


class FeedForward(nn.Module):
    """Norm, then a gated MLP (GEGLU) of 8 / 3 times the width."""

    def __init__(self, config: LapaConfig) -> None:
        super().__init__()
        width = config.hidden_size
        inner = int(4 * (2 / 3) * width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        # Published order: the gate is the second half.
        value, gate = self.up(self.norm(tokens)).chunk(2, dim=-1)
        return self.down(value * F.gelu(gate))


class LapaLayer(GradientCheckpointingLayer):
    """Position convolution, self-attention, cross-attention where there is a context, feed-forward; all residual."""

    def __init__(self, config: LapaConfig, has_context: bool) -> None:
        super().__init__()
        self.position_conv = PositionConv(config.hidden_size)
        self.attention = Attention(config)
        self.cross_attention = Attention(config, is_cross=True) if has_context else None
        self.feed_forward = FeedForward(config)

    def forward(self, tokens: Tensor, grid: Grid, bias: Tensor | None, context: Tensor | None) -> Tensor:
        tokens = tokens + self.position_conv(tokens, grid)
        tokens = tokens + self.attention(tokens, bias)
        if self.cross_attention is not None:
            tokens = tokens + self.cross_attention(tokens, context=context)
        return tokens + self.feed_forward(tokens)


class LapaTransformer(nn.Module):
    """A stack of layers that ends with a norm."""

    def __init__(self, config: LapaConfig, num_layers: int, has_context: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(LapaLayer(config, has_context) for _ in range(num_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=False)

    def forward(self, tokens: Tensor, grid: Grid, bias: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """(M, S, D) tokens of a (B, T, h, w) video to (M, S, D).

        Args:
            tokens: Sequences in any order of their memory.
            grid: B, T, h and w, with B T h w = M S.
            bias: (H, S, S), added to the scores of self-attention.
            context: (M, N, D) tokens to attend to, where the stack was made to.
        """
        for layer in self.layers:
            tokens = layer(tokens, grid, bias, context)
        return self.norm(tokens)
