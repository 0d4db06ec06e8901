"""Checks of numbers that come from users and policies."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def check_least(**options: tuple[float, float]) -> None:
    """See that numbers are large enough.

    Args:
        options: By name, the number and the least that it may be.

    Raises:
        ValueError: One is smaller, infinite, or NaN.
    """
    for option, (value, least) in options.items():
        if not least <= value < math.inf:
            raise ValueError(f"{option} must be at least {least}, got {value}")


def check_action(action: NDArray[np.floating], size: int, where: str) -> None:
    """See that an action can be executed.

    Args:
        action: The action.
        size: How many numbers it must have.
        where: Task and step, for the error.

    Raises:
        ValueError: It has another shape, or holds NaN or infinity.
    """
    if action.shape != (size,) or not np.isfinite(action).all():
        raise ValueError(
            f"{where}: an action must be {size} finite numbers, got {np.array2string(action, threshold=8)} of shape "
            f"{action.shape}"
        )
