"""From predicted chunks to executed actions: temporal aggregation and open loop, for batches whose rows restart alone.

Shapes: B rows, Q chunk, A action length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class TemporalAggregator:
    """Weighted mean of all predictions for the current step, made now and up to Q - 1 steps ago.

    The weights are exp(-decay i), normalised, i counting the available predictions from the oldest.

    Args:
        chunk_size: Q.
        decay: m; larger trusts old predictions more.
    """

    def __init__(self, chunk_size: int, decay: float = 0.01):
        self.chunk_size = chunk_size
        self.decay = decay
        self._chunks: Tensor | None = None  # (B, age, Q, A), the newest chunk at age 0
        self._valid: Tensor | None = None  # (B, age, Q)

    @property
    def needs_chunk(self) -> bool:
        """Always true: it takes a new chunk at every step."""
        return True

    def update(self, chunk: Tensor, valid: Tensor | None = None) -> Tensor:
        """Takes the chunk predicted at this step and returns the action to execute.

        Args:
            chunk: (B, Q, A).
            valid: (B, Q) false for predictions to leave out; all count when absent.

        Returns:
            (B, A).

        Raises:
            ValueError: Wrong shape, another number of rows than before, or nothing valid for this step.
        """
        _check_chunk(chunk, self.chunk_size, self._chunks)
        if self._chunks is None:
            batch, size, length = chunk.shape
            self._chunks = chunk.new_zeros(batch, size, size, length)
            self._valid = torch.zeros(batch, size, size, dtype=torch.bool, device=chunk.device)
        self._chunks = self._chunks.roll(1, dims=1)
        self._valid = self._valid.roll(1, dims=1)
        self._chunks[:, 0] = chunk
        self._valid[:, 0] = True if valid is None else valid
        # A chunk of age a predicted this step as its entry a.
        predictions = self._chunks.diagonal(dim1=1, dim2=2).transpose(1, 2).flip(1)
        present = self._valid.diagonal(dim1=1, dim2=2).flip(1)
        if not bool(present.any(dim=1).all()):
            raise ValueError("A row has no valid prediction for this step.")
        rank = present.cumsum(dim=1) - 1
        weights = torch.exp(-self.decay * rank.to(chunk.dtype)) * present
        return (weights[..., None] * predictions).sum(dim=1) / weights.sum(dim=1, keepdim=True)

    def reset(self, indices: Sequence[int] | None = None) -> None:
        """Forgets the predictions of some rows, or everything."""
        if indices is None:
            self._chunks = self._valid = None
        elif self._valid is not None:
            self._valid[check_rows(indices, len(self._valid))] = False


class OpenLoop:
    """Executes the first actions of a chunk one after the other, then asks for a new chunk.

    Args:
        chunk_size: Q.
        n_action_steps: Actions executed of each chunk; None for all Q.
    """

    def __init__(self, chunk_size: int, n_action_steps: int | None = None):
        self.chunk_size = chunk_size
        self.n_action_steps = chunk_size if n_action_steps is None else n_action_steps
        self._chunk: Tensor | None = None  # (B, Q, A)
        self._next: Tensor | None = None  # (B,) entry to execute next

    @property
    def needs_chunk(self) -> bool:
        """Whether a row has used up its chunk."""
        return self._next is None or bool((self._next >= self.n_action_steps).any())

    def update(self, chunk: Tensor | None = None) -> Tensor:
        """Returns the (B, A) action to execute; rows that have used up their chunk go on with `chunk` (B, Q, A).

        Raises:
            ValueError: A row needs a chunk and none is given, or it has the wrong shape.
        """
        if self.needs_chunk:
            if chunk is None:
                raise ValueError("A row has used up its chunk; pass a new one.")
            _check_chunk(chunk, self.chunk_size, self._chunk)
            if self._next is None:
                self._chunk = chunk
                self._next = torch.zeros(len(chunk), dtype=torch.long, device=chunk.device)
            spent = self._next >= self.n_action_steps
            self._chunk = torch.where(spent[:, None, None], chunk, self._chunk)
            self._next = torch.where(spent, 0, self._next)
        action = self._chunk[torch.arange(len(self._chunk), device=self._chunk.device), self._next]
        self._next = self._next + 1
        return action

    def reset(self, indices: Sequence[int] | None = None) -> None:
        """Drops the chunks of some rows, or everything."""
        if indices is None:
            self._chunk = self._next = None
        elif self._next is not None:
            self._next[check_rows(indices, len(self._next))] = self.n_action_steps


def check_rows(indices: Sequence[int], batch: int) -> list[int]:
    """The rows as a list.

    Raises:
        ValueError: A row is outside the batch.
    """
    rows = [int(index) for index in indices]
    if any(not 0 <= row < batch for row in rows):
        raise ValueError(f"Got rows {rows}; rows must be in 0..{batch - 1} for a batch of {batch}.")
    return rows


def _check_chunk(chunk: Tensor, chunk_size: int, previous: Tensor | None) -> None:
    if chunk.ndim != 3 or chunk.shape[1] != chunk_size:
        raise ValueError(f"chunk must have shape (B, {chunk_size}, A), got {tuple(chunk.shape)}.")
    if previous is not None and len(previous) != len(chunk):
        raise ValueError(f"The batch went from {len(previous)} rows to {len(chunk)}; call reset() before that.")
