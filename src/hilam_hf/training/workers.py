"""The loader of a run's samples, and its worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from .config import TrainingConfig
from .errors import TrainingError
from .sampler import StepSampler


def make_loader(
    dataset: Dataset[Any],
    sampler: StepSampler,
    config: TrainingConfig,
    collate_fn: Callable[[list[Any]], Any] | None,
    device: torch.device,
) -> DataLoader[Any]:
    """Loads this process' parts of the steps, in their order."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate_fn,
        num_workers=config.num_workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_the_group,
        # Without a generator of its own the loader draws from the global one.
        generator=torch.Generator().manual_seed(config.seed),
    )


@contextmanager
def loading_faults_explained(config: TrainingConfig) -> Iterator[None]:
    """Says in one line what happened in a worker process: that it is gone, or what it could not load."""
    try:
        yield
    except Exception as error:
        message = str(error)
        if message.startswith("DataLoader worker (pid"):
            raise TrainingError(
                f"a process that loads samples is gone ({message.splitlines()[0]}); it may have run out of memory or "
                f"of shared memory: lower num_workers={config.num_workers}, then resume"
            ) from error
        if message.startswith("Caught ") and "in DataLoader worker process" in message:
            # torch puts the worker's whole traceback into the message; its last line is the error itself.
            raise TrainingError(f"a sample cannot be loaded: {message.strip().splitlines()[-1]}") from error
        raise


def _leave_the_group(_: int) -> None:
    """Keeps signals to all processes of a run, such as Ctrl-C, from its workers: the step in hand still needs them."""
    os.setpgrp()
