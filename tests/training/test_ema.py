"""The average of the weights against its definition."""

from pathlib import Path

import pytest
import torch
from torch import nn

from hilam_hf.training.ema import AVERAGE_FILE, AveragedWeights

DECAY = 0.6


def make_model() -> nn.Sequential:
    """A layer that is trained, one that is frozen, and batch norm, whose statistics are buffers."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[1].requires_grad_(False)
    return model


def steps(model: nn.Module, average: AveragedWeights, count: int) -> list[dict[str, torch.Tensor]]:
    """Random steps, each followed by an update; returns the trained parameters after each, in float64."""
    trajectory = []
    for _ in range(count):
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn_like(parameter)
        average.update()
        trajectory.append({name: p.detach().double() for name, p in model.named_parameters() if p.requires_grad})
    return trajectory


def test_the_average_is_the_weighted_sum_of_all_steps() -> None:
    model = make_model()
    average = AveragedWeights(model, DECAY)
    trajectory = steps(model, average, 20)
    # d_1 = 0, d_n = min(decay, n / (n + 9)): step i weighs (1 - d_i) times the product of all later d.
    decays = [0.0] + [min(DECAY, n / (n + 9)) for n in range(2, 21)]
    assert decays[1] == 2 / 11 and decays[-1] == DECAY
    shares = [(1 - decays[i]) * torch.tensor(decays[i + 1 :], dtype=torch.float64).prod() for i in range(20)]
    assert sum(shares) == pytest.approx(1)
    for name, value in average.weights().items():
        expected = sum(share * weights[name] for share, weights in zip(shares, trajectory, strict=True))
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-6)


def test_after_one_step_the_average_is_that_step() -> None:
    model = make_model()
    average = AveragedWeights(model, 0.999)
    (weights,) = steps(model, average, 1)
    for name, value in average.weights().items():
        assert torch.equal(value.double(), weights[name])


def test_frozen_parameters_and_buffers_are_neither_copied_nor_averaged() -> None:
    model = make_model()
    average = AveragedWeights(model, DECAY)
    assert set(average.weights()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    steps(model, average, 3)
    model[2].running_mean.fill_(7)
    frozen = model[1].weight
    with average.applied():
        assert torch.equal(model[2].running_mean, torch.full((2,), 7.0))
        assert model[1].weight is frozen


def test_the_models_own_weights_come_back_bit_for_bit_also_after_a_failure() -> None:
    model = make_model()
    average = AveragedWeights(model, DECAY)
    steps(model, average, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError), average.applied():
        assert torch.equal(model[0].weight, average.weights()["0.weight"])
        assert not torch.equal(model[0].weight, before["0.weight"])
        raise RuntimeError
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    average.copy_to_model()
    assert torch.equal(model[0].weight, average.weights()["0.weight"])


def test_without_an_update_there_is_nothing_to_put_in_place() -> None:
    model = make_model()
    average = AveragedWeights(model, DECAY)
    nn.init.ones_(model[0].weight)
    average.copy_to_model()
    assert torch.equal(model[0].weight, torch.ones(2, 3))


def test_a_saved_average_goes_on_as_the_original(tmp_path: Path) -> None:
    model = make_model()
    average = AveragedWeights(model, DECAY)
    steps(model, average, 4)
    average.save(tmp_path)
    loaded = AveragedWeights(model, DECAY)
    loaded.load(tmp_path)
    assert loaded.num_updates == 4
    nn.init.normal_(model[0].weight)
    average.update()
    loaded.update()
    for left, right in zip(average.weights().values(), loaded.weights().values(), strict=True):
        assert torch.equal(left, right)


def test_the_average_of_other_parameters_is_refused(tmp_path: Path) -> None:
    model = make_model()
    AveragedWeights(model, DECAY).save(tmp_path)
    model[0].bias.requires_grad_(False)
    with pytest.raises(ValueError, match=rf"{AVERAGE_FILE} holds other parameters .* for one 0\.bias"):
        AveragedWeights(model, DECAY).load(tmp_path)
    with pytest.raises(ValueError, match=r"for one 0\.weight"):
        AveragedWeights(nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2).requires_grad_(False), model[2]), 0.5).load(
            tmp_path
        )
