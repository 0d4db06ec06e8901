"""Statistics that travel in checkpoints."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hilam_hf.models.acting.normalization import Normalizer


def test_normalizer_maps_both_ways_and_keeps_constants():
    normalizer = Normalizer("actions", 3)
    assert not normalizer.is_set
    with pytest.raises(ValueError, match=r"statistics of actions are not set.*set_statistics"):
        normalizer.normalize(torch.zeros(3))
    normalizer.set_min_max(torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, 4.0, 2.0]))
    values = torch.tensor([0.5, 3.0, 2.0])
    torch.testing.assert_close(normalizer.normalize(values), torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(normalizer.denormalize(torch.tensor([0.5, 0.5, 0.7])), values)


def test_dimensions_that_are_constant_but_for_rounding_are_not_divided_by_it():
    normalizer = Normalizer("agent_pos", 3)
    normalizer.set_mean_std(torch.tensor([0.0, 2.0, 0.0]), torch.tensor([0.5, 1e-6, 1e-7]))
    values = torch.tensor([0.5, 2.00001, 1e-5])
    torch.testing.assert_close(normalizer.normalize(values), torch.tensor([1.0, 1e-5, 1e-5]), rtol=0, atol=1e-6)
    torch.testing.assert_close(normalizer.denormalize(torch.ones(3)), torch.tensor([0.5, 2.0, 0.0]))


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ((torch.zeros(2), torch.ones(2)), "must be 3 finite numbers"),
        ((torch.tensor([0.0, torch.nan, 0.0]), torch.ones(3)), "finite"),
        ((torch.ones(3), torch.zeros(3)), "exceeds its maximum"),
    ],
)
def test_bad_statistics_are_refused(statistics: tuple[Tensor, Tensor], message: str):
    with pytest.raises(ValueError, match=message):
        Normalizer("actions", 3).set_min_max(*statistics)
