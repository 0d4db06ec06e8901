"""The order of the samples as a function of seed and step alone, so that a run resumes without loader state."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler

from ..data.samples.keys import SampleKey


class StepSampler(Sampler[list[Any]]):
    """Endless shuffled samples, step by step: those of step n depend on the seed and n only.

    Every epoch is a fresh permutation. A step may span two epochs, so that all steps have as many samples even when the
    data set is smaller than a batch. A step's samples are shared out in parts of the same size: part j of step n holds
    its samples j * B to (j + 1) * B, and process p of P computes parts p, P + p, 2 P + p and so on, one after the
    other. Two processes with a part each thus compute the parts of one process with two.

    Args:
        num_samples: Size of the data set.
        global_batch_size: Samples of a step.
        seed: Seed of the permutations.
        first_step: Steps that are done.
        num_steps: Steps of the whole run.
        process: p, of this process.
        num_processes: P.
        accumulation: Parts of a step that each process computes.
        with_seeds: Give `SampleKey`s instead of rows.

    Raises:
        ValueError: The data set is empty, or the parts cannot have the same size.
    """

    def __init__(
        self,
        num_samples: int,
        global_batch_size: int,
        *,
        seed: int,
        num_steps: int,
        first_step: int = 0,
        process: int = 0,
        num_processes: int = 1,
        accumulation: int = 1,
        with_seeds: bool = False,
    ):
        if num_samples < 1:
            raise ValueError("the data set is empty; give at least one sample")
        parts = num_processes * accumulation
        if global_batch_size % parts:
            below = global_batch_size // parts * parts
            nearest = " or ".join(str(size) for size in (below, below + parts) if size)
            raise ValueError(
                f"global_batch_size={global_batch_size} cannot be shared evenly by {num_processes} processes with "
                f"{accumulation} accumulated batches each; choose {nearest}"
            )
        self.num_samples = num_samples
        self.global_batch_size = global_batch_size
        self.part_size = global_batch_size // parts
        self.seed = seed
        self.first_step = first_step
        self.num_steps = num_steps
        self.process = process
        self.num_processes = num_processes
        self.accumulation = accumulation
        self.with_seeds = with_seeds
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.long)

    def __len__(self) -> int:
        return (self.num_steps - self.first_step) * self.accumulation

    def __iter__(self) -> Iterator[list[Any]]:
        for step in range(self.first_step, self.num_steps):
            for number in range(self.accumulation):
                part = number * self.num_processes + self.process
                start = step * self.global_batch_size + part * self.part_size
                yield [self._sample(position) for position in range(start, start + self.part_size)]

    def rows(self, step: int) -> list[int]:
        """Rows of all samples of a step, counted from 0, over all processes."""
        start = step * self.global_batch_size
        return [self._row(position) for position in range(start, start + self.global_batch_size)]

    def _sample(self, position: int) -> Any:
        row = self._row(position)
        return SampleKey(row, self.seed * 1_000_003 + position) if self.with_seeds else row

    def _row(self, position: int) -> int:
        epoch = position // self.num_samples
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._permutation = epoch, torch.randperm(self.num_samples, generator=generator)
        return int(self._permutation[position % self.num_samples])
