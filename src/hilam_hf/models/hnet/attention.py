"""The causal self-attention layer on packed rows.

Shapes: T packed rows, D width, H heads, E head width, R rotary channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention_kernels import AttentionKernel, attention_kernel
from .cache import CachedAttentionPlan, KeyValueCache, StackCache
from .configuration_hnet import HNetConfig
from .packing import SequenceLayout
from .residual import ResidualWriter, num_sublayers


@dataclass(frozen=True)
class AttentionContext:
    """What all attention layers of a stack share, computed once a forward pass."""

    cos: Tensor
    """(T, 1, R / 2)."""
    sin: Tensor
    """(T, 1, R / 2)."""
    kernel: AttentionKernel | None
    """None where sequences continue from a cache."""
    plan: CachedAttentionPlan | None
    """Where keys go and which are seen, with a cache."""


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

    def forward(self, hidden_states: Tensor, context: AttentionContext, cache: KeyValueCache | None = None) -> Tensor:
        """Mixes packed rows (T, D) within each sequence."""
        rows, heads = len(hidden_states), self.num_heads
        rotated, value = self.Wqkv(hidden_states).view(rows, 3 * heads, -1).split((2 * heads, heads), dim=1)
        query, key = rotate(rotated, context.cos, context.sin, self.rotary_dim).split(heads, dim=1)
        if cache is not None:
            assert context.plan is not None
            mixed = cache.attend(self, query, key, value, context.plan)
        else:
            assert context.kernel is not None
            mixed = context.kernel(self, query, key, value)
        return self.out_proj(mixed.flatten(1))


def attention_context(
    layout: SequenceLayout, config: HNetConfig, stage: int, cache: StackCache | None = None
) -> AttentionContext:
    """Rotary angles and the kernel for one stack of `stage`.

    Channel c of the first half turns with channel c + R / 2 by position / base^(2 c / R).
    """
    if cache is not None:
        plan = cache.plan(layout)
        angles = plan.positions[:, None, None] * cache.frequencies
        return AttentionContext(angles.cos(), angles.sin(), None, plan)
    angles = layout.positions[:, None, None] * rotary_frequencies(config, stage, layout.cu_seqlens.device)
    return AttentionContext(angles.cos(), angles.sin(), attention_kernel(layout, config, stage), None)


def rotary_frequencies(config: HNetConfig, stage: int, device: torch.device | None = None) -> Tensor:
    """(R / 2,) by how much each channel turns from one position to the next, in radians."""
    rotary_dim = config.rotary_emb_dim[stage]
    channels = torch.arange(0, rotary_dim, 2, device=device, dtype=torch.float32)
    return float(config.rotary_base) ** -(channels / max(rotary_dim, 1))


def rotate(states: Tensor, cos: Tensor, sin: Tensor, rotary_dim: int) -> Tensor:
    """Turns the first `rotary_dim` channels of (T, H, E) by the angles of their positions, half-split pairing."""
    if rotary_dim == 0:
        return states
    first, second, rest = states.split((rotary_dim // 2, rotary_dim // 2, states.shape[-1] - rotary_dim), dim=-1)
    cos, sin = cos.to(states.dtype), sin.to(states.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)
