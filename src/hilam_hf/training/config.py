"""Training configuration: a keyword-only dataclass that reads YAML files and `key=value` overrides."""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml

from ..hints import did_you_mean
from .schedules import learning_rate_schedule
from .trackers import require_tracker

ConfigT = TypeVar("ConfigT")


Schedule = Literal[
    "constant_with_warmup",
    "cosine",
    "cosine_with_min_lr",
    "inverse_sqrt",
    "linear",
    "polynomial",
    "warmup_stable_decay",
]
FinalWeights = Literal["last", "average", "best"]


@dataclass(kw_only=True)
class TrainingConfig:
    """What one run of [`train`] needs besides the model and the data.

    Attributes:
        max_steps: Optimiser steps. May grow when a run is resumed under "constant_with_warmup", whose rate does not
            depend on it.
        global_batch_size: Samples of an optimiser step, over all processes and accumulated batches together.
        gradient_accumulation_steps: Batches that each process makes of its share of a step. None: the fewest that fit
            into the device's memory, found out before the first step.
        learning_rate: Peak learning rate of AdamW.
        schedule: How the learning rate goes: a schedule of transformers that depends on the step alone.
        schedule_options: What the schedule takes besides, as `num_decay_steps` of "warmup_stable_decay" or
            `min_lr_rate` of "cosine_with_min_lr".
        warmup_steps: Steps over which the learning rate rises linearly from zero.
        weight_decay: AdamW's decoupled weight decay; biases, norms and other vectors are exempt.
        max_grad_norm: Gradients are scaled down to at most this global norm; None leaves them as they are.
        mixed_precision: "no", "fp16" or "bf16". A step whose gradients overflow in fp16 counts as a step, but changes
            neither the weights nor their average; the metric `skipped_steps` is the fraction of such steps.
        gradient_checkpointing: Compute activations again in the backward pass rather than keeping them.
        ema_decay: Decay of an exponential moving average of the weights, in (0, 1), such as 0.999. None: no average.
        seed: Decides the order of the samples and every random draw of model and data.
        num_workers: Processes that load samples; 0 loads in the training process.
        log_every: Steps between two entries of the history.
        validate_every: Steps between two validations, with the averaged weights if there are any; the last step is
            validated, too. 0: no validation. It needs held-out data.
        validation_samples: Held-out samples that are measured, evenly spread over all of them. None: all.
        save_every: Steps between two checkpoints; 0 saves one only when the run is interrupted.
        keep_checkpoints: Number of latest checkpoints that are kept.
        async_checkpoints: Write checkpoints in the background, from a copy in memory, while training goes on.
        final_weights: Which weights the trained model has: those of the "last" step, their "average" (with
            `ema_decay`), or the "best" ones, with the lowest `validation/loss`. None: the average if there is one,
            otherwise the last.
        tracker: Experiment tracker that gets the options, what the run is of and all that is logged: "tensorboard"
            (in the run's folder `tracking`), "trackio" or "wandb". None: no tracker.
        push_to: Hub repository that every checkpoint is uploaded to, see `PushCheckpoints`; None for none.
    """

    max_steps: int = 1000
    global_batch_size: int = 32
    gradient_accumulation_steps: int | None = 1
    learning_rate: float = 1e-3
    schedule: Schedule = "cosine"
    schedule_options: dict[str, Any] = field(default_factory=dict)
    warmup_steps: int = 50
    weight_decay: float = 0.01
    max_grad_norm: float | None = 1.0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_checkpointing: bool = False
    ema_decay: float | None = None
    seed: int = 0
    num_workers: int = 0
    log_every: int = 10
    validate_every: int = 0
    validation_samples: int | None = 1024
    save_every: int = 0
    keep_checkpoints: int = 2
    async_checkpoints: bool = False
    final_weights: FinalWeights | None = None
    tracker: str | None = None
    push_to: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_steps", "global_batch_size", "log_every", "keep_checkpoints"):
            _at_least_one(name, getattr(self, name))
        for name in ("gradient_accumulation_steps", "validation_samples"):
            if getattr(self, name) is not None:
                _at_least_one(name, getattr(self, name))
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0 and finite, got {self.learning_rate}")
        if self.max_grad_norm is not None and not 0 < self.max_grad_norm < math.inf:
            raise ValueError(
                f"max_grad_norm must be above 0 and finite, or null for no clipping, got {self.max_grad_norm}"
            )
        for name in ("warmup_steps", "weight_decay", "num_workers", "validate_every", "save_every"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative or infinite, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be 0 to 2**32 - 1, got {self.seed}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(
                f"ema_decay must be above 0 and below 1, such as 0.999, or null for no average, got {self.ema_decay}"
            )
        self._check_final_weights()
        require_tracker(self.tracker)
        if self.schedule_options:
            # transformers knows which options a schedule takes.
            self.learning_rate_schedule()

    def learning_rate_schedule(self) -> Callable[[int], float]:
        """Fraction of the peak learning rate at an optimiser step, counted from 0.

        Raises:
            ValueError: The schedule does not take these options.
        """
        return learning_rate_schedule(
            self.schedule,
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps,
            max_steps=self.max_steps,
            options=self.schedule_options,
        )

    def _check_final_weights(self) -> None:
        if self.final_weights == "average" and self.ema_decay is None:
            raise ValueError("final_weights=average needs an average; set ema_decay, such as ema_decay=0.999")
        if self.final_weights == "best" and not self.validate_every:
            raise ValueError("final_weights=best needs validation; set validate_every and hold some episodes out")


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def load_config(
    config_class: type[ConfigT],
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    defaults: Mapping[str, Any] | None = None,
) -> ConfigT:
    """Makes a configuration from its defaults, a YAML file and overrides, the later winning.

    Args:
        config_class: The dataclass to make; nested dataclasses are nested mappings in YAML and `outer.inner=value` in
            overrides.
        path: A YAML file, or None.
        overrides: Entries like "learning_rate=3e-4"; values are read as YAML.
        defaults: Defaults in the place of the dataclass' own, such as those of a kind of model.

    Raises:
        ValueError: For an unknown key (naming the nearest known one), a value of another type, or malformed YAML.
        FileNotFoundError: If `path` does not exist.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{path} is not valid YAML: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path} must hold a mapping of options, got {type(values).__name__}")
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ValueError(f"an override looks like key=value, got {override!r}")
        _set_nested(values, key.split("."), _parse_scalar(text))
    values = {**(defaults or {}), **values}
    return _from_mapping(config_class, values, str(path) if path is not None else "the options")


def _parse_scalar(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"cannot read the value {text!r}: {error}") from error
    return value


def _set_nested(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ValueError(f"option {key!r} has no options inside it")
    values[keys[-1]] = value


def _from_mapping(config_class: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    hints = typing.get_type_hints(config_class)
    names = [field.name for field in dataclasses.fields(config_class)]  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        if key not in names:
            raise ValueError(f"unknown option {key!r} in {where}{did_you_mean(str(key), names)}")
        arguments[key] = _convert(hints[key], value, key, where)
    return config_class(**arguments)


def _convert(hint: Any, value: Any, key: str, where: str) -> Any:
    """Checks `value` against a type hint; turns mappings into dataclasses, whole numbers and "1e-4" into floats."""
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _from_mapping(hint, value, f"{where}: {key}")  # type: ignore[arg-type]
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in get_args(hint):
            return None
        options = [option for option in get_args(hint) if option is not type(None)]
        return _convert(options[0], value, key, where) if len(options) == 1 else value
    if origin is Literal:
        # YAML reads an unquoted `no` as false.
        value = "no" if value is False else value
        if value not in get_args(hint):
            raise ValueError(f"option {key!r} must be one of {', '.join(map(str, get_args(hint)))}, got {value!r}")
        return value
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        # YAML 1.1 reads "1e-4", without a dot, as a string.
        try:
            return float(value)
        except ValueError:
            pass
    expected = origin or hint
    if isinstance(expected, type) and (not isinstance(value, expected) or (isinstance(value, bool) and hint is int)):
        raise ValueError(f"option {key!r} must be {getattr(hint, '__name__', hint)}, got {value!r}")
    return value
