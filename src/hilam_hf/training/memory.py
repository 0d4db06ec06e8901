"""Memory: how many parts a step has to be made of, and what to change when it ran out."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .config import TrainingConfig
from .processes import greatest_of_all

_GIB = 1 << 30


def fewest_parts(share: int, try_part: Callable[[int], None]) -> int:
    """Into how many parts a process has to divide its share of a step so that one fits into memory.

    Args:
        share: Samples of a step that a process computes.
        try_part: Computes a part of so many samples, forward and backward.

    Returns:
        The least divisor of `share` that fits in every process.

    Raises:
        torch.OutOfMemoryError: Not even one sample fits.
    """
    for parts in (number for number in range(1, share + 1) if share % number == 0):
        if not greatest_of_all(_runs_out(try_part, share // parts)):
            return parts
    raise torch.OutOfMemoryError(
        "not even one sample fits into memory; set gradient_checkpointing=true or mixed_precision=bf16, or choose a "
        "smaller model or smaller frames"
    )


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Within it a model may be tried out: its buffers are put back, and its gradients removed, afterwards."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])


@contextmanager
def out_of_memory_explained(config: TrainingConfig, device: torch.device, part_size: int, step: int) -> Iterator[None]:
    """Says which options to change where a step runs out of the device's memory, and what it needed."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        advice = [
            "gradient_accumulation_steps="
            + ("null, which works out how many parts fit" if part_size > 1 else "1 or a smaller model or frames"),
            *(["gradient_checkpointing=true"] if not config.gradient_checkpointing else []),
            *(["mixed_precision=bf16"] if config.mixed_precision == "no" else []),
            f"global_batch_size below {config.global_batch_size}",
        ]
        raise torch.OutOfMemoryError(
            f"step {step} ran out of memory on {device} with {part_size} samples at a time{_needed(device, error)}; "
            f"try {', '.join(advice)}"
        ) from error


def _needed(device: torch.device, error: torch.OutOfMemoryError) -> str:
    tried = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
    more = f" and another {tried[1]}" if tried else ""
    if device.type != "cuda":
        return f" ({more.removeprefix(' and another ')} more were asked for)" if tried else ""
    held = torch.cuda.max_memory_allocated(device) / _GIB
    total = torch.cuda.get_device_properties(device).total_memory / _GIB
    return f" (it held {held:.1f} GiB{more} of {total:.1f} GiB)"


def _runs_out(try_part: Callable[[int], None], size: int) -> bool:
    try:
        try_part(size)
    except torch.OutOfMemoryError:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True
    return False
