"""No update from a loss or gradient that is no number, found without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from .errors import NonFiniteError

_SHOWN = 16


class HealthLatch:
    """A flag on the device, set for good by a gradient that is no number, that makes the optimiser skip its steps.

    Nothing is read back until the flag is asked for, so the steps in between are skipped, too: weights,
    optimiser and average stay as the last sound step left them.

    Args:
        device: The device that is computed on.
    """

    def __init__(self, device: torch.device):
        self._first = torch.full((), math.inf, device=device)

    @staticmethod
    def gate(loss: Tensor) -> Tensor:
        """The loss, with gradients that are no numbers if the loss is none, so that every process finds out.

        A loss may be infinite where its gradient is not; the gradients' norm, which all processes share, then tells.
        """
        factor = torch.where(torch.isfinite(loss.detach()), 1.0, math.nan)
        return loss * factor

    def watch(self, step: int, *values: Tensor) -> None:
        """Notes whether the gradient norm, or the loss, of this step is a number."""
        for value in values:
            bad = torch.where(torch.isfinite(value.detach()), math.inf, float(step))
            self._first = torch.minimum(self._first, bad)

    def arm(self, optimizer: torch.optim.Optimizer) -> None:
        """Makes the next step of a fused optimiser one that does nothing if the flag is set."""
        # The name by which a gradient scaler tells fused optimisers to skip a step.
        optimizer.found_inf = torch.isfinite(self._first).to(torch.float32)  # type: ignore[attr-defined]

    def first_bad_step(self) -> Tensor:
        """(): the first step with such a gradient, infinity where there is none."""
        return self._first


def raise_unsound(step: int, batch_ids: Sequence[str]) -> NoReturn:
    """Ends the run where a step's loss or gradient was no number.

    Args:
        step: That step, counted from 1.
        batch_ids: The samples of its batch.

    Raises:
        NonFiniteError: With the step and its samples.
    """
    shown = ", ".join(batch_ids[:_SHOWN])
    more = f" and {len(batch_ids) - _SHOWN} more" if len(batch_ids) > _SHOWN else ""
    raise NonFiniteError(
        f"the loss or its gradient is not finite at step {step}, whose batch was {shown}{more}; no update was made "
        "from it. Check these samples, lower learning_rate or set max_grad_norm, then resume from the last checkpoint "
        "or start again"
    )
