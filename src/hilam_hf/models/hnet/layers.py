"""The layers of a stage: attention, gated MLP, RMS norm, pre-norm residual blocks and their stack.

Rows are packed (T, D): linear maps spend nothing on padding, and only attention spreads the rows over a padded (B, L)
grid. Shapes: T rows, B sequences, L longest sequence, D width, H heads, E head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_hnet import HNetConfig
from .dynamic_chunking import upcast
from .layout import LayerSpec
from .packing import SequenceLayout

_MLP_MULTIPLE = 128


class AttentionContext(NamedTuple):
    """What all attention layers of a stack share, computed once a forward pass."""

    cos: Tensor
    """(L, R / 2) for R rotary channels."""
    sin: Tensor
    """(L, R / 2)."""
    mask: Tensor | None
    """(1, 1, L, L) bool, True where attention is allowed; None is plain causal."""


class HNetRMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, in float32 or wider."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, states: Tensor) -> Tensor:
        states = upcast(states)
        return F.rms_norm(states, self.weight.shape, self.weight.to(states.dtype), self.eps)


class ResidualWriter(nn.Linear):
    """A linear map whose output is added to the residual stream.

    Args:
        in_features: Width of the input.
        out_features: Width of the residual stream.
        num_sublayers: Sub-layers (mixers and MLPs) of this stage and the stages around it, which scale its initial
            weights.
    """

    def __init__(self, in_features: int, out_features: int, num_sublayers: int) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.num_sublayers = num_sublayers


class HNetAttention(nn.Module):
    """Causal multi-head self-attention with an optional window and rotary positions.

    Args:
        config: The backbone's configuration; its `_attn_implementation` picks the kernel.
        stage: The stage that this layer belongs to.
    """

    is_causal = True

    def __init__(self, config: HNetConfig, stage: int) -> None:
        super().__init__()
        width = config.d_model[stage]
        self.config = config
        self.num_heads = config.num_heads[stage]
        self.rotary_dim = config.rotary_emb_dim[stage]
        self.scaling = (width // self.num_heads) ** -0.5
        self.Wqkv = nn.Linear(width, 3 * width, bias=False)
        self.out_proj = ResidualWriter(width, width, num_sublayers(config, stage))

    def forward(self, hidden_states: Tensor, layout: SequenceLayout, context: AttentionContext) -> Tensor:
        """Mixes packed rows (T, D) within each sequence."""
        grid = layout.spread(self.Wqkv(hidden_states))
        grid = grid.view(*grid.shape[:2], 3, self.num_heads, -1)
        query, key, value = grid.permute(2, 0, 3, 1, 4)  # each (B, H, L, E)
        query, key = (rotate(states, context.cos, context.sin, self.rotary_dim) for states in (query, key))
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation or "eager", eager_attention_forward
        )
        mixed, _ = attend(self, query, key, value, context.mask, dropout=0.0, scaling=self.scaling)
        return self.out_proj(layout.pack(mixed.flatten(2)))


class HNetMLP(nn.Module):
    """fc2(value * silu(gate)), value and gate being the two halves of fc1.

    Args:
        config: The backbone's configuration; the hidden width is `d_intermediate` rounded up to a multiple of 128.
        stage: The stage that this MLP belongs to.
    """

    def __init__(self, config: HNetConfig, stage: int) -> None:
        super().__init__()
        width = config.d_model[stage]
        hidden = math.ceil(config.d_intermediate[stage] / _MLP_MULTIPLE) * _MLP_MULTIPLE
        self.fc1 = nn.Linear(width, 2 * hidden, bias=False)
        self.fc2 = ResidualWriter(hidden, width, num_sublayers(config, stage))

    def forward(self, hidden_states: Tensor) -> Tensor:
        value, gate = self.fc1(hidden_states).chunk(2, dim=-1)
        return self.fc2(value * F.silu(gate))


class HNetBlock(GradientCheckpointingLayer):
    """Pre-norm residual block: the mixer, then the MLP if the layout asks for one.

    Args:
        config: The backbone's configuration.
        stage: The stage that this block belongs to.
        spec: Which mixer, and whether an MLP follows.
    """

    def __init__(self, config: HNetConfig, stage: int, spec: LayerSpec) -> None:
        super().__init__()
        if spec.mixer != "t":
            raise ValueError(
                f"arch_layout: got a Mamba2 layer (m or M) at stage {stage} of {config.arch_layout}, expected "
                "attention layers; Mamba2 is not supported in this version. Use t or T instead."
            )
        width = config.d_model[stage]
        self.norm1 = HNetRMSNorm(width, config.rms_norm_eps)
        self.mixer = HNetAttention(config, stage)
        self.norm2 = HNetRMSNorm(width, config.rms_norm_eps) if spec.has_mlp else None
        self.mlp = HNetMLP(config, stage) if spec.has_mlp else None

    def forward(self, residual: Tensor, layout: SequenceLayout, context: AttentionContext) -> Tensor:
        """Adds to the running residual (T, D), which stays in float32."""
        dtype = self.mixer.Wqkv.weight.dtype
        residual = residual + self.mixer(self.norm1(residual).to(dtype), layout, context)
        if self.norm2 is not None and self.mlp is not None:
            residual = residual + self.mlp(self.norm2(residual).to(dtype))
        return residual


class HNetStack(nn.Module):
    """A stack of residual blocks that ends in a norm: an encoder, a decoder or the innermost network.

    Args:
        config: The backbone's configuration.
        stage: The stage that this stack belongs to.
        specs: One entry a block.
    """

    def __init__(self, config: HNetConfig, stage: int, specs: tuple[LayerSpec, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(HNetBlock(config, stage, spec) for spec in specs)
        self.rmsnorm = HNetRMSNorm(config.d_model[stage], config.rms_norm_eps)
        self._context = partial(
            attention_context,
            rotary_dim=config.rotary_emb_dim[stage],
            base=float(config.rotary_base),
            window=config.window_size[stage],
        )

    def forward(self, hidden_states: Tensor, layout: SequenceLayout) -> Tensor:
        """Maps packed rows (T, D) to (T, D) in float32 or wider."""
        residual = upcast(hidden_states)
        context = self._context(layout.max_length, device=residual.device)
        for layer in self.layers:
            residual = layer(residual, layout, context)
        return self.rmsnorm(residual)


def num_sublayers(config: HNetConfig, stage: int) -> int:
    """Number of mixers and MLPs in `stage` and the stages around it."""
    return sum(1 + layer.has_mlp for layout in config.stages[: stage + 1] for layer in layout.layers)


def attention_context(
    length: int, *, rotary_dim: int, base: float, window: int, device: torch.device | None = None
) -> AttentionContext:
    """Rotary angles and the window mask for sequences of up to `length` positions.

    Channel c of the first half turns with channel c + R / 2 by position / base^(2 c / R).
    """
    positions = torch.arange(length, device=device, dtype=torch.float32)
    exponents = torch.arange(0, rotary_dim, 2, device=device, dtype=torch.float32) / max(rotary_dim, 1)
    angles = positions[:, None] * base**-exponents
    mask = None
    if 0 <= window < length - 1:
        distance = positions[:, None] - positions
        mask = ((distance >= 0) & (distance <= window))[None, None]
    return AttentionContext(angles.cos(), angles.sin(), mask)


def rotate(states: Tensor, cos: Tensor, sin: Tensor, rotary_dim: int) -> Tensor:
    """Turns the first `rotary_dim` channels of (B, H, L, E) by the angles of their positions, half-split pairing."""
    if rotary_dim == 0:
        return states
    first, second, rest = states.split((rotary_dim // 2, rotary_dim // 2, states.shape[-1] - rotary_dim), dim=-1)
    cos, sin = cos.to(states.dtype), sin.to(states.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float = 1.0,
    **kwargs: object,
) -> tuple[Tensor, Tensor]:
    """The reference that every attention kernel is compared with.

    Args:
        module: The attention layer.
        query: (B, H, L, E), as `key` and `value`.
        key: See `query`.
        value: See `query`.
        attention_mask: (1, 1, L, L) bool, True where attention is allowed; None is plain causal.
        dropout: Probability of dropping a weight.
        scaling: Factor on the scores.
        **kwargs: Options of other kernels, unused.

    Returns:
        The mixed values (B, L, H, E) and the weights (B, H, L, L).
    """
    if attention_mask is None:
        attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    scores = upcast(query @ key.transpose(2, 3)) * scaling
    weights = scores.masked_fill(~attention_mask, -torch.inf).softmax(-1).to(query.dtype)
    weights = F.dropout(weights, dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights
