"""Ragged batches: where each sequence lies when the valid rows of a batch are stored one after the other.

Shapes: B sequences, L longest sequence, T rows in all (T = B * L when nothing is padding).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_CAPACITY_UNIT = 1024  # capacities are fractions of this, so that their arithmetic is exact on host and device


def _computed_once(function: Callable[[Any], Any]) -> Any:
    """A property computed when first used; `functools.cached_property` takes a lock, which cannot be compiled."""
    name = function.__name__

    def get(self: SequenceLayout) -> Any:
        if name not in self._computed:
            self._computed[name] = function(self)
        return self._computed[name]

    return property(get, doc=function.__doc__)


@dataclass(frozen=True)
class SequenceLayout:
    """Lengths and places of B sequences that are packed into T rows, in batch order.

    Build it with `dense`, `from_lengths`, `from_mask` or `from_cu_seqlens`; the constructor trusts its arguments.

    Numbers of rows are Python integers, because they are tensor shapes. In an *exact* layout they are the true ones;
    where they depend on data, making it costs one transfer from the device. In a *static* layout they are upper bounds
    known without a transfer: the rows that are left over come last and belong to no sequence. They hold finite numbers
    without meaning, and no row of a sequence ever depends on them.
    """

    cu_seqlens: Tensor
    """(B + 1,) int64 cumulative lengths."""
    num_rows: int
    """T, the number of rows, those of no sequence included."""
    max_length: int
    """L, the longest sequence, or a bound on it."""
    is_dense: bool = False
    """Whether all sequences are known to have length L, so that packed and padded rows are the same."""
    host_lengths: tuple[int, ...] | None = None
    """The length of each sequence as Python integers; None if dense or static."""
    # Taken by the constructor, since FSDP copies what layers are given with `dataclasses.replace`.
    _computed: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def dense(cls, batch: int, length: int, device: torch.device | None = None) -> SequenceLayout:
        """The layout of `batch` sequences of equal `length`."""
        return cls(torch.arange(batch + 1, device=device) * length, batch * length, length, is_dense=True)

    @classmethod
    def from_lengths(cls, lengths: Tensor | Sequence[int], device: torch.device | None = None) -> SequenceLayout:
        """The exact layout of sequences of the given `lengths` (B,)."""
        on_device = torch.as_tensor(lengths, device=device).long()
        on_host = tuple(lengths.tolist() if isinstance(lengths, Tensor) else lengths)
        longest = max(on_host)
        return cls(
            F.pad(on_device.cumsum(0), (1, 0)), sum(on_host), longest, all(n == longest for n in on_host), on_host
        )

    @classmethod
    def from_mask(cls, attention_mask: Tensor, *, static: bool = False) -> SequenceLayout:
        """The layout of the valid rows of a right-padded batch.

        Args:
            attention_mask: (B, L) bool or 0/1, True where the position is valid.
            static: Make a static layout of B * L rows; a wrong mask is then found on the device, and is a RuntimeError.

        Raises:
            ValueError: If the mask is not (B, L), has no valid position at all, or a valid position after padding.
        """
        if attention_mask.ndim != 2:
            raise ValueError(
                f"attention_mask: got shape {tuple(attention_mask.shape)}, expected (B, L). Give one row a sequence."
            )
        mask = attention_mask.bool()
        has_hole = (mask[:, 1:] & ~mask[:, :-1]).any()
        problem = (
            "attention_mask: got a valid position after padding, expected padding on the right only. Move the padding "
            "of every sequence to its end."
        )
        lengths = mask.sum(1)
        if static:
            torch._assert_async(~has_hole, problem)
            return cls(F.pad(lengths.cumsum(0), (1, 0)), mask.numel(), mask.shape[1])
        *on_host, hole = torch.cat((lengths, has_hole.long()[None])).tolist()
        if hole:
            raise ValueError(problem)
        return cls.from_lengths(on_host, device=mask.device).checked("attention_mask")

    @classmethod
    def from_cu_seqlens(
        cls, cu_seqlens: Tensor, num_rows: int, max_length: int | None = None, *, static: bool = False
    ) -> SequenceLayout:
        """The layout of packed sequences.

        Args:
            cu_seqlens: (B + 1,) integers, cumulative lengths starting with 0.
            num_rows: T, the number of rows that they must add up to; in a static layout, at most.
            max_length: A bound on the longest sequence, needed for a static layout.
            static: Make a static layout; wrong lengths are then found on the device, and are a RuntimeError.

        Raises:
            ValueError: If `cu_seqlens` does not start at 0, decreases, or does not end at `num_rows`; if a sequence is
                longer than `max_length`, or that is missing.
        """
        if cu_seqlens.ndim != 1 or len(cu_seqlens) < 2:
            raise ValueError(
                f"cu_seqlens: got shape {tuple(cu_seqlens.shape)}, expected (B + 1,). Give the cumulative lengths, "
                "starting with 0."
            )
        cu_seqlens = cu_seqlens.long()
        if static:
            return cls._static_from_cu_seqlens(cu_seqlens, num_rows, max_length)
        steps = cu_seqlens.tolist()
        lengths = [last - first for first, last in pairwise(steps)]
        if steps[0] != 0 or steps[-1] != num_rows or min(lengths) < 0:
            raise ValueError(
                f"cu_seqlens: got values from {steps[0]} to {steps[-1]} for {num_rows} rows, expected 0 to {num_rows} "
                "without a decrease. Give the cumulative lengths of the packed sequences."
            )
        if max_length is not None and max(lengths) > max_length:
            raise ValueError(
                f"max_seqlen: got {max_length}, expected at least the longest sequence, {max(lengths)}. Raise it."
            )
        return cls.from_lengths(lengths, device=cu_seqlens.device).checked("cu_seqlens")

    @classmethod
    def _static_from_cu_seqlens(cls, cu_seqlens: Tensor, num_rows: int, max_length: int | None) -> SequenceLayout:
        if max_length is None:
            raise ValueError(
                "max_seqlen: got none, expected a bound on the longest sequence, since reading cu_seqlens would wait "
                "for the device. Give the longest length that the data has."
            )
        lengths = cu_seqlens.diff()
        fits = (cu_seqlens[0] == 0) & (cu_seqlens[-1] <= num_rows) & (lengths >= 0).all()
        torch._assert_async(
            fits & (lengths <= max_length).all(),
            "cu_seqlens: expected cumulative lengths that start at 0, do not decrease, end at the number of rows or "
            "before, and no sequence longer than max_seqlen.",
        )
        return cls(cu_seqlens, num_rows, max_length)

    def checked(self, source: str) -> SequenceLayout:
        """This layout, if it has any row; `source` names the argument that it came from.

        Raises:
            ValueError: If all sequences are empty.
        """
        if self.num_rows == 0:
            raise ValueError(f"{source}: got no valid position, expected at least one. Remove empty batches.")
        return self

    @property
    def batch_size(self) -> int:
        """B, the number of sequences."""
        return len(self.cu_seqlens) - 1

    @property
    def is_exact(self) -> bool:
        """Whether every row belongs to a sequence and the lengths are known on the host."""
        return self.is_dense or self.host_lengths is not None

    @_computed_once
    def lengths_on_host(self) -> tuple[int, ...]:
        """The length of each sequence of an exact layout."""
        assert self.is_exact
        return (self.max_length,) * self.batch_size if self.host_lengths is None else self.host_lengths

    @_computed_once
    def valid_rows(self) -> Tensor | None:
        """(T,) bool, True at rows of a sequence; None if all are."""
        if self.is_exact:
            return None
        return torch.arange(self.num_rows, device=self.cu_seqlens.device) < self.cu_seqlens[-1]

    @_computed_once
    def lengths(self) -> Tensor:
        """(B,) length of each sequence."""
        return self.cu_seqlens.diff()

    @_computed_once
    def sequence_ids(self) -> Tensor:
        """(T,) which sequence each row belongs to; B for rows of no sequence."""
        rows = torch.arange(self.num_rows, device=self.cu_seqlens.device)
        if self.is_dense:
            return rows if self.max_length == 1 else rows // self.max_length
        return torch.searchsorted(self.cu_seqlens[1:].contiguous(), rows, right=True)

    @_computed_once
    def positions(self) -> Tensor:
        """(T,) position of each row in its own sequence, counted from 0."""
        if self.max_length == 1 and self.is_exact:
            return torch.zeros_like(self.sequence_ids)
        rows = torch.arange(self.num_rows, device=self.cu_seqlens.device)
        return rows - self.cu_seqlens[self.sequence_ids]

    @_computed_once
    def is_start(self) -> Tensor:
        """(T,) bool, whether a row is the first of its sequence."""
        return self.positions == 0

    @_computed_once
    def mask(self) -> Tensor:
        """(B, L) bool, True where the padded batch is valid."""
        return torch.arange(self.max_length, device=self.cu_seqlens.device) < self.lengths[:, None]

    @_computed_once
    def _padded_index(self) -> Tensor:
        """(B * L,) packed row of every padded position; some existing row where the position is padding."""
        index = self.cu_seqlens[:-1, None] + torch.arange(self.max_length, device=self.cu_seqlens.device)
        return index.clamp(max=self.num_rows - 1).flatten()

    @_computed_once
    def _packed_index(self) -> Tensor:
        """(T,) flat padded position of every packed row; that of the first row for rows of no sequence."""
        index = self.sequence_ids * self.max_length + self.positions
        return index if self.valid_rows is None else torch.where(self.valid_rows, index, index[0])

    def pad(self, packed: Tensor, length: int | None = None) -> Tensor:
        """Spreads packed rows (T, ...) over a padded batch (B, L, ...) with zeros (False) at padding.

        Args:
            packed: The rows.
            length: L of the result if longer than the longest sequence.
        """
        grid = self.spread(packed)
        if not self.is_dense:
            mask = self.mask.view(*self.mask.shape, *[1] * (packed.ndim - 1))
            grid = torch.where(mask, grid, torch.zeros((), dtype=packed.dtype, device=packed.device))
        extra = 0 if length is None else length - self.max_length
        return F.pad(grid, (0, 0) * (packed.ndim - 1) + (0, extra)) if extra else grid

    def spread(self, packed: Tensor) -> Tensor:
        """Like `pad`, but cheaper, because rows of other sequences are left at padding positions."""
        shape = (self.batch_size, self.max_length, *packed.shape[1:])
        if self.is_dense:
            return packed.reshape(shape)
        return packed.index_select(0, self._padded_index).view(shape)

    def pack(self, padded: Tensor) -> Tensor:
        """Collects the valid rows of a padded batch (B, L', ...), L' >= L, into (T, ...)."""
        rows = padded[:, : self.max_length].flatten(0, 1)
        return rows if self.is_dense else rows.index_select(0, self._packed_index)

    def select(self, keep: Tensor) -> tuple[Tensor, SequenceLayout]:
        """The rows where `keep` (T,) is True, and their exact layout: what one stage of chunking leaves.

        Returns:
            The kept row numbers (T',) and the layout of the kept rows.
        """
        before = F.pad(keep.cumsum(0), (1, 0))
        inner = SequenceLayout.from_lengths(before[self.cu_seqlens].diff(), device=keep.device)
        return torch.nonzero_static(keep, size=inner.num_rows).squeeze(1), inner

    def select_static(self, keep: Tensor, capacity: float) -> tuple[Tensor, Tensor, SequenceLayout]:
        """Like `select` without a transfer from the device: room for floor(`capacity` * n) + 1 of n rows of a sequence.

        Args:
            keep: (T,) bool.
            capacity: Kept rows per row, in (0, 1], rounded up to a multiple of 1/1024.

        Returns:
            What is kept (T,) bool, which is `keep` but for rows of a sequence that has no room left; the numbers of the
            kept rows (T',); and their static layout.
        """
        share = math.ceil(capacity * _CAPACITY_UNIT)
        if self.valid_rows is not None:
            keep = keep & self.valid_rows
        before = F.pad(keep.cumsum(0), (1, 0))
        room = self.lengths * share // _CAPACITY_UNIT + 1
        first, limit = before[self.cu_seqlens[:-1]], F.pad(room, (0, 1))
        rank = before[1:] - F.pad(first, (0, 1))[self.sequence_ids]
        kept = keep & (rank <= limit[self.sequence_ids])

        counts = F.pad(kept.cumsum(0), (1, 0))
        num_rows = min(self.num_rows, self.num_rows * share // _CAPACITY_UNIT + self.batch_size)
        # Row i goes to slot (kept rows before i); rows that are not kept share a slot at the end that is cut off.
        slot = torch.where(kept, counts[:-1], num_rows)
        rows = torch.arange(self.num_rows, device=keep.device)
        index = torch.zeros(num_rows + 1, dtype=torch.long, device=keep.device).scatter(0, slot, rows)[:num_rows]
        longest = min(self.max_length, self.max_length * share // _CAPACITY_UNIT + 1)
        return kept, index, SequenceLayout(counts[self.cu_seqlens], num_rows, longest)

    def latest(self, rows: Tensor, previous: Tensor) -> Tensor:
        """(B, ...) the last of each sequence's rows (T, ...); for sequences without rows what `previous` holds."""
        last = rows.index_select(0, (self.cu_seqlens[1:] - 1).clamp(min=0))
        has_rows = (self.lengths > 0).view(-1, *[1] * (rows.ndim - 1))
        return torch.where(has_rows, last, previous)
