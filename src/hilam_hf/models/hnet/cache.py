"""What H-Net remembers of sequences that arrive piece by piece.

Shapes: B sequences, T new rows, L longest piece, W slots for keys, D width, H heads, E head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention_kernels import attend
from .dynamic_chunking import PreviousRows
from .mamba2.layer import Mamba2State
from .packing import SequenceLayout

_FIRST_SLOTS = 64  # of a stack without a window, whose memory grows with the sequence


class StackCache:
    """Keys, values and states of one stack.

    With a window of w positions there are w + 1 slots, the key of position i being in slot i mod (w + 1), so that a
    step costs the same at any length. Without a window the slots double when they are full.

    Args:
        layers: The empty caches of its layers.
        batch_size: B.
        window: Positions that attention reaches back; -1 is no limit.
        frequencies: (R / 2,) rotary frequencies of the stage, on the device of the rows.
    """

    def __init__(
        self, layers: list[KeyValueCache | Mamba2State], batch_size: int, window: int, frequencies: Tensor
    ) -> None:
        device = frequencies.device
        self.layers = layers
        self.window = window
        self.frequencies = frequencies
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.slot_positions = torch.full((batch_size, window + 1 if window >= 0 else _FIRST_SLOTS), -1, device=device)
        self._longest = 0

    def plan(self, layout: SequenceLayout) -> CachedAttentionPlan:
        """How the new rows attend, the same for all layers; makes room for their keys."""
        self._longest += layout.max_length
        slots = self.slot_positions.shape[1]
        if self.window < 0 and self._longest > slots:
            more = max(slots, self._longest - slots)
            self.slot_positions = F.pad(self.slot_positions, (0, more), value=-1)
        return CachedAttentionPlan.of(self, layout)

    def advance(self, layout: SequenceLayout, plan: CachedAttentionPlan | None) -> None:
        """Notes that the rows of `layout` were taken in."""
        if plan is not None and not plan.is_single:
            self.slot_positions[plan.stored_ids, plan.stored_slots] = plan.stored_positions
        self.lengths += layout.lengths

    def reset(self, indices: Tensor) -> None:
        """Forgets the sequences with these numbers."""
        self.lengths[indices] = 0
        self.slot_positions[indices] = -1
        for layer in self.layers:
            layer.reset(indices)


@dataclass(frozen=True)
class CachedAttentionPlan:
    """Where the keys of new rows go, and which keys each new row may see."""

    layout: SequenceLayout
    positions: Tensor
    """(T,) position of each new row in its whole sequence."""
    is_single: bool
    """Whether no sequence has more than one new row."""
    covers_all: bool
    """Whether every sequence has exactly one."""
    num_slots: int
    """W."""
    stored_rows: Tensor
    """Numbers of the new rows whose keys are kept; of no use if single, when all are."""
    stored_ids: Tensor
    """The sequence of each kept row."""
    stored_slots: Tensor
    """The slot of each kept row."""
    stored_positions: Tensor
    """The position of each kept row."""
    mask: Tensor
    """(T, 1, 1, W) bool if single, (B, 1, L, W + L) bool if not: True where attention is allowed."""

    @classmethod
    def of(cls, cache: StackCache, layout: SequenceLayout) -> CachedAttentionPlan:
        """The plan for new rows; for single rows it also enters their positions."""
        slots, ids = cache.slot_positions.shape[1], layout.sequence_ids
        if layout.max_length == 1:
            covers_all = layout.is_dense
            positions = cache.lengths.clone() if covers_all else cache.lengths.index_select(0, ids)
            places = positions % slots
            cache.slot_positions[ids, places] = positions
            seen = cache.slot_positions if covers_all else cache.slot_positions.index_select(0, ids)
            mask = (seen >= 0)[:, None, None]
            return cls(
                layout=layout,
                positions=positions,
                is_single=True,
                covers_all=covers_all,
                num_slots=slots,
                stored_rows=ids,
                stored_ids=ids,
                stored_slots=places,
                stored_positions=positions,
                mask=mask,
            )
        positions = cache.lengths.index_select(0, ids) + layout.positions
        # Earlier rows of a long piece would be overwritten by its later ones: only the last W are kept.
        rows = (layout.lengths[ids] - layout.positions <= slots).nonzero().squeeze(1)
        queries = layout.spread(positions)
        keys = torch.cat((cache.slot_positions, torch.where(layout.mask, queries, -1)), dim=1)
        distance = queries[:, :, None] - keys[:, None, :]
        allowed = (keys >= 0)[:, None, :] & (distance >= 0)
        if cache.window >= 0:
            allowed &= distance <= cache.window
        return cls(
            layout=layout,
            positions=positions,
            is_single=False,
            covers_all=False,
            num_slots=slots,
            stored_rows=rows,
            stored_ids=ids[rows],
            stored_slots=positions[rows] % slots,
            stored_positions=positions[rows],
            mask=allowed[:, None],
        )


class KeyValueCache:
    """Keys and values of one attention layer, in the slots of its stack's cache."""

    def __init__(self) -> None:
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, plan: CachedAttentionPlan) -> Tensor:
        """Mixes values (T, H, E) over old and new rows, and keeps the new ones."""
        # Kernels for packed rows take no mask, so PyTorch's stands in for them.
        name = "" if module.config._attn_implementation in ("eager", "sdpa") else "sdpa"
        keys = self._keys = with_slots(self._keys, key, plan)
        values = self._values = with_slots(self._values, value, plan)
        if plan.is_single:
            keys[plan.stored_ids, plan.stored_slots] = key
            values[plan.stored_ids, plan.stored_slots] = value
            if not plan.covers_all:
                keys, values = (states.index_select(0, plan.stored_ids) for states in (keys, values))
            grids = (states.transpose(1, 2) for states in (query[:, None], keys, values))
            return attend(module, *grids, plan.mask, name=name)[:, 0]

        spread = plan.layout.spread
        seen_keys, seen_values = torch.cat((keys, spread(key)), dim=1), torch.cat((values, spread(value)), dim=1)
        grids = (states.transpose(1, 2) for states in (spread(query), seen_keys, seen_values))
        mixed = plan.layout.pack(attend(module, *grids, plan.mask, name=name))
        keys[plan.stored_ids, plan.stored_slots] = key[plan.stored_rows]
        values[plan.stored_ids, plan.stored_slots] = value[plan.stored_rows]
        return mixed

    def reset(self, indices: Tensor) -> None:
        """Forgets the sequences with these numbers; a masked key counts for nothing only where it is finite."""
        for states in (self._keys, self._values):
            if states is not None:
                states[indices] = 0


def with_slots(states: Tensor | None, new: Tensor, plan: CachedAttentionPlan) -> Tensor:
    """`states` (B, W', H, E) with room for the plan's W slots; zeros where there was none."""
    if states is None:
        return new.new_zeros(plan.layout.batch_size, plan.num_slots, *new.shape[1:])
    missing = plan.num_slots - states.shape[1]
    return F.pad(states, (0, 0, 0, 0, 0, missing)) if missing else states


@dataclass
class LevelCache:
    """What one level remembers of B sequences; `main` is the level inside it, or the innermost stack."""

    main: LevelCache | StackCache | None = None
    encoder: StackCache | None = None
    decoder: StackCache | None = None
    previous: PreviousRows | None = None
    """The latest encoder features of each sequence."""
    smoothed: Tensor | None = None
    """(B, D) the latest value of each sequence's dechunked states."""

    def reset(self, indices: Sequence[int] | Tensor) -> None:
        """Forgets the sequences with these numbers, so that others can take their places.

        Args:
            indices: Numbers from 0 to B - 1.
        """
        rows = torch.as_tensor(indices)
        for part in (self.main, self.encoder, self.decoder):
            if part is not None:
                part.reset(rows)
        if self.previous is not None:
            self.previous.exists[rows] = False
        if self.smoothed is not None:
            self.smoothed[rows] = 0
