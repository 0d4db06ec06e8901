"""The order of the samples as a function of seed and step alone, so that a run resumes without loader state."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler

from ..data.samples.keys import SampleKey


class ResumableBatchSampler(Sampler[list[Any]]):
    """Endless shuffled batches; batch number n depends on the seed and n only.

    Every epoch is a fresh permutation. A batch may span two epochs, so that all batches have the same size even when
    the data set is smaller than a batch.

    Args:
        num_samples: Size of the data set.
        batch_size: Samples a batch.
        seed: Seed of the permutations.
        start: Number of the first batch to give.
        num_batches: Number of the last batch plus one.
        with_seeds: Give `SampleKey`s instead of indices.
    """

    def __init__(
        self, num_samples: int, batch_size: int, *, seed: int, start: int, num_batches: int, with_seeds: bool = False
    ):
        if num_samples < 1:
            raise ValueError("the data set is empty; give at least one sample")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.start = start
        self.num_batches = num_batches
        self.with_seeds = with_seeds

    def __len__(self) -> int:
        return self.num_batches - self.start

    def __iter__(self) -> Iterator[list[Any]]:
        epoch, permutation = -1, torch.empty(0, dtype=torch.long)
        for number in range(self.start, self.num_batches):
            batch: list[int | SampleKey] = []
            for position in range(number * self.batch_size, (number + 1) * self.batch_size):
                if position // self.num_samples != epoch:
                    epoch = position // self.num_samples
                    generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                    permutation = torch.randperm(self.num_samples, generator=generator)
                index = int(permutation[position % self.num_samples])
                batch.append(SampleKey(index, self.seed * 1_000_003 + position) if self.with_seeds else index)
            yield batch
