"""The observations that an acting policy keeps, as tokens.

Shapes: B rows, N tokens of a step, D token width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor


class TokenHistory:
    """The tokens of each row's last observations, oldest first.

    Rows restart alone, so they hold different numbers of steps. Every row is filled up at its end to the full length:
    a causal trunk does not see the filling, and what it makes of a row does not depend on how long others are.

    Args:
        length: Steps kept.
    """

    def __init__(self, length: int):
        self.length = length
        self._steps: dict[int, deque[Tensor]] = {}  # (N, D) each

    def append(self, tokens: Tensor, rows: Sequence[int]) -> Tensor:
        """Adds one step, dropping the oldest where a row is full.

        Args:
            tokens: (B, 1, N, D).
            rows: B numbers of rows; one that comes more than once must have the same tokens each time.

        Returns:
            (B, length, N, D), the rows' steps.
        """
        for row, step in dict(zip(rows, tokens[:, 0], strict=True)).items():
            self._steps.setdefault(row, deque(maxlen=self.length)).append(step)
        filled = tokens.new_zeros(len(rows), self.length, *tokens.shape[2:])
        for position, row in enumerate(rows):
            for step, token in enumerate(self._steps[row]):
                filled[position, step] = token
        return filled

    def last_step(self, values: Tensor, rows: Sequence[int]) -> Tensor:
        """(B, ...) from (B, steps, ...): what belongs to each row's newest observation."""
        return torch.stack([value[len(self._steps[row]) - 1] for value, row in zip(values, rows, strict=True)])

    def reset(self, indices: Sequence[int] | None = None) -> None:
        """Forgets the steps of some rows, or everything."""
        for row in list(self._steps) if indices is None else indices:
            self._steps.pop(row, None)
