"""Forward dynamics on a batch in parts: a mean over pairs, and an error relative to the change of the whole batch."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from hilam_hf.models.latent_actions import RegressionFDM
from hilam_hf.models.latent_actions.configuration_regression_fdm import RegressionFDMConfig
from hilam_hf.models.latent_actions.dynamics import ForwardDynamicsModel
from tests.models.parts import EVEN, THIRDS, UNEQUAL, Recorder, mean_counts

every_cut = pytest.mark.parametrize("cuts", [EVEN, THIRDS, UNEQUAL], ids=["halves", "thirds", "unequal"])


class MeanFDM(RegressionFDM):
    """A model whose loss is a mean over pairs, as the contract has it, with no method for parts of its own."""

    loss_of_part = ForwardDynamicsModel.loss_of_part
    count_parts = ForwardDynamicsModel.count_parts

    def loss(self, frames: Tensor, latents: Tensor, next_frames: Tensor) -> Tensor:
        return nn.functional.mse_loss(self(frames, latents).predictions, next_frames)


def pairs() -> tuple[Tensor, Tensor, Tensor]:
    """Six pairs of frames that change more and more, with their latent actions."""
    torch.manual_seed(0)
    frames = torch.rand(6, 3, 16, 16).double() * 0.6
    change = torch.linspace(0.02, 0.4, 6)[:, None, None, None]
    return frames, torch.randn(6, 5).double(), frames + change


@every_cut
@pytest.mark.parametrize("model_class", [RegressionFDM, MeanFDM])
def test_parts_have_the_gradient_of_their_batch(model_class: type[RegressionFDM], cuts: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    fdm = model_class(RegressionFDMConfig(latent_dim=5, image_size=16, hidden_size=8, num_blocks=1)).double()
    batch = pairs()
    parts = [[each[first:last] for each in batch] for first, last in pairwise(cuts)]
    recorders = [Recorder() for _ in parts]
    for (frames, _, next_frames), recorder in zip(parts, recorders, strict=True):
        fdm.count_parts(recorder, frames, next_frames)
    means = mean_counts([recorder.counts for recorder in recorders])

    weight = fdm.out_conv.weight
    whole = fdm.loss(*batch)
    (expected,) = torch.autograd.grad(whole, weight)
    in_parts = torch.stack([fdm.loss_of_part(*part, Recorder(means)) for part in parts]).mean()
    (gradient,) = torch.autograd.grad(in_parts, weight)
    torch.testing.assert_close(in_parts, whole, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)

    if model_class is RegressionFDM or cuts == UNEQUAL:
        (plain,) = torch.autograd.grad(torch.stack([fdm.loss(*part) for part in parts]).mean(), weight)
        assert (plain - expected).norm() > 0.1 * expected.norm()


def test_counts_by_hand() -> None:
    """Changes of 0.1 and 0.3 everywhere: squares of 0.01 and 0.09."""
    fdm = RegressionFDM(RegressionFDMConfig(latent_dim=5, image_size=16, hidden_size=8, num_blocks=1))
    frames = torch.full((2, 3, 16, 16), 0.2)
    next_frames = frames + torch.tensor([0.1, 0.3])[:, None, None, None]
    for first, expected in ((0, [2, 0.1]), (1, [1, 0.09]), (2, [0, 0])):
        recorder = Recorder()
        fdm.count_parts(recorder, frames[first:], next_frames[first:])
        assert list(recorder.counts) == ["pairs", "squared_change"]
        assert torch.stack(list(recorder.counts.values())).tolist() == pytest.approx(expected, rel=1e-5)
