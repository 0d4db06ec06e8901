"""Checkpoints of a training run, written whole or not at all, from which a run goes on bit for bit."""

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError

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
        ValueError: If the checkpoint was made with other options, which would make the continuation another run.
    """
    state = json.loads((checkpoint / STATE_FILE).read_text())
    for name, value in dataclasses.asdict(config).items():
        if name not in FREE_OPTIONS and state["config"].get(name) != value:
            raise ValueError(
                f"{checkpoint} was made with {name}={state['config'].get(name)!r}, this run has {value!r}; "
                "use the same option, or start afresh in another folder"
            )
    accelerator.load_state(str(checkpoint))
    if average is not None:
        average.load(checkpoint)
    for name, callback in _named(callbacks).items():
        if name in state["callbacks"]:
            callback.load_state_dict(state["callbacks"][name])
    return state["step"]


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
