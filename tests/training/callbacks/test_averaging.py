"""The average of the weights against its definition."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from hilam_hf.training.callbacks import WeightAveraging

DECAY = 0.6


def make_model() -> nn.Sequential:
    """A layer that is trained, one that is frozen, and batch norm, whose statistics are buffers."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[1].requires_grad_(False)
    return model


def state_of(model: nn.Module) -> Any:
    return SimpleNamespace(model=model, optimizer=SimpleNamespace(step_was_skipped=False))


def averaging(model: nn.Module, decay: float) -> WeightAveraging:
    average = WeightAveraging(decay)
    average.on_setup(state_of(model))
    return average


def steps(model: nn.Module, average: WeightAveraging, count: int) -> list[dict[str, torch.Tensor]]:
    """Random steps, each followed by an update; returns the trained parameters after each, in float64."""
    trajectory = []
    for _ in range(count):
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn_like(parameter)
        average.on_step_end(state_of(model))
        trajectory.append({name: p.detach().double() for name, p in model.named_parameters() if p.requires_grad})
    return trajectory


def test_the_average_is_the_weighted_sum_of_all_steps() -> None:
    model = make_model()
    average = averaging(model, DECAY)
    trajectory = steps(model, average, 20)
    # d_1 = 0, d_n = min(decay, n / (n + 9)): step i weighs (1 - d_i) times the product of all later d.
    decays = [0.0] + [min(DECAY, n / (n + 9)) for n in range(2, 21)]
    assert decays[1] == 2 / 11 and decays[-1] == DECAY
    shares = [(1 - decays[i]) * torch.tensor(decays[i + 1 :], dtype=torch.float64).prod() for i in range(20)]
    assert sum(shares) == pytest.approx(1)
    for name, value in average.tensors().items():
        expected = sum(share * weights[name] for share, weights in zip(shares, trajectory, strict=True))
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-6)


def test_after_one_step_the_average_is_that_step() -> None:
    model = make_model()
    average = averaging(model, 0.999)
    (weights,) = steps(model, average, 1)
    for name, value in average.tensors().items():
        assert torch.equal(value.double(), weights[name])


def test_frozen_parameters_and_buffers_are_neither_copied_nor_averaged() -> None:
    model = make_model()
    average = averaging(model, DECAY)
    assert set(average.tensors()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    steps(model, average, 3)
    model[2].running_mean.fill_(7)
    frozen = model[1].weight
    with average.applied():
        assert torch.equal(model[2].running_mean, torch.full((2,), 7.0))
        assert model[1].weight is frozen


def test_the_models_own_weights_come_back_bit_for_bit_also_after_a_failure() -> None:
    model = make_model()
    average = averaging(model, DECAY)
    steps(model, average, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError), average.applied():
        assert torch.equal(model[0].weight, average.tensors()["0.weight"])
        assert not torch.equal(model[0].weight, before["0.weight"])
        raise RuntimeError
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    average.copy_to_model()
    assert torch.equal(model[0].weight, average.tensors()["0.weight"])


def test_without_an_update_there_is_nothing_to_put_in_place() -> None:
    model = make_model()
    average = averaging(model, DECAY)
    nn.init.ones_(model[0].weight)
    average.copy_to_model()
    assert torch.equal(model[0].weight, torch.ones(2, 3))
