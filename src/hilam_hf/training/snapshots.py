"""What a checkpoint holds of a run, and how the run is put back as it was."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..files import read_json
from .callbacks import Callback, TrainingState
from .checkpoints import naming_damage, read_state
from .checkpoints.files import group_names, read_group
from .checkpoints.store import STATE_FILE
from .checkpoints.tensors import model_tensors, optimizer_tensors
from .config import TrainingConfig
from .identity import difference
from .metrics import MetricWindow
from .run_folder import RunFolder

logger = logging.getLogger(__name__)
MODEL, OPTIMIZER = "model", "optimizer"
# Options that may change between a run and its continuation without changing what is computed.
FREE_OPTIONS = {
    "async_checkpoints",
    "final_weights",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "keep_checkpoints",
    "log_every",
    "num_workers",
    "push_to",
    "save_every",
    "tracker",
    "validate_every",
}


@dataclasses.dataclass(kw_only=True)
class Snapshots:
    """Takes and puts back the state of a run: tensors, step, callbacks and the metrics of the present window.

    Random states are not part of it, since every step draws from a seed of its own.
    """

    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    callbacks: Sequence[Callback]
    window: MetricWindow
    config: TrainingConfig
    identity: Mapping[str, Any]
    accumulation: int

    def take(self, state: TrainingState) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Tensors in groups, and the rest as JSON."""
        groups = {MODEL: model_tensors(self.model), OPTIMIZER: optimizer_tensors(self.model, self.optimizer)}
        groups |= {name: tensors for name, each in self._named().items() if (tensors := each.tensors())}
        scaler = self.accelerator.scaler
        return groups, {
            "step": state.step,
            "config": dataclasses.asdict(self.config),
            "identity": dict(self.identity),
            "processes": self.accelerator.num_processes,
            "accumulation": self.accumulation,
            "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
            "callbacks": {name: kept for name, each in self._named().items() if (kept := each.state_dict())},
            "window": self.window.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def restore(self, checkpoint: Path) -> int:
        """Puts the run back as it was at a checkpoint.

        Returns:
            The number of steps done.

        Raises:
            ValueError: The checkpoint is damaged, or of another run, with the first thing in which they differ.
        """
        kept = read_state(checkpoint)
        check_same_run(kept["identity"], self.identity, where=str(checkpoint))
        self._check_options(checkpoint, kept["config"])
        self._tell_of_differences(kept)
        with naming_damage(checkpoint):
            for name, callback in self._named().items():
                if name in kept["callbacks"]:
                    callback.load_state_dict(kept["callbacks"][name])
                elif callback.state_dict():
                    raise ValueError(f"it has no state of the callback {name}; resume with the same callbacks")
            read_group(checkpoint, MODEL, model_tensors(self.model))
            moments = group_names(checkpoint, OPTIMIZER)
            targets = optimizer_tensors(self.model, self.optimizer, dict.fromkeys(moments))
            read_group(checkpoint, OPTIMIZER, targets)
            for name, callback in self._named().items():
                if tensors := callback.tensors():
                    read_group(checkpoint, name, tensors)
            self.window.load_state_dict(kept["window"])
            if self.accelerator.scaler is not None and kept["scaler"] is not None:
                self.accelerator.scaler.load_state_dict(kept["scaler"])
        return int(kept["step"])

    def _check_options(self, checkpoint: Path, made_with: Mapping[str, Any]) -> None:
        for name, value in dataclasses.asdict(self.config).items():
            if name in FREE_OPTIONS or made_with.get(name) == value:
                continue
            if name == "max_steps" and self.config.schedule == "constant_with_warmup" and value > made_with[name]:
                continue
            raise ValueError(
                f"{checkpoint} was made with {name}={made_with.get(name)!r}, this run has {value!r}; "
                "use the same option, or start afresh in another folder"
            )

    def _tell_of_differences(self, kept: Mapping[str, Any]) -> None:
        if not self.accelerator.is_main_process:
            return
        for name, before in kept["versions"].items():
            if version(name) != before:
                logger.warning(
                    "the checkpoint was made with %s %s, this is %s: results may differ in the last digits",
                    name,
                    before,
                    version(name),
                )
        parts, before = self.accelerator.num_processes * self.accumulation, kept["processes"] * kept["accumulation"]
        if parts != before:
            logger.warning(
                "a step now has %d parts instead of %d: the samples are the same, but sums are rounded otherwise, and "
                "dropout and other random draws differ",
                parts,
                before,
            )

    def _named(self) -> dict[str, Callback]:
        named: dict[str, Callback] = {}
        for callback in self.callbacks:
            same = sum(name.partition("-")[0] == callback.name for name in named)
            named[f"{callback.name}-{same + 1}" if same else callback.name] = callback
        return named


def kept_accumulation(folder: RunFolder, num_processes: int) -> int | None:
    """Parts a process that the run in a folder has, where it goes on with as many processes; otherwise None."""
    checkpoint = folder.latest_checkpoint()
    if checkpoint is None:
        return None
    with naming_damage(checkpoint):
        kept = read_json(checkpoint / STATE_FILE)
        return kept["accumulation"] if kept["processes"] == num_processes else None


def check_same_run(kept: Mapping[str, Any], present: Mapping[str, Any], *, where: str) -> None:
    """Refuses to go on with the state of another run.

    Raises:
        ValueError: They differ; with the first thing in which they do, and both sides.
    """
    differing = difference(kept, present)
    if differing is not None:
        name, before, now = differing
        raise ValueError(
            f"{where} belongs to another run: its {name} is {before!r}, that of this run {now!r}; "
            "give what it was made with, or start afresh in another folder"
        )
