"""The ways to run attention within packed sequences: one for each kind of layout and kernel.

Shapes: T packed rows, B sequences, L longest sequence, H heads, E head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..attention import eager_attention
from .configuration_hnet import HNetConfig
from .packing import SequenceLayout

# Attention of one sequence at a time pays off where padding would cost more pairs of positions than this, per sequence.
_MIN_PADDED_PAIRS = 64**2


class AttentionKernel(Protocol):
    """Mixes values within each sequence: query, key and value (T, H, E), rotated, to (T, H, E)."""

    def __call__(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor: ...


def attention_kernel(layout: SequenceLayout, config: HNetConfig, stage: int) -> AttentionKernel:
    """The way to run attention for a layout, as the configuration's `attn_implementation` asks for.

    `eager` and functions registered with transformers get a padded batch; `sdpa` gets what costs least: a padded batch,
    one sequence after the other, or blocks of neighbouring rows where there is a window; FlashAttention gets packed
    rows, and flex attention packed rows with a block mask.
    """
    implementation, window = config._attn_implementation or "eager", config.window_size[stage]
    window = window if 0 <= window < layout.max_length - 1 else -1
    if implementation.startswith("flash_attention"):
        return VariableLengthKernel(layout, window)
    if implementation == "flex_attention":
        return FlexKernel(_flex_mask(layout, window))
    if implementation == "sdpa":
        if window >= 0:
            return BandedKernel.of(layout, window)
        if _prefers_single_sequences(layout):
            return SequenceKernel(layout.lengths_on_host)
        return PaddedKernel(layout, None)
    return PaddedKernel(layout, _window_mask(layout, window))


@dataclass(frozen=True)
class PaddedKernel:
    """Attention over a padded batch (B, L)."""

    layout: SequenceLayout
    mask: Tensor | None
    """(1, 1, L, L) bool, True where attention is allowed; None is plain causal."""

    def __call__(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        grids = (self.layout.spread(states).transpose(1, 2) for states in (query, key, value))  # (B, H, L, E)
        return self.layout.pack(attend(module, *grids, self.mask))


@dataclass(frozen=True)
class SequenceKernel:
    """Attention over one sequence after the other, which spends nothing on padding."""

    lengths: tuple[int, ...]

    def __call__(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        sequences = zip(*(states.split(self.lengths) for states in (query, key, value)), strict=True)
        return torch.cat(
            [attend(module, *(s[None].transpose(1, 2) for s in rows), None)[0] for rows in sequences if len(rows[0])]
        )


@dataclass(frozen=True)
class BandedKernel:
    """Windowed attention over packed rows in blocks: each block sees itself and the one before, at linear cost."""

    mask: Tensor
    """(N, 1, K, 2 K) bool for N blocks of K rows, True where attention is allowed."""

    @classmethod
    def of(cls, layout: SequenceLayout, window: int) -> BandedKernel:
        """The kernel for a window, which must fit into a block."""
        block = max(16, -(-window // 8) * 8)
        rows = torch.arange(-(-layout.num_rows // block) * block, device=layout.cu_seqlens.device).view(-1, block)
        keys = torch.cat((rows - block, rows), dim=1)
        # Rows that fill up the last block are a sequence of their own.
        ids = F.pad(layout.sequence_ids, (block, rows.numel() - layout.num_rows), value=layout.batch_size + 1)
        distance = rows[:, :, None] - keys[:, None, :]
        same = ids[rows + block][:, :, None] == ids[keys + block][:, None, :]
        return cls((same & (distance >= 0) & (distance <= window))[:, None])

    def __call__(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        blocks, _, block, _ = self.mask.shape
        extra = blocks * block - len(query)
        query, key, value = (
            F.pad(s, (0, 0, 0, 0, 0, extra)).unflatten(0, (blocks, block)) for s in (query, key, value)
        )
        key, value = (torch.cat((F.pad(s[:-1], (0, 0, 0, 0, 0, 0, 1, 0)), s), dim=1) for s in (key, value))
        mixed = attend(module, *(states.transpose(1, 2) for states in (query, key, value)), self.mask)
        return mixed.flatten(0, 1)[: blocks * block - extra]


@dataclass(frozen=True)
class VariableLengthKernel:
    """FlashAttention over packed rows."""

    layout: SequenceLayout
    window: int

    def __call__(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        cu_seqlens = self.layout.cu_seqlens.int()
        options: dict[str, Any] = {
            "cu_seq_lens_q": cu_seqlens,
            "cu_seq_lens_k": cu_seqlens,
            "max_length_q": self.layout.max_length,
            "max_length_k": self.layout.max_length,
            # transformers counts the position itself.
            "sliding_window": self.window + 1 if self.window >= 0 else None,
        }
        grids = (states[None].transpose(1, 2) for states in (query, key, value))
        mixed = attend(module, *grids, None, **options)[0]
        valid = self.layout.valid_rows
        # The kernel leaves memory as it was at rows of no sequence.
        return mixed if valid is None else torch.where(valid[:, None, None], mixed, torch.zeros_like(mixed))


@dataclass(frozen=True)
class FlexKernel:
    """Flex attention over packed rows."""

    block_mask: Any

    def __call__(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        grids = (states[None].transpose(1, 2).contiguous() for states in (query, key, value))
        return attend(module, *grids, self.block_mask)[0]


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, *, name: str = "", **options: Any
) -> Tensor:
    """Calls the configured attention function, or the one that is named: (B, H, L, E) each to (B, L, H, E)."""
    function: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
        name or module.config._attn_implementation or "eager", eager_attention
    )
    mixed: Tensor = function(module, query, key, value, mask, dropout=0.0, scaling=module.scaling, **options)[0]
    return mixed


def _prefers_single_sequences(layout: SequenceLayout) -> bool:
    """Whether padding would cost a processor, which has no launch overhead, more than separate calls do."""
    if layout.is_dense or not layout.is_exact or layout.cu_seqlens.device.type != "cpu":
        return False
    padded = layout.batch_size * layout.max_length**2 - sum(n * n for n in layout.lengths_on_host)
    return padded > _MIN_PADDED_PAIRS * layout.batch_size


def _window_mask(layout: SequenceLayout, window: int) -> Tensor | None:
    """(1, 1, L, L) bool, or None without a window."""
    if window < 0:
        return None
    positions = torch.arange(layout.max_length, device=layout.cu_seqlens.device)
    distance = positions[:, None] - positions
    return ((distance >= 0) & (distance <= window))[None, None]


def _flex_mask(layout: SequenceLayout, window: int) -> Any:
    """The block mask of flex attention: same sequence, causal, within the window."""
    from torch.nn.attention.flex_attention import create_block_mask

    ids = layout.sequence_ids

    def allowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        causal = (ids[query] == ids[key]) & (key <= query)
        return causal if window < 0 else causal & (query - key <= window)

    return create_block_mask(allowed, None, None, layout.num_rows, layout.num_rows, device=ids.device)
