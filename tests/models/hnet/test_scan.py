"""The parallel scan against the sequential recurrence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hilam_hf.models.hnet import ema
from hilam_hf.models.hnet.scan import linear_recurrence


def loop_ema(states: Tensor, weight: Tensor, is_start: Tensor) -> Tensor:
    rows: list[Tensor] = []
    for x, w, start in zip(states, weight, is_start.tolist(), strict=True):
        previous = torch.zeros_like(x) if start else rows[-1]
        rows.append(w * x + (1 - w) * previous)
    return torch.stack(rows)


@pytest.mark.parametrize("length", [1, 2, 7, 64, 65, 333, 4200])
def test_ema_equals_the_loop(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    states = torch.randn(length, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(length, generator=generator, dtype=torch.float64).clamp(1e-4, 1 - 1e-4)
    weight[length // 2] = 1
    weight.requires_grad_()
    is_start = torch.rand(length, generator=generator) < 0.05
    is_start[0] = True
    upstream = torch.randn(length, 5, generator=generator, dtype=torch.float64)
    actual, expected = ema(states, weight, is_start), loop_ema(states, weight, is_start)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-13)
    for ours, brute in zip(
        torch.autograd.grad(actual, (states, weight), upstream),
        torch.autograd.grad(expected, (states, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, brute, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("weight", [1e-4, 0.03, 0.5, 1 - 1e-4])
def test_ema_in_float32_stays_near_the_float64_recurrence(weight: float) -> None:
    generator = torch.Generator().manual_seed(0)
    length = 16384
    states = torch.randn(length, 2, generator=generator)
    weights = (weight * (0.5 + torch.rand(length, generator=generator))).clamp(1e-4, 1 - 1e-4)
    is_start = torch.zeros(length, dtype=torch.bool)
    is_start[0] = True
    expected = torch.zeros(length, 2, dtype=torch.float64)
    previous = torch.zeros(2, dtype=torch.float64)
    decay, scaled = (1 - weights.double()).tolist(), (weights.double()[:, None] * states.double()).unbind()
    for row in range(length):
        previous = scaled[row] + decay[row] * previous
        expected[row] = previous
    assert (ema(states, weights, is_start).double() - expected).abs().max() < 1e-6


def test_ema_continues_from_earlier_values() -> None:
    """Sequences cut into pieces: what came before enters at each piece's first row, and at no other."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(90, 3, generator=generator, dtype=torch.float64)
    weight = torch.rand(90, generator=generator, dtype=torch.float64).clamp(1e-4, 1 - 1e-4)
    is_start = torch.zeros(90, dtype=torch.bool)
    is_start[[0, 40]] = True
    whole = loop_ema(states, weight, is_start)
    second_halves = torch.cat((states[20:40], states[70:]))
    starts = torch.zeros(40, dtype=torch.bool)
    starts[[0, 20]] = True
    before = torch.full((40, 3), torch.nan, dtype=torch.float64)
    before[[0, 20]] = whole[[19, 69]]
    actual = ema(second_halves, torch.cat((weight[20:40], weight[70:])), starts, before)
    torch.testing.assert_close(actual, torch.cat((whole[20:40], whole[70:])), rtol=0, atol=1e-13)


def test_linear_recurrence_without_rows_and_with_restarts_everywhere() -> None:
    assert linear_recurrence(torch.zeros(0), torch.zeros(0, 4)).shape == (0, 4)
    inputs = torch.randn(200, 4)
    assert torch.equal(linear_recurrence(torch.zeros(200), inputs), inputs)
