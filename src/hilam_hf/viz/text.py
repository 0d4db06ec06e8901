"""Numbers in words a reader can take in: durations, percentages, counts, comparisons."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

NBSP = "\N{NO-BREAK SPACE}"
NOT_MEASURED = "not measured"
NOT_FINITE = "not finite"


def number(value: float | None, *, decimals: int | None = None) -> str:
    """Four significant digits or fixed decimals, thousands set apart; None is "not measured".

    Example:
        >>> number(0.0123456), number(12345), number(None)
        ('0.01235', '12,345', 'not measured')
    """
    if value is None:
        return NOT_MEASURED
    if not math.isfinite(value):
        return NOT_FINITE
    if isinstance(value, Integral):
        return f"{int(value):,}"
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def percent(value: float | None, *, decimals: int = 0) -> str:
    """A share of 1 as a percentage."""
    if value is None:
        return NOT_MEASURED
    return f"{100 * value:.{decimals}f}{NBSP}%" if math.isfinite(value) else NOT_FINITE


def lower_by(ratio: float | None) -> str:
    """How an error compares with a reference, from their ratio: `"38 % lower"`, `"12 % higher"`, `"equal"`."""
    if ratio is None:
        return NOT_MEASURED
    if not math.isfinite(ratio):
        return NOT_FINITE
    change = f"{100 * abs(1 - ratio):.0f}"
    if change == "0":
        return "equal"
    return f"{change}{NBSP}% {'lower' if ratio < 1 else 'higher'}"


def count(value: int, noun: str) -> str:
    """A number of things: `"1 step"`, `"2,000 steps"`."""
    return f"{value:,}{NBSP}{noun}{'' if value == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """A time span: `"0.4 s"`, `"42 s"`, `"3 min 05 s"`, `"2 h 10 min"`."""
    if seconds is None:
        return NOT_MEASURED
    if not math.isfinite(seconds):
        return NOT_FINITE
    if seconds < 9.95:
        return f"{seconds:.1f}{NBSP}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{NBSP}s"
    if whole < 3600:
        return f"{whole // 60}{NBSP}min{NBSP}{whole % 60:02d}{NBSP}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}{NBSP}h{NBSP}{minutes % 60:02d}{NBSP}min"


def words(name: str) -> str:
    """A key or file name in words: underscores and slashes become spaces."""
    return name.replace("_", " ").replace("/", " ").strip()


def in_words(name: str) -> str:
    """A key or file name as a caption: in words, with a capital letter."""
    text = words(name)
    return text[:1].upper() + text[1:]


def value_text(value: Any) -> str:
    """Any plain value as text, whole numbers digit by digit (they may be seeds or ids)."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return number(float(value))
    return str(value)


def aim_text(value: Any) -> str:
    """What was aimed at or reached, as text; None is "not measured"."""
    return NOT_MEASURED if value is None else value_text(value)
