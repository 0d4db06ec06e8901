from __future__ import annotations

import math

import pytest

from hilam_hf.viz.text import count, duration, in_words, lower_by, number, percent, value_text


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s")),
        *((3599.7, "1 h 00 min"), (7800, "2 h 10 min"), (None, "not measured"), (math.nan, "not finite")),
    ],
)
def test_durations(seconds: float | None, text: str):
    assert plain(duration(seconds)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123456, "0.01235"), (12345, "12,345"), (12345.6, "12,346"), (0, "0"), (-0.5, "-0.5"), (None, "not measured")],
)
def test_numbers(value: float | None, text: str):
    assert number(value) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(0.618, "38 % lower"), (1.12, "12 % higher"), (1.004, "equal"), (None, "not measured"), (math.inf, "not finite")],
)
def test_comparisons(ratio: float | None, text: str):
    assert plain(lower_by(ratio)) == text


def test_the_rest():
    assert plain(percent(0.875)) == "88 %" and plain(percent(1 / 6, decimals=1)) == "16.7 %"
    assert plain(count(1, "step")) == "1 step" and plain(count(2000, "step")) == "2,000 steps"
    assert in_words("drawer-open_with_pretraining") == "Drawer-open with pretraining"
    assert [value_text(value) for value in (True, None, 20261121, 3e-4, "x")] == [
        "yes",
        "none",
        "20261121",
        "0.0003",
        "x",
    ]
