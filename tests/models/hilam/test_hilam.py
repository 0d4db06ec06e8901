"""HiLAM's losses against brute force, its skills against hand-made examples, and a short training run."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel, SkillExtraction, segment_ids, unfold, unfold_boundaries
from hilam_hf.models.hnet import HNetConfig
from tests.models.mixins import ModelTesterMixin

DIM = 6


def make_config(**changes: Any) -> HiLAMConfig:
    backbone = HNetConfig(
        arch_layout=["T1", ["T1", ["T1"], "T1"], "T1"],
        d_model=[32, 32, 48],
        d_intermediate=[64, 64, 64],
        num_heads=[2, 2, 2],
        rotary_emb_dim=[8, 8, 8],
        window_size=[-1, -1, -1],
        initializer_range=0.2,
    )
    return HiLAMConfig(**{"latent_dim": DIM, "hnet_config": backbone, "target_ratios": [3.0, 2], **changes})


def make_model(seed: int = 0, **changes: Any) -> HiLAMModel:
    torch.manual_seed(seed)
    model = HiLAMModel(make_config(**changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "routing_module" in name or "residual_proj" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.set_latent_statistics(torch.linspace(-1, 1, DIM), torch.linspace(0.5, 2, DIM))
    return model


def padded_batch(sequences: list[Tensor], fill: float = 1e3) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    length = int(lengths.max()) + 2
    batch = torch.full((len(sequences), length, DIM), fill)
    for row, sequence in zip(batch, sequences, strict=True):
        row[: len(sequence)] = sequence
    return batch, torch.arange(length) < lengths[:, None]


class TestHiLAMModel(ModelTesterMixin):
    model_class = HiLAMModel

    def make_config(self) -> HiLAMConfig:
        return make_config()

    def prepare_model(self, model: HiLAMModel) -> None:
        model.set_latent_statistics(torch.zeros(DIM), torch.ones(DIM))

    def make_inputs(self) -> dict[str, Any]:
        batch, mask = padded_batch([torch.randn(20, DIM), torch.randn(11, DIM)])
        return {"latent_actions": batch, "attention_mask": mask}


def test_a_stride_in_seconds_follows_the_rate() -> None:
    config = HiLAMConfig.preset("tiny", latent_dim=4, stride=None, stride_seconds=0.5)
    assert [config.stride_at(fps) for fps in (30, 5, 1)] == [15, 2, 1]
    with pytest.raises(ValueError, match=r"fps: got none, but this model's stride is 0\.5 s"):
        config.stride_at(None)
    assert HiLAMConfig.preset("tiny", stride=7).stride_at(None) == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_ratios": [3.0]}, "target_ratios: got 1 .*expected 2"),
        ({"target_ratios": [3.0, 1.0]}, "values above 1"),
        ({"skill_stage": 3}, "skill_stage: got 3"),
        ({"stride": 0}, "stride: got 0"),
        ({"lambda_ratio": -0.1}, "lambda_ratio: got -0.1"),
    ],
)
def test_bad_configurations_say_what_to_do(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StrictDataclassError, match=message):
        make_config(**changes)


@pytest.mark.parametrize(("name", "millions"), [("tiny", 1.10), ("small", 8.30), ("base", 81.26), ("large", 332.99)])
def test_presets_have_the_documented_sizes(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = HiLAMModel(HiLAMConfig.preset(name, latent_dim=64))
    assert model.num_parameters() / 1e6 == pytest.approx(millions, abs=0.005)
    row = next(line for line in (HiLAMConfig.preset.__doc__ or "").splitlines() if f"| {name} |" in line)
    assert f"| {millions:.2f} M |" in row
    assert ", ".join(map(str, model.config.backbone.d_model)) in row
    assert f"`{json.dumps(model.config.backbone.arch_layout)}`" in row
    assert model.config.backbone.window_size == [63, 63, 255]


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of"):
        HiLAMConfig.preset("huge")


def test_statistics_must_be_set_and_sensible() -> None:
    model = HiLAMModel(make_config())
    with pytest.raises(ValueError, match="set_latent_statistics"):
        model(torch.randn(1, 5, DIM))
    with pytest.raises(ValueError, match="set_latent_statistics"):
        model.extract_skills(torch.randn(5, DIM))
    with pytest.raises(ValueError, match=rf"expected \({DIM},\) finite"):
        model.set_latent_statistics(torch.zeros(DIM + 1), torch.ones(DIM + 1))
    with pytest.raises(ValueError, match="std: got a value below 0"):
        model.set_latent_statistics(torch.zeros(DIM), -torch.ones(DIM))
    model.set_latent_statistics(torch.zeros(DIM), torch.ones(DIM))
    assert torch.isfinite(model(torch.randn(1, 5, DIM)).loss)


def test_constant_dimensions_are_not_divided_by_their_rounding() -> None:
    """A rounding of 1e-7 beside a mean of 3, and one of 1e-9 beside other deviations of 1, are no signal."""
    model = HiLAMModel(make_config())
    mean, std = torch.tensor([3.0, 0, 0, 0, 0, 3]), torch.tensor([1e-7, 1e-9, 0, 1, 0.5, 1e-3])
    model.set_latent_statistics(mean, std)
    torch.testing.assert_close(model.latent_std, torch.tensor([1, 1, 1, 1, 0.5, 1e-3]))
    assert model.standardise(mean + std).abs().max() <= 1.001


def test_statistics_survive_saving_and_their_absence_too(tmp_path: Any) -> None:
    make_model().save_pretrained(tmp_path / "set")
    loaded = HiLAMModel.from_pretrained(tmp_path / "set")
    torch.testing.assert_close(loaded.latent_std, torch.linspace(0.5, 2, DIM), rtol=0, atol=0)
    HiLAMModel(make_config()).save_pretrained(tmp_path / "unset")
    with pytest.raises(ValueError, match="set_latent_statistics"):
        HiLAMModel.from_pretrained(tmp_path / "unset")(torch.randn(1, 5, DIM))


def test_bad_inputs_say_what_to_do() -> None:
    model = make_model()
    with pytest.raises(ValueError, match=r"expected \(B, T, 6\)"):
        model(torch.randn(2, 5, DIM + 1))
    with pytest.raises(ValueError, match=r"attention_mask: got shape \(2, 4\)"):
        model(torch.randn(2, 5, DIM), torch.ones(2, 4))
    with pytest.raises(ValueError, match="no inverse dynamics model"):
        model.extract_skills(torch.rand(5, 3, 8, 8))
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.extract_skills(torch.full((5, DIM), torch.nan))
    with pytest.raises(ValueError, match="too far from the training corpus"):
        model.extract_skills(torch.full((5, DIM), 1e30))
    with pytest.raises(ValueError, match=r"inputs: got a sequence of shape \(0, 6\)"):
        model.extract_skills([torch.zeros(0, DIM)])
    with pytest.raises(ValueError, match="without a padded batch"):
        model.extract_skills(torch.randn(5, DIM), attention_mask=torch.ones(1, 5))


def test_latent_and_ratio_losses_by_brute_force() -> None:
    model = make_model(lambda_ratio=0.25)
    sequences = [torch.randn(length, DIM) for length in (15, 1, 9)]
    batch, mask = padded_batch(sequences)
    output = model(batch, mask)
    mean, std = torch.linspace(-1, 1, DIM), torch.linspace(0.5, 2, DIM)
    errors = []
    for row, sequence in enumerate(sequences):
        for t in range(len(sequence) - 1):
            errors += (((output.predictions[row, t] - mean) - (sequence[t + 1] - mean)) / std).abs().tolist()
    assert output.latent_loss.item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)

    ratios = []
    for n, stage in zip([3.0, 2.0], output.stages, strict=True):
        f = stage.boundary_mask[stage.mask].double().mean()
        g = stage.boundary_prob[stage.mask].double().mean()
        ratios.append((n / (n - 1) * ((n - 1) * f * g + (1 - f) * (1 - g))).item())
    assert output.ratio_losses.tolist() == pytest.approx(ratios, rel=1e-5)
    assert output.ratio_loss.item() == pytest.approx(sum(ratios), rel=1e-5)
    assert output.loss.item() == pytest.approx((output.latent_loss + 0.25 * output.ratio_loss).item(), rel=1e-6)
    assert output.reconstruction_loss is None
    assert not output.predictions[~mask].any()


def test_one_step_sequences_have_no_latent_loss() -> None:
    output = make_model()(torch.randn(3, 1, DIM))
    assert output.latent_loss == 0
    output.loss.backward()


def test_predictions_are_causal() -> None:
    model = make_model()
    first = torch.randn(1, 14, DIM)
    second = first.clone()
    second[:, 9:] = torch.randn(1, 5, DIM)
    left, right = (model(latents).predictions[:, :9] for latents in (first, second))
    torch.testing.assert_close(left, right, rtol=0, atol=1e-5)


def test_padding_never_leaks() -> None:
    model = make_model()
    sequences = [torch.randn(length, DIM) for length in (18, 5, 12)]
    batch, mask = padded_batch(sequences)
    weights = torch.randn(batch.shape)

    (model(batch, mask).predictions * weights).sum().backward()
    together = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    for row, sequence in enumerate(sequences):
        alone = model(sequence[None]).predictions[0]
        torch.testing.assert_close(model(batch, mask).predictions[row, : len(sequence)], alone, rtol=0, atol=1e-5)
        (alone * weights[row, : len(sequence)]).sum().backward()
    for parameter, gradient in zip(model.parameters(), together, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4)

    with_garbage, with_nan = model(batch, mask), model(padded_batch(sequences, torch.nan)[0], mask)
    assert torch.equal(with_garbage.loss, with_nan.loss)


class RecordingDynamics(nn.Module):
    """A forward dynamics model whose loss is the mean of the latents, and which keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()), requires_grad=False)
        self.given: list[tuple[Tensor, Tensor, Tensor]] = []

    def loss(self, frames: Tensor, latents: Tensor, next_frames: Tensor) -> Tensor:
        self.given.append((frames, latents, next_frames))
        return self.weight * latents.mean()


def test_reconstruction_pairs_the_predicted_latent_with_its_frames() -> None:
    """ẑ_(t+1), predicted at step t of its own sequence, goes with that step's two frames."""
    model = make_model(lambda_rec=0.5)
    batch, mask = padded_batch([torch.randn(10, DIM), torch.randn(4, DIM)])
    steps = torch.tensor([[1, 2], [0, 0], [0, 8]])
    frames = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None, None].expand(3, 1, 2, 2)
    dynamics = RecordingDynamics()
    output = model(
        batch,
        mask,
        reconstruction_steps=steps,
        reconstruction_frames=frames,
        reconstruction_targets=frames.flip(0),
        forward_dynamics=dynamics,
    )
    (current, latents, future), *_ = dynamics.given
    torch.testing.assert_close(current[:, 0, 0, 0], torch.tensor([0.0, 0.2, 1.0]))
    torch.testing.assert_close(future[:, 0, 0, 0], torch.tensor([1.0, 0.2, 0.0]))
    torch.testing.assert_close(latents, output.predictions[steps[:, 0], steps[:, 1]])
    expected = output.latent_loss + 0.5 * latents.mean() + model.config.lambda_ratio * output.ratio_loss
    torch.testing.assert_close(output.loss, expected)
    output.reconstruction_loss.backward()
    assert model.output_proj.weight.grad.abs().sum() > 0


def test_reconstruction_takes_a_function_and_refuses_what_does_not_fit() -> None:
    model, latents = make_model(), torch.randn(2, 6, DIM)
    drawn = {
        "reconstruction_steps": torch.tensor([[0, 1], [1, 4]]),
        "reconstruction_frames": torch.rand(2, 3, 4, 4),
        "reconstruction_targets": torch.rand(2, 3, 4, 4),
    }
    output = model(latents, **drawn, forward_dynamics=lambda i, z, j: z.square().mean())
    assert output.reconstruction_loss > 0
    with pytest.raises(ValueError, match="no forward dynamics model"):
        model(latents, **drawn)
    with pytest.raises(ValueError, match="reconstruction_steps none"):
        model(latents, forward_dynamics=RecordingDynamics())
    for name, wrong in (
        ("reconstruction_steps", torch.zeros(3, 2).long()),
        ("reconstruction_frames", None),
        ("reconstruction_targets", torch.rand(2, 3, 4, 5)),
    ):
        with pytest.raises(ValueError, match=rf"{name} .*expected \(R, 2\), \(R, C, H, W\)"):
            model(latents, **{**drawn, name: wrong}, forward_dynamics=RecordingDynamics())
    trainable = RecordingDynamics().requires_grad_(True)
    with pytest.raises(ValueError, match="requires_grad_"):
        model(latents, **drawn, forward_dynamics=trainable)


def test_unfolding_by_hand() -> None:
    """Eq. 5 on 8 steps: stage 1 cuts at 0, 2, 3, 6; stage 2 at the first and third of those tokens."""
    first = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0]).bool()
    second = torch.tensor([1, 0, 1, 0]).bool()
    unfolded = unfold_boundaries([first, second])
    assert torch.equal(unfolded[0], first)
    assert unfolded[1].tolist() == [True, False, False, True, False, False, False, False]
    assert segment_ids(unfolded[0]).tolist() == [1, 1, 2, 3, 3, 3, 4, 4]
    assert segment_ids(unfolded[1]).tolist() == [1, 1, 1, 2, 2, 2, 2, 2]
    skills = torch.tensor([[5.0], [7.0]])
    assert unfold(skills, unfolded[1])[:, 0].tolist() == [5, 5, 5, 7, 7, 7, 7, 7]

    tokens = [torch.arange(4.0)[:, None], skills]
    extraction = SkillExtraction.from_tokens(torch.zeros(8, 2), [first, second], tokens, skill_stage=2)
    assert extraction.num_stages == 2
    assert extraction.boundary_rates() == (4 / 8, 2 / 4)
    assert torch.equal(extraction.unfold(), unfold(skills, unfolded[1]))
    assert extraction.unfold(1)[:, 0].tolist() == [0, 0, 1, 2, 2, 2, 3, 3]
    assert extraction.unfold(0).shape == (8, 2)
    with pytest.raises(ValueError, match=r"expected 0 .* to 2"):
        extraction.unfold(3)


def test_unfolding_refuses_what_does_not_fit() -> None:
    boundaries = torch.tensor([True, False, True])
    with pytest.raises(ValueError, match="got 3 rows for 2 boundaries"):
        unfold(torch.zeros(3, 1), boundaries)
    with pytest.raises(ValueError, match="first step must start a segment"):
        unfold(torch.zeros(1, 1), torch.tensor([False, True]))
    with pytest.raises(ValueError, match="got 3 entries at stage 2, expected 2"):
        unfold_boundaries([boundaries, boundaries])


def test_extracted_skills_are_the_stages_tokens() -> None:
    """Batched extraction against the stages of a forward pass over each sequence alone."""
    model = make_model()
    sequences = [torch.randn(length, DIM) for length in (25, 1, 17, 8)]
    extractions = model.extract_skills(sequences, batch_size=3)
    assert [len(extraction) for extraction in extractions] == [25, 1, 17, 8]
    for sequence, extraction in zip(sequences, extractions, strict=True):
        stages = model(sequence[None]).stages
        assert extraction.skill_stage == extraction.num_stages == 2
        assert torch.equal(extraction.stages[0].skills, sequence)
        assert extraction.stages[0].segment_ids.tolist() == list(range(1, len(sequence) + 1))
        assert torch.equal(extraction.stages[1].boundaries, stages[0].boundary_mask[0])
        for number, stage in enumerate(stages, start=1):
            torch.testing.assert_close(extraction.stages[number].skills, stage.chunk_states[0], rtol=0, atol=1e-5)
        # z^2 at a step is stage 2's first encoder feature of the segment that the step lies in.
        starts = extraction.stages[1].segment_ids - 1
        level = stages[1].encoder_states[0]
        for t in range(len(sequence)):
            last = extraction.stages[2].boundaries[: t + 1].nonzero()[-1, 0]
            torch.testing.assert_close(extraction.unfold(2)[t], level[starts[last]], rtol=0, atol=1e-5)


def test_extraction_takes_one_sequence_a_list_or_a_padded_batch() -> None:
    model = make_model()
    sequences = [torch.randn(9, DIM), torch.randn(5, DIM)]
    batch, mask = padded_batch(sequences)
    for extractions in (model.extract_skills(batch, attention_mask=mask), model.extract_skills(sequences)):
        for sequence, extraction in zip(sequences, extractions, strict=True):
            single = model.extract_skills(sequence)
            assert torch.equal(extraction.stages[2].boundaries, single.stages[2].boundaries)
            torch.testing.assert_close(extraction.unfold(), single.unfold(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 300])
def test_constant_video_is_one_finite_segment_at_least(length: int) -> None:
    extraction = make_model().extract_skills(torch.ones(length, DIM))
    assert extraction.stages[2].boundaries[0]
    assert torch.isfinite(extraction.unfold()).all()


def test_frames_go_through_the_models_own_idm(tmp_path: Any) -> None:
    from hilam_hf.models.uniskill import UniSkillIDMConfig

    idm_config = UniSkillIDMConfig.preset(
        "light", image_size=16, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, latent_dim=DIM
    )
    model = make_model(idm_config=idm_config, stride=2)
    assert not any(parameter.requires_grad for parameter in model.idm.parameters())
    assert not model.train().idm.training
    frames = torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8)
    extraction = model.extract_skills(frames)
    expected = model.idm.encode_video(frames.float() / 255, stride=2)
    torch.testing.assert_close(extraction.stages[0].skills, expected)
    assert len(extraction) == 7

    model.save_pretrained(tmp_path)
    loaded = HiLAMModel.from_pretrained(tmp_path)
    assert not any(parameter.requires_grad for parameter in loaded.idm.parameters())
    assert torch.equal(loaded.extract_skills(frames).unfold(), extraction.unfold())


def piecewise_constant_batch(generator: torch.Generator, batch: int = 16, length: int = 48) -> Tensor:
    """Sequences that stay at one of five values for 3-9 steps, with a little noise."""
    values = torch.randn(5, DIM, generator=torch.Generator().manual_seed(0))
    ends = torch.randint(3, 10, (batch, length), generator=generator).cumsum(1)
    segment = (torch.arange(length)[None, :, None] >= ends[:, None]).sum(-1)
    choice = torch.randint(0, 5, (batch, length), generator=generator).gather(1, segment)
    return values[choice] + 0.05 * torch.randn(batch, length, DIM, generator=generator)


def test_training_lowers_the_loss_and_draws_the_boundary_rate_to_its_target() -> None:
    torch.manual_seed(0)
    backbone = HNetConfig(
        arch_layout=["T1", ["T1"], "T1"],
        d_model=[32, 32],
        d_intermediate=[64, 64],
        num_heads=[2, 2],
        rotary_emb_dim=[8, 8],
        window_size=[-1, -1],
    )
    config = HiLAMConfig(latent_dim=DIM, hnet_config=backbone, target_ratios=[3.0], skill_stage=1, lambda_ratio=0.1)
    model = HiLAMModel(config)
    generator = torch.Generator().manual_seed(1)
    sample = piecewise_constant_batch(generator, batch=64).flatten(0, 1)
    model.set_latent_statistics(sample.mean(0), sample.std(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses, rates = [], []
    for _ in range(100):
        output = model(piecewise_constant_batch(generator))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.latent_loss.item())
        rates.append(output.boundary_rates.item())
    assert rates[0] < 0.2
    assert sum(rates[-25:]) / 25 == pytest.approx(1 / 3, abs=0.08)
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
