"""The loss on held-out samples: always the same ones, shared out over the processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from accelerate.utils import reduce, send_to_device
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from .callbacks import TrainingState
from .config import TrainingConfig
from .metrics import scalars
from .processes import process_state
from .randomness import derived_seed, seed_everything
from .sampler import SampleKey


class HeldOutLoss:
    """Measures a model's own loss, and whatever else it gives as scalars, on held-out samples.

    Called with the state of a run, it returns means over the samples as `validation/loss` and so on. Each batch draws
    from a seed of its own, so that the figures of two validations, or of one and of two processes, can be compared.

    Args:
        dataset: Held-out samples.
        collate_fn: Makes a batch of them, as in training.
        batch_size: Samples of a batch.
        num_samples: Samples that are measured, evenly spread over the data set; None for all.
        seed: Of every draw.

    Raises:
        ValueError: There are no samples.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        collate_fn: Callable[[list[Any]], Mapping[str, Any]] | None = None,
        *,
        batch_size: int,
        num_samples: int | None = None,
        seed: int = 0,
    ):
        count: int = len(dataset)  # type: ignore[arg-type]
        if count == 0:
            raise ValueError("there are no held-out samples to validate on; hold out more or longer episodes")
        rows = evenly_spread(count, num_samples or count)
        self.dataset = dataset
        self.collate_fn = collate_fn or default_collate
        self.seed = seed
        self.batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]

    @torch.no_grad()
    def __call__(self, state: TrainingState) -> dict[str, float]:
        sums: dict[str, Tensor] = {}
        total = torch.zeros((), device=state.device)
        for number, weight in self._own_batches():
            seed_everything(derived_seed(self.seed, number))
            output = state.model(**send_to_device(self._batch(number), state.device))
            for name, value in scalars(output):
                sums[name] = sums.get(name, 0) + value.float() * weight
            total += weight
        names = list(sums)
        values = reduce(torch.stack([*sums.values(), total]), reduction="sum").tolist()
        return {f"validation/{name}": value / values[-1] for name, value in zip(names, values, strict=False)}

    def _own_batches(self) -> Iterator[tuple[int, int]]:
        """Numbers of this process' batches and their samples; all processes have as many, as sharded models need."""
        count, state = len(self.batches), process_state()
        for start in range(0, count, state.num_processes):
            number = start + state.process_index
            yield (number, len(self.batches[number])) if number < count else (0, 0)

    def _batch(self, number: int) -> Any:
        keys: list[Any] = list(self.batches[number])
        if getattr(self.dataset, "draws_samples", False):
            keys = [SampleKey(row, derived_seed(self.seed, number, row)) for row in keys]
        return self.collate_fn([self.dataset[key] for key in keys])


def check_held_out(config: TrainingConfig, fraction: float, *, may_have_split: bool = False) -> None:
    """Checks, before any data are read, that there will be something to validate on where that is asked for.

    Args:
        config: Training options.
        fraction: Of the episodes, that is held out.
        may_have_split: Whether the data may come with a validation split.

    Raises:
        ValueError: There will be nothing, or the fraction is out of range.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"held_out: got {fraction}, expected a fraction in [0, 1)")
    if config.validate_every and not fraction and not may_have_split:
        raise ValueError(f"validate_every={config.validate_every} needs held-out episodes; give --held-out 0.1, say")


def evenly_spread(count: int, limit: int) -> list[int]:
    """At most `limit` of the indices 0 to `count - 1`, the first and the last among them, as evenly as they go."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int)).tolist()
