"""HiLAM on a batch in parts: sequences of 4 to 200 latent actions, both kinds of them, and every term of eq. 4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hilam_hf.models.hilam import HiLAMModel
from hilam_hf.models.latent_actions import RegressionFDM
from hilam_hf.models.latent_actions.configuration_regression_fdm import RegressionFDMConfig
from tests.models.hilam.test_discrete import CODE_DIM, CODES, SIZE, discrete_model, padded_codes
from tests.models.hilam.test_hilam import DIM, make_model, padded_batch
from tests.models.hilam.test_losses import FrozenDynamics, limited, one_stage_model
from tests.models.parts import EVEN, THIRDS, UNEQUAL, Recorder, assert_parts_make_the_whole, mean_counts, run

LENGTHS = [4, 200, 9, 57, 120, 31]
NAMES = ["latent_pairs", "stage1/rows", "stage1/boundaries", "stage2/rows", "stage2/boundaries"]
every_cut = pytest.mark.parametrize("cuts", [EVEN, THIRDS, UNEQUAL], ids=["halves", "thirds", "unequal"])


def continuous() -> tuple[HiLAMModel, Callable[[int, int], dict[str, Any]]]:
    model = make_model(lambda_ratio=0.5).double()
    return model, batch_of(*padded_batch([torch.randn(length, DIM) for length in LENGTHS]))


def discrete() -> tuple[HiLAMModel, Callable[[int, int], dict[str, Any]]]:
    model = discrete_model(lambda_ratio=0.5)
    model.set_codebook(torch.randn(SIZE, CODE_DIM))
    return model.double(), batch_of(*padded_codes(LENGTHS))


def batch_of(latents: Tensor, mask: Tensor) -> Callable[[int, int], dict[str, Any]]:
    latents = latents.double() if latents.is_floating_point() else latents
    return lambda first, last: {"latent_actions": latents[first:last], "attention_mask": mask[first:last]}


def with_reconstruction(
    cut: Callable[[int, int], dict[str, Any]], dynamics: Any, size: int = 4
) -> Callable[[int, int], dict[str, Any]]:
    """Draws none of the first sequence's steps, one of the second's, and so on; frames change more and more."""
    steps = torch.tensor([[sequence, time] for sequence in range(1, 6) for time in range(min(sequence, 3))])
    frames = torch.rand(len(steps), 3, size, size).double()
    targets = (frames + torch.linspace(0.02, 0.3, len(steps))[:, None, None, None]).clamp(max=1)

    def inputs(first: int, last: int) -> dict[str, Any]:
        kept = (steps[:, 0] >= first) & (steps[:, 0] < last)
        return cut(first, last) | {
            "reconstruction_steps": steps[kept] - torch.tensor([first, 0]),
            "reconstruction_frames": frames[kept],
            "reconstruction_targets": targets[kept],
            "forward_dynamics": dynamics,
        }

    return inputs


def regression_fdm(latent_dim: int) -> RegressionFDM:
    """One that reacts to its latent actions, as it does after some training."""
    fdm = RegressionFDM(RegressionFDMConfig(latent_dim=latent_dim, image_size=16, hidden_size=8, num_blocks=1))
    with torch.no_grad():
        fdm.out_conv.weight.normal_(std=0.1)
    return fdm.double().requires_grad_(False).eval()


@every_cut
@pytest.mark.parametrize("make", [continuous, discrete])
def test_parts_have_the_gradient_of_their_batch(make: Any, cuts: tuple[int, ...]) -> None:
    assert_parts_make_the_whole(*make(), cuts)


@every_cut
@pytest.mark.parametrize(("make", "width"), [(continuous, DIM), (discrete, CODES * CODE_DIM)])
def test_parts_have_the_gradient_of_their_batch_with_reconstruction(
    make: Any, width: int, cuts: tuple[int, ...]
) -> None:
    """A mean over the steps; the first of two unequal parts has none."""
    model, cut = make()
    assert_parts_make_the_whole(model, with_reconstruction(cut, FrozenDynamics(width).double()), cuts)


@every_cut
def test_errors_relative_to_the_change_of_a_batch_are_so_in_parts(cuts: tuple[int, ...]) -> None:
    model, cut = continuous()
    model.config.lambda_rec = 20.0
    assert_parts_make_the_whole(model, with_reconstruction(cut, regression_fdm(DIM), size=16), cuts)


def test_a_model_with_limited_chunks_counts_what_it_keeps() -> None:
    """With room for few chunks some are dropped, and the second stage has fewer rows than the first boundaries."""
    _, cut = continuous()
    model = make_model(lambda_ratio=0.5, **limited(0.1, 0.5)).double()
    counts = Recorder()
    model.count_parts(counts, **cut(0, 6))
    assert counts.counts["stage2/rows"] < counts.counts["stage1/boundaries"]
    assert_parts_make_the_whole(model, cut, UNEQUAL)


def test_counts_by_hand() -> None:
    """Lengths 4 and 9 have 3 and 8 pairs; stage 2 has a row for each boundary of stage 1."""
    model, _ = continuous()
    latents, mask = padded_batch([torch.randn(length, DIM) for length in (4, 9)])
    recorder = Recorder()
    model.count_parts(recorder, latents.double(), mask)
    stages = model(latents.double(), mask).stages
    boundaries = [float((stage.boundary_mask & stage.mask).sum()) for stage in stages]
    assert recorder.counts == dict(zip(NAMES, [11, 13, boundaries[0], boundaries[0], boundaries[1]], strict=True))


def test_a_part_without_pairs_has_no_latent_loss() -> None:
    model, _ = continuous()
    sequences = [torch.randn(length, DIM) for length in (1, 12)]
    cut = batch_of(*padded_batch(sequences))
    assert_parts_make_the_whole(model, cut, (0, 1, 2))
    alone = model(sequences[0][None].double(), mean_over_parts=lambda name, count: count)
    assert alone.latent_loss == 0 and torch.isfinite(alone.loss)


def test_a_whole_batch_is_its_only_part() -> None:
    model, cut = continuous()
    figures, gradients = run(model, cut(0, 6))
    alone, alone_gradients = run(model, cut(0, 6), mean_over_parts=lambda name, count: count)
    for name, value in figures.items():
        torch.testing.assert_close(alone[name], value, rtol=1e-6, atol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(alone_gradients[name], gradient, rtol=1e-5, atol=1e-9)


def test_counting_runs_the_encoders_alone() -> None:
    """In training mode, with checkpointed activations, and without gradients."""
    model, cut = continuous()
    model.train()
    model.activation_checkpointing_enable()
    middle = model.hnet.main_network
    left_out = [model.output_proj, model.hnet.decoder, middle.decoder, middle.main_network.main_network]
    for module in left_out:
        module.register_forward_pre_hook(lambda module, _: pytest.fail(f"{type(module).__name__} ran"))
    recorder = Recorder()
    model.count_parts(recorder, **cut(0, 6))
    assert list(recorder.counts) == NAMES


def test_counting_waits_for_no_device() -> None:
    """Fake tensors have shapes and no values: whatever needs a value raises."""
    model = make_model(**limited(0.8, 0.8))
    inputs = batch_of(*padded_batch([torch.randn(length, DIM) for length in (18, 5)]))(0, 2)
    inputs = with_reconstruction(lambda *_: inputs, nn.Identity())(0, 2) | {
        "forward_dynamics": lambda i, z, j: z.mean()
    }
    model.float().require_latent_space()
    with FakeTensorMode(allow_non_fake_inputs=True):
        counting, forward = Recorder(), Recorder()
        model.count_parts(counting, **inputs)
        model(**inputs, mean_over_parts=forward).loss.backward()
    assert list(counting.counts) == list(forward.counts) == [*NAMES, "reconstruction/pairs"]


def test_a_compiled_graph_takes_the_means_of_counts() -> None:
    torch._dynamo.reset()
    model = one_stage_model(discrete=False).double()
    model.set_latent_statistics(torch.zeros(DIM), torch.ones(DIM))
    cut = batch_of(*padded_batch([torch.randn(length, DIM) for length in (16, 5, 9)]))
    recorders = [Recorder(), Recorder()]
    for recorder, bounds in zip(recorders, ((0, 1), (1, 3)), strict=True):
        model.count_parts(recorder, **cut(*bounds))
    means = mean_counts([recorder.counts for recorder in recorders])

    def replay(name: str, count: Tensor) -> Tensor:
        return means[name]

    figures, gradients = run(model, cut(1, 3), mean_over_parts=replay)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    model.zero_grad()
    output = compiled(**cut(1, 3), mean_over_parts=replay)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(float(figures["loss"]), rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-5, atol=1e-9)
