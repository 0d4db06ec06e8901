"""Bounds of configurations, which come from files: beyond them memory and time run out before anything is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MAX_LAYERS = 512
"""Layers of one stack; the deepest published models have a few hundred."""
MAX_STAGES = 16
"""Stages that nest."""
MAX_SIZE = 2**17
"""Width of a layer, entries of a table, pixels to a side, or whatever else one axis of a tensor has."""


def check_limits(values: Any, *, layers: Iterable[str] = (), sizes: Iterable[str] = ()) -> None:
    """Raises a ValueError where a field of a configuration is larger than `MAX_LAYERS` or `MAX_SIZE`.

    Args:
        values: The configuration, or a dictionary.
        layers: Fields that count layers; a field may be a number, a list of them, or None.
        sizes: Fields that become axes of tensors, alike.
    """
    for names, limit in ((layers, MAX_LAYERS), (sizes, MAX_SIZE)):
        for name in names:
            check_limit(name, values.get(name) if isinstance(values, dict) else getattr(values, name), limit)


def check_limit(name: str, value: Any, limit: int) -> None:
    """Raises a ValueError where a number, or one of a list of them, is larger than `limit`, or the list longer."""
    numbers = value if isinstance(value, (list, tuple)) else [value]
    wrong = [number for number in numbers if isinstance(number, (int, float)) and number > limit]
    if wrong or len(numbers) > limit:
        got = f"{len(numbers)} entries" if not wrong else wrong[0]
        raise ValueError(f"{name}: got {got}, expected at most {limit}. Check the configuration.")
