"""Checkpoints of a training run, written whole or not at all, from which a run goes on bit for bit."""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import RNG_STATE_NAME, load
from safetensors import SafetensorError

from ..models.model_files import damage_in
from .callbacks import Callback
from .config import TrainingConfig
from .ema import AveragedWeights

STATE_FILE = "training_state.json"
# Options that may change between a run and its continuation without changing what is computed.
FREE_OPTIONS = {"log_every", "validate_every", "save_every", "keep_checkpoints", "tracker", "num_workers"}


def save_checkpoint(
    output_dir: Path,
    accelerator: Accelerator,
    config: TrainingConfig,
    step: int,
    callbacks: Sequence[Callback],
    average: AveragedWeights | None = None,
) -> Path:
    """Writes `output_dir/checkpoint-{step}` under a temporary name, renames it, then drops the oldest checkpoints.

    Raises:
        OSError: If it can't be written (a full disk, say); earlier checkpoints are untouched.
    """
    target = output_dir / f"checkpoint-{step}"
    partial = output_dir / f"checkpoint-{step}.partial"
    if accelerator.is_main_process and partial.exists():
        shutil.rmtree(partial)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(partial), safe_serialization=True)
        if accelerator.is_main_process:
            if average is not None:
                average.save(partial)
            state = {"step": step, "config": dataclasses.asdict(config), "callbacks": _callback_states(callbacks)}
            (partial / STATE_FILE).write_text(json.dumps(state))
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(
            f"cannot write the checkpoint {target}: {error}; free some space, then resume from the one before"
        ) from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        for old in _checkpoints(output_dir)[: -config.keep_checkpoints]:
            shutil.rmtree(old)
    return target


def load_checkpoint(
    checkpoint: Path,
    accelerator: Accelerator,
    config: TrainingConfig,
    callbacks: Sequence[Callback],
    average: AveragedWeights | None = None,
) -> int:
    """Puts model, averaged weights, optimiser, random states and callbacks back as they were; returns the step.

    Raises:
        ValueError: If the checkpoint was made with other options, which would make the continuation another run; or
            if it is damaged, with what to do.
    """
    with _naming_damage(checkpoint):
        state = json.loads((checkpoint / STATE_FILE).read_text())
        made_with = dict(state["config"])
    for name, value in dataclasses.asdict(config).items():
        if name not in FREE_OPTIONS and made_with.get(name) != value:
            raise ValueError(
                f"{checkpoint} was made with {name}={made_with.get(name)!r}, this run has {value!r}; "
                "use the same option, or start afresh in another folder"
            )
    with _naming_damage(checkpoint):
        # accelerate goes on without random states that it cannot read, and the run would be another one.
        load(checkpoint / f"{RNG_STATE_NAME}_{accelerator.process_index}.pkl")
        accelerator.load_state(str(checkpoint))
        if average is not None:
            average.load(checkpoint)
        for name, callback in _named(callbacks).items():
            if name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][name])
        return int(state["step"])


@contextmanager
def _naming_damage(checkpoint: Path) -> Iterator[None]:
    """Turns whatever the readers of a checkpoint's files say into one line with the remedy."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = damage_in(checkpoint) or next(iter(str(error).splitlines()), type(error).__name__)
        before = [path.name for path in _checkpoints(checkpoint.parent) if path != checkpoint]
        after = f"resume from the one before, {before[-1]}" if before else "start afresh"
        raise ValueError(
            f"{checkpoint} cannot be read, or is of another model ({reason}); remove this folder, then {after}"
        ) from error


def latest_checkpoint(output_dir: Path) -> Path | None:
    """The checkpoint with the highest step in `output_dir`, or None."""
    checkpoints = _checkpoints(output_dir)
    return checkpoints[-1] if checkpoints else None


def _checkpoints(output_dir: Path) -> list[Path]:
    found = [path for path in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def _named(callbacks: Sequence[Callback]) -> dict[str, Callback]:
    return {f"{index}-{type(callback).__name__}": callback for index, callback in enumerate(callbacks)}


def _callback_states(callbacks: Sequence[Callback]) -> Mapping[str, Any]:
    return {name: callback.state_dict() for name, callback in _named(callbacks).items()}
