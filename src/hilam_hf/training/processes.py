"""The processes of a launch: who they are, what one does for all, and how one that fails takes the others along."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import psutil
import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from .errors import TrainingError, TrainingInterrupted

logger = logging.getLogger(__name__)
ValueT = TypeVar("ValueT")
_FAILURE = "hilam_hf/failure"


def process_state() -> PartialState:
    """This process among those of the launch, with its device.

    accelerate's own `PartialState()`, if it is the first to ask, overlooks the launcher's choice of the CPU.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def warn_of_missing_processes() -> None:
    """Logs a warning where a launch asked for more processes than run, as `accelerate launch --cpu` does."""
    asked, running = _processes_asked_for(), process_state().num_processes
    if asked > running:
        logger.warning(
            "the launch asked for %d processes, but %d runs: accelerate starts one on CPUs; use "
            "ACCELERATE_USE_CPU=true torchrun --nproc_per_node %d instead",
            asked,
            running,
            asked,
        )


def _processes_asked_for() -> int:
    asked = int(os.environ.get("WORLD_SIZE", "1"))
    try:
        launcher = psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        return asked
    if not any("accelerate" in word for word in launcher):
        return asked
    # accelerate tells a single process nothing of the number that it was asked for.
    for option, value in itertools.pairwise(launcher):
        if option in ("--num_processes", "--num-processes") and value.isdecimal():
            asked = max(asked, int(value))
    return asked


@cache
def host_group() -> Any:
    """Processes talking through their hosts, so that nobody waits for a device; None where there is one process."""
    if process_state().num_processes == 1:
        return None
    return dist.new_group(backend="gloo")


def greatest_of_all(value: int) -> int:
    """The greatest of a number over all processes."""
    group = host_group()
    if group is None:
        return value
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=group)
    return int(tensor)


def gathered(value: ValueT) -> list[ValueT]:
    """A small value of every process, on every process."""
    group = host_group()
    if group is None:
        return [value]
    values: list[Any] = [None] * process_state().num_processes
    dist.all_gather_object(values, value, group=group)
    return values


def main_process_does(work: Callable[[], ValueT]) -> ValueT:
    """Does something in the main process alone; the others wait, and get its result or raise its error.

    Raises:
        Exception: What `work` raised, in every process; those but the main one need not print it.
    """
    outcome: list[Any] = [None, None]
    state = process_state()
    if state.is_main_process:
        try:
            outcome = [work(), None]
        except Exception as error:
            outcome = [None, error]
    group = host_group()
    if group is not None:
        dist.broadcast_object_list(outcome, src=0, group=group)
    result, failure = outcome
    if failure is not None:
        failure.told_by_another = not state.is_main_process
        raise failure
    return result


@contextmanager
def failing_together() -> Iterator[None]:
    """Tells the other processes why this one fails; one that fails because another did says what that one said."""
    if process_state().num_processes == 1:
        yield
        return
    try:
        yield
    except TrainingInterrupted as interruption:
        # All of them are.
        interruption.told_by_another = not process_state().is_main_process  # type: ignore[attr-defined]
        raise
    except Exception as error:
        if getattr(error, "told_by_another", False):
            raise
        if not _is_lost_connection(error):
            own = f"{process_state().process_index} {error}"
            first = _store().compare_set(_FAILURE, "", own).decode()
            # Where all fail alike, one of them is enough to say so.
            error.told_by_another = first != own and first.partition(" ")[2] == str(error)  # type: ignore[attr-defined]
            raise
        reason = _store().get(_FAILURE).decode() if _store().check([_FAILURE]) else None
        raise TrainingError(_told(reason, error)) from error


def is_told_by_another(error: BaseException) -> bool:
    """Whether another process of the launch raises, and prints, the same error."""
    return getattr(error, "told_by_another", False)


def _told(reason: str | None, error: Exception) -> str:
    if reason is None:
        return (
            "another process of this launch ended without a word, as one that is killed or runs out of memory does; "
            f"its own output may say more ({error})"
        )
    number, _, message = reason.partition(" ")
    return f"process {number} of this launch failed: {message}"


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _is_lost_connection(error: Exception) -> bool:
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        part in words for part in ("connection", "timed out", "gloo", "nccl", "peer", "recvbytes")
    )
