"""Mean and standard deviation over more vectors than fit in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class RunningStatistics:
    """Merges the moments of one block of vectors after another, in float64 (Chan et al., 1979).

    Args:
        dim: Width of a vector.

    Attributes:
        count: Vectors seen.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self._mean: NDArray[np.float64] = np.zeros(dim)
        self._squares: NDArray[np.float64] = np.zeros(dim)

    def update(self, vectors: NDArray[np.floating]) -> None:
        """Takes in a block of shape (N, dim)."""
        block = np.asarray(vectors, dtype=np.float64)
        if not len(block):
            return
        mean = block.mean(axis=0)
        total = self.count + len(block)
        difference = mean - self._mean
        self._squares += ((block - mean) ** 2).sum(axis=0) + difference**2 * (self.count * len(block) / total)
        self._mean += difference * (len(block) / total)
        self.count = total

    @property
    def mean(self) -> NDArray[np.float64]:
        """(dim,), of all vectors seen.

        Raises:
            ValueError: None was seen.
        """
        self._check()
        return self._mean.copy()

    @property
    def std(self) -> NDArray[np.float64]:
        """(dim,), the population's: divided by N, not N - 1.

        Raises:
            ValueError: No vector was seen.
        """
        self._check()
        return np.sqrt(self._squares / self.count)

    def _check(self) -> None:
        if self.count == 0:
            raise ValueError("statistics of no vectors: the corpus has no latent actions")
