"""HiLAM on code indices: its losses against brute force, the expected code vectors, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel
from tests.models.hilam.test_hilam import make_config
from tests.models.mixins import ModelTesterMixin

CODES, SIZE, CODE_DIM = 4, 8, 3


def discrete_config(**changes: Any) -> HiLAMConfig:
    return make_config(latent_type="discrete", num_codes=CODES, codebook_size=SIZE, **changes)


def discrete_model(seed: int = 0, **changes: Any) -> HiLAMModel:
    torch.manual_seed(seed)
    model = HiLAMModel(discrete_config(**changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "routing_module" in name or "residual_proj" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def codes(*shape: int) -> Tensor:
    return torch.randint(0, SIZE, (*shape, CODES))


def padded_codes(lengths: list[int], fill: int = -100) -> tuple[Tensor, Tensor]:
    """A batch whose padding holds numbers that are no codes."""
    batch = codes(len(lengths), max(lengths) + 2)
    mask = torch.arange(batch.shape[1]) < torch.tensor(lengths)[:, None]
    batch[~mask] = fill
    return batch, mask


class TestDiscreteHiLAMModel(ModelTesterMixin):
    model_class = HiLAMModel

    def make_config(self) -> HiLAMConfig:
        return discrete_config()

    def make_inputs(self) -> dict[str, Any]:
        batch, mask = padded_codes([20, 11])
        return {"latent_actions": batch, "attention_mask": mask}


def test_the_width_of_a_latent_action_is_its_number_of_codes() -> None:
    assert HiLAMConfig.preset("tiny", latent_type="discrete", num_codes=5).latent_dim == 5
    assert HiLAMConfig.preset("tiny", num_codes=5).latent_dim == 64
    with pytest.raises(StrictDataclassError, match="codebook_size: got 1"):
        HiLAMConfig(latent_type="discrete", codebook_size=1)
    with pytest.raises(StrictDataclassError, match="latent_type"):
        HiLAMConfig(latent_type="binary")


def test_a_code_is_embedded_by_its_value_and_its_position() -> None:
    model = discrete_model()
    rows = codes(7)
    tables = model.input_proj.weight.view(CODES, SIZE, -1)
    expected = torch.stack([sum(tables[n, code] for n, code in enumerate(row)) for row in rows.tolist()])
    torch.testing.assert_close(model.embed(rows), expected)
    swapped = rows.roll(1, dims=1)
    assert not torch.allclose(model.embed(rows), model.embed(swapped))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_next_code_cross_entropy_by_brute_force(dtype: torch.dtype) -> None:
    model = discrete_model(lambda_ratio=0.25)
    lengths = [15, 1, 9]
    batch, mask = padded_codes(lengths, fill=200)
    output = model(batch.to(dtype), mask)
    assert output.predictions.shape == (3, batch.shape[1], CODES, SIZE)
    losses = []
    for row, length in enumerate(lengths):
        for t in range(length - 1):
            log_probabilities = output.predictions[row, t].double().log_softmax(-1)
            losses += [-log_probabilities[n, batch[row, t + 1, n]].item() for n in range(CODES)]
    assert output.latent_loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert output.loss.item() == pytest.approx((output.latent_loss + 0.25 * output.ratio_loss).item(), rel=1e-6)
    assert not output.predictions[~mask].any()


def test_reconstruction_gets_expected_code_vectors() -> None:
    model = discrete_model(stride=2)
    codebook = torch.randn(SIZE, CODE_DIM)
    batch, steps = codes(2, 5), torch.tensor([[0, 0], [0, 3], [1, 1]])
    frames = torch.rand(3, 3, 4, 4)
    drawn = {"reconstruction_steps": steps, "reconstruction_frames": frames, "reconstruction_targets": frames}
    given: list[Tensor] = []

    def dynamics(current: Tensor, latents: Tensor, future: Tensor) -> Tensor:
        given.append(latents)
        return latents.square().mean()

    with pytest.raises(ValueError, match=r"codebook: this model has none.*set_codebook"):
        model(batch, **drawn, forward_dynamics=dynamics)
    model.set_codebook(codebook)
    output = model(batch, **drawn, forward_dynamics=dynamics)
    probabilities = output.predictions[steps[:, 0], steps[:, 1]].softmax(-1)
    torch.testing.assert_close(given[-1], (probabilities @ codebook).flatten(1))
    output.reconstruction_loss.backward()
    assert model.output_proj.weight.grad.abs().sum() > 0


def test_the_codebook_is_saved_with_the_weights(tmp_path: Any) -> None:
    model = discrete_model()
    codebook = torch.randn(SIZE, CODE_DIM)
    model.set_codebook(codebook)
    model.save_pretrained(tmp_path / "with")
    loaded = HiLAMModel.from_pretrained(tmp_path / "with")
    assert torch.equal(loaded.codebook, codebook)
    assert loaded.config.code_dim == CODE_DIM
    sequence = codes(9)
    assert torch.equal(loaded.extract_skills(sequence).unfold(), model.extract_skills(sequence).unfold())

    unset = HiLAMModel(discrete_config(code_dim=CODE_DIM))
    with pytest.raises(ValueError, match="code_dim = 3"):
        unset(codes(1, 5))


def test_skills_and_streams_of_codes() -> None:
    model = discrete_model()
    sequence = codes(24)
    extraction = model.extract_skills(sequence.numpy())
    assert torch.equal(extraction.stages[0].skills, sequence)
    stream = model.stream()
    for t, row in enumerate(sequence):
        step = stream.push(row)
        assert torch.equal(step.stages[0].skill[0], row)
        assert step.boundary[0] == extraction.stages[2].boundaries[t]
        torch.testing.assert_close(step.skill[0], extraction.unfold()[t], rtol=0, atol=1e-5)


def test_bad_codes_say_what_to_do() -> None:
    model = discrete_model()
    with pytest.raises(ValueError, match=r"got torch\.float32, expected integer codes"):
        model(torch.rand(1, 5, CODES))
    with pytest.raises(ValueError, match="expected integer codes"):
        model.extract_skills(torch.rand(5, CODES))
    with pytest.raises(ValueError, match="expected integer codes"):
        model.extract_skills(torch.ones(5, CODES, dtype=torch.bool))
    for wrong in (-1, SIZE):
        with pytest.raises(ValueError, match=rf"got codes from .*expected 0 to {SIZE - 1}"):
            model.extract_skills(torch.tensor([[0, 1, 2, wrong]]))
        with pytest.raises(ValueError, match="got codes from"):
            model.stream().push(torch.tensor([0, 1, 2, wrong]))
    with pytest.raises(ValueError, match=r"expected \(B, T, 4\)"):
        model(codes(2, 5)[..., :3])
    with pytest.raises(ValueError, match="expected floats"):
        HiLAMModel(make_config())(torch.zeros(1, 5, 6, dtype=torch.long))


def test_settings_of_the_other_type_are_refused() -> None:
    with pytest.raises(ValueError, match="latent statistics: got some for discrete"):
        discrete_model().set_latent_statistics(torch.zeros(CODES), torch.ones(CODES))
    with pytest.raises(ValueError, match="codebook: got one for continuous"):
        HiLAMModel(make_config()).set_codebook(torch.zeros(SIZE, 2))
    for wrong in (torch.zeros(SIZE + 1, 2), torch.zeros(SIZE), torch.full((SIZE, 2), torch.nan)):
        with pytest.raises(ValueError, match=rf"expected \({SIZE}, code_dim\) finite"):
            discrete_model().set_codebook(wrong)


def test_training_learns_a_cycle_of_codes() -> None:
    """Code t + 1 follows from code t: the cross-entropy goes from log K towards 0."""
    model = discrete_model().train()
    batch = (torch.arange(24)[:, None] + 2 * torch.arange(CODES)).remainder(SIZE).expand(4, -1, -1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        output = model(batch)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.latent_loss.item())
    assert losses[0] > 0.9 * torch.tensor(float(SIZE)).log()
    assert losses[-1] < 0.2
