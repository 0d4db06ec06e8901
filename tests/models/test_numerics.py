"""The arithmetic that models share, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hilam_hf.models.numerics import is_constant, masked_mean, mean_count, named_under, upcast


@pytest.mark.parametrize(
    ("given", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_upcast_widens_to_float32_and_narrows_nothing(given: torch.dtype, expected: torch.dtype) -> None:
    states = torch.tensor([0.5, -2.0], dtype=given)
    assert upcast(states).dtype == expected
    assert upcast(states).tolist() == [0.5, -2.0]


def test_masked_mean_leaves_out_what_the_mask_hides() -> None:
    values, mask = torch.tensor([1.0, torch.nan, 5.0]), torch.tensor([True, False, True])
    assert masked_mean(values, mask) == 3
    assert masked_mean(values, mask.float()) == 3
    assert masked_mean(values, torch.zeros(3, dtype=torch.bool)) == 0
    assert masked_mean(values[::2]) == 3


def test_masked_mean_of_vectors_counts_their_numbers() -> None:
    values = torch.tensor([[[1.0, 2.0], [torch.nan, 7.0]], [[3.0, 6.0], [8.0, 10.0]]])
    assert masked_mean(values, torch.tensor([[True, False], [True, True]])) == 5


def test_gradient_of_masked_mean_is_zero_where_hidden() -> None:
    values = torch.tensor([[1.0, 2.0], [torch.inf, 4.0]], requires_grad=True)
    masked_mean(values, torch.tensor([True, False])).backward()
    assert values.grad.tolist() == [[0.5, 0.5], [0.0, 0.0]]


def test_a_part_divides_by_the_mean_count_of_all_parts() -> None:
    """Parts (1, 2, 6) and (7) with the mean 4, and so with a mean count of 2: (9 / 2 + 7 / 2) / 2 = 4."""
    values, count = torch.tensor([1.0, 2.0, 6.0, 7.0]), torch.tensor(2.0)
    parts = [masked_mean(values[:3], count=count), masked_mean(values[3:], count=count)]
    assert [float(part) for part in parts] == [4.5, 3.5]
    hidden = torch.tensor([False, True, True, False])
    assert masked_mean(values, hidden, torch.tensor(0.5)) == 16
    assert masked_mean(values, ~hidden & hidden, torch.tensor(0.0)) == 0


def test_counts_are_floats_of_the_values_that_a_mask_keeps() -> None:
    values, mask = torch.zeros(2, 3, 4, dtype=torch.float64, requires_grad=True), torch.tensor([[1, 0, 1], [0, 0, 1]])
    given: dict[str, torch.Tensor] = {}

    def halved(name: str, count: torch.Tensor) -> torch.Tensor:
        given[name] = count
        return count / 2

    assert mean_count("some", values, mask, halved) == 6
    assert mean_count("all", values, None, named_under("inner", halved)) == 12
    assert mean_count("rows", values, mask[:, :1], halved) == 6  # a mask of one column stands for all three
    assert given == {"some": 12, "inner/all": 24, "rows": 12}
    assert all(count.dtype == torch.float32 and not count.requires_grad for count in given.values())
    assert mean_count("none", values, mask, None) is None


def test_a_constant_dimension_varies_by_rounding_alone() -> None:
    """Beside its own mean, or beside the largest deviation of any dimension; never by an absolute size."""
    mean, std = [100.0, 0.0, 0.0, 100.0], [1e-4, 1e-7, 1e-3, 1e-1]
    for values in (torch.tensor([mean, std]), np.array([mean, std])):
        assert is_constant(*values).tolist() == [True, True, False, False]
        assert is_constant(*(values * 1e-20)).tolist() == [True, True, False, False]
    assert is_constant(torch.zeros(2), torch.zeros(2)).tolist() == [True, True]
