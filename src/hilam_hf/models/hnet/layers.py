"""The layers of a stage: gated MLP, pre-norm residual blocks and their stack.

Rows are packed (T, D), so that linear maps spend nothing on padding. Shapes: T rows, D width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ..numerics import upcast
from .attention import AttentionContext, HNetAttention, attention_context, rotary_frequencies
from .cache import KeyValueCache, StackCache
from .configuration_hnet import HNetConfig
from .layout import LayerSpec
from .mamba2.layer import HNetMamba2, Mamba2State
from .packing import SequenceLayout
from .residual import HNetRMSNorm, ResidualWriter, num_sublayers

_MLP_MULTIPLE = 128


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
        width = config.d_model[stage]
        self.norm1 = HNetRMSNorm(width, config.rms_norm_eps)
        self.mixer = HNetAttention(config, stage) if spec.mixer == "t" else HNetMamba2(config, stage)
        self.norm2 = HNetRMSNorm(width, config.rms_norm_eps) if spec.has_mlp else None
        self.mlp = HNetMLP(config, stage) if spec.has_mlp else None

    def forward(
        self,
        residual: Tensor,
        layout: SequenceLayout,
        context: AttentionContext | None,
        cache: KeyValueCache | Mamba2State | None = None,
    ) -> Tensor:
        """Adds to the running residual (T, D), which stays in float32."""
        dtype = self.mixer.out_proj.weight.dtype
        normed = self.norm1(residual).to(dtype)
        if isinstance(self.mixer, HNetAttention):
            mixed = self.mixer(normed, context, cache)
        else:
            mixed = self.mixer(normed, layout, cache)
        residual = residual + mixed
        if self.norm2 is not None and self.mlp is not None:
            residual = residual + self.mlp(self.norm2(residual).to(dtype))
        return residual

    def new_cache(self, batch_size: int) -> KeyValueCache | Mamba2State:
        """An empty cache for the mixer."""
        if isinstance(self.mixer, HNetAttention):
            return KeyValueCache()
        weight = self.mixer.out_proj.weight
        return self.mixer.new_state(batch_size, weight.device, weight.dtype)


class HNetStack(nn.Module):
    """A stack of residual blocks that ends in a norm: an encoder, a decoder or the innermost network.

    Args:
        config: The backbone's configuration.
        stage: The stage that this stack belongs to.
        specs: One entry a block.
    """

    def __init__(self, config: HNetConfig, stage: int, specs: tuple[LayerSpec, ...]) -> None:
        super().__init__()
        self.config = config
        self.stage = stage
        self.has_attention = any(spec.mixer == "t" for spec in specs)
        self.layers = nn.ModuleList(HNetBlock(config, stage, spec) for spec in specs)
        self.rmsnorm = HNetRMSNorm(config.d_model[stage], config.rms_norm_eps)

    def forward(self, hidden_states: Tensor, layout: SequenceLayout, cache: StackCache | None = None) -> Tensor:
        """Maps packed rows (T, D) to (T, D) in float32 or wider; with a cache, rows that continue earlier ones."""
        residual = upcast(hidden_states)
        context = attention_context(layout, self.config, self.stage, cache) if self.has_attention else None
        for index, layer in enumerate(self.layers):
            residual = layer(residual, layout, context, None if cache is None else cache.layers[index])
        if cache is not None:
            cache.advance(layout, None if context is None else context.plan)
        return self.rmsnorm(residual)

    def new_cache(self, batch_size: int, device: torch.device) -> StackCache:
        """An empty cache for sequences that arrive piece by piece."""
        layers = [layer.new_cache(batch_size) for layer in self.layers]
        frequencies = rotary_frequencies(self.config, self.stage, device)
        return StackCache(layers, batch_size, self.config.window_size[self.stage], frequencies)
