"""Ragged batches: where each sequence lies when the valid rows of a batch are stored one after the other.

Shapes: B sequences, L longest sequence, T rows in all (T = B * L when nothing is padding).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class SequenceLayout:
    """Lengths and places of B sequences that are packed into T rows, in batch order.

    Build it with `dense`, `from_mask` or `from_cu_seqlens`; the constructor trusts its arguments.

    The numbers of rows are Python integers because they are tensor shapes, so a layout whose lengths depend on data
    costs one transfer from the device when it is made. Everything else stays on the device and is computed once, when
    first used.
    """

    cu_seqlens: Tensor
    """(B + 1,) int64 cumulative lengths."""
    num_rows: int
    """T, the total number of rows."""
    max_length: int
    """L, the longest sequence."""

    @classmethod
    def dense(cls, batch: int, length: int, device: torch.device | None = None) -> SequenceLayout:
        """The layout of `batch` sequences of equal `length`."""
        return cls(torch.arange(batch + 1, device=device) * length, batch * length, length)

    @classmethod
    def from_lengths(cls, lengths: Tensor) -> SequenceLayout:
        """The layout of sequences of the given `lengths` (B,)."""
        cu_seqlens = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        num_rows, max_length = torch.stack((cu_seqlens[-1], lengths.max())).tolist()
        return cls(cu_seqlens, num_rows, max_length)

    @classmethod
    def from_mask(cls, attention_mask: Tensor) -> SequenceLayout:
        """The layout of the valid rows of a right-padded batch.

        Args:
            attention_mask: (B, L) bool or 0/1, True where the position is valid.

        Raises:
            ValueError: If the mask is not (B, L), has no valid position at all, or a valid position after padding.
        """
        if attention_mask.ndim != 2:
            raise ValueError(
                f"attention_mask: got shape {tuple(attention_mask.shape)}, expected (B, L). Give one row a sequence."
            )
        mask = attention_mask.bool()
        lengths = mask.sum(1)
        has_hole = (mask[:, 1:] & ~mask[:, :-1]).any()
        num_rows, max_length, hole = torch.stack((lengths.sum(), lengths.max(), has_hole.long())).tolist()
        if hole:
            raise ValueError(
                "attention_mask: got a valid position after padding, expected padding on the right only. Move the "
                "padding of every sequence to its end."
            )
        return cls(torch.nn.functional.pad(lengths.cumsum(0), (1, 0)), num_rows, max_length).checked("attention_mask")

    @classmethod
    def from_cu_seqlens(cls, cu_seqlens: Tensor, num_rows: int) -> SequenceLayout:
        """The layout of packed sequences.

        Args:
            cu_seqlens: (B + 1,) integers, cumulative lengths starting with 0.
            num_rows: T, the number of rows that they must add up to.

        Raises:
            ValueError: If `cu_seqlens` does not start at 0, decreases, or does not end at `num_rows`.
        """
        if cu_seqlens.ndim != 1 or len(cu_seqlens) < 2:
            raise ValueError(
                f"cu_seqlens: got shape {tuple(cu_seqlens.shape)}, expected (B + 1,). Give the cumulative lengths, "
                "starting with 0."
            )
        cu_seqlens = cu_seqlens.long()
        lengths = cu_seqlens.diff()
        first, last, shortest, longest = torch.stack(
            (cu_seqlens[0], cu_seqlens[-1], lengths.min(), lengths.max())
        ).tolist()
        if first != 0 or last != num_rows or shortest < 0:
            raise ValueError(
                f"cu_seqlens: got values from {first} to {last} for {num_rows} rows, expected 0 to {num_rows} without "
                "a decrease. Give the cumulative lengths of the packed sequences."
            )
        return cls(cu_seqlens, num_rows, longest).checked("cu_seqlens")

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
    def is_dense(self) -> bool:
        """Whether all sequences have the same length, so that packed and padded rows are the same."""
        return self.num_rows == self.batch_size * self.max_length

    @cached_property
    def lengths(self) -> Tensor:
        """(B,) length of each sequence."""
        return self.cu_seqlens.diff()

    @cached_property
    def sequence_ids(self) -> Tensor:
        """(T,) which sequence each row belongs to."""
        ids = torch.arange(self.batch_size, device=self.cu_seqlens.device)
        return ids.repeat_interleave(self.lengths, output_size=self.num_rows)

    @cached_property
    def positions(self) -> Tensor:
        """(T,) position of each row in its own sequence, counted from 0."""
        rows = torch.arange(self.num_rows, device=self.cu_seqlens.device)
        return rows - self.cu_seqlens[self.sequence_ids]

    @cached_property
    def is_start(self) -> Tensor:
        """(T,) bool, whether a row is the first of its sequence."""
        return self.positions == 0

    @cached_property
    def mask(self) -> Tensor:
        """(B, L) bool, True where the padded batch is valid."""
        return torch.arange(self.max_length, device=self.cu_seqlens.device) < self.lengths[:, None]

    @cached_property
    def _padded_index(self) -> Tensor:
        """(B * L,) packed row of every padded position; some existing row where the position is padding."""
        index = self.cu_seqlens[:-1, None] + torch.arange(self.max_length, device=self.cu_seqlens.device)
        return index.clamp(max=self.num_rows - 1).flatten()

    @cached_property
    def _packed_index(self) -> Tensor:
        """(T,) flat padded position of every packed row."""
        return self.sequence_ids * self.max_length + self.positions

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
        return torch.nn.functional.pad(grid, (0, 0) * (packed.ndim - 1) + (0, extra)) if extra else grid

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
        """The rows where `keep` (T,) is True, and their layout: what one stage of chunking leaves.

        Returns:
            The kept row numbers (T',) and the layout of the kept rows.
        """
        before = torch.nn.functional.pad(keep.cumsum(0), (1, 0))
        inner = SequenceLayout.from_lengths(before[self.cu_seqlens].diff())
        return torch.nonzero_static(keep, size=inner.num_rows).squeeze(1), inner
