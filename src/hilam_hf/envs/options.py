"""Checks of numbers that users choose."""

from __future__ import annotations

import math


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
