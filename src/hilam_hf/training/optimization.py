"""Optimiser of a run."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .config import TrainingConfig

RateMultiplier = Callable[[str], float]
"""Factor of a parameter's learning rate, by the parameter's name."""


def make_optimizer(
    model: nn.Module, config: TrainingConfig, rate_multiplier: RateMultiplier | None = None
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; vectors (biases, norms, gains) are not decayed.

    Args:
        model: The model.
        config: Options of the run.
        rate_multiplier: Factor of each parameter's learning rate; None for the same rate everywhere.

    Raises:
        ValueError: Nothing is trainable.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            multiplier = 1.0 if rate_multiplier is None else rate_multiplier(name)
            decay = config.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((multiplier, decay), []).append(parameter)
    if not groups:
        raise ValueError("the model has no trainable parameter; everything is frozen")
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "rate_multiplier": multiplier}
            for (multiplier, decay), parameters in groups.items()
        ],
        lr=config.learning_rate,
        # One kernel, which also takes a flag on the device that says to skip the step; see `HealthLatch`.
        # The gradient scaler of fp16 does that itself, and accelerate notices it only of the other kernel.
        fused=config.mixed_precision != "fp16",
    )


def checkpoint_activations(model: nn.Module) -> None:
    """Has the model's parts compute activations again in the backward pass.

    Raises:
        ValueError: No part of it can.
    """
    able: list[Any] = [part for part in model.modules() if getattr(part, "supports_gradient_checkpointing", False)]
    if not able:
        raise ValueError(f"gradient_checkpointing=true, but no part of {type(model).__name__} can; set it to false")
    for part in able:
        part.activation_checkpointing_enable()
