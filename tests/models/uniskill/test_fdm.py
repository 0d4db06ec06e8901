"""UniSkill's diffusion forward dynamics model and its diffusers pipeline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, PNDMScheduler, UNet2DConditionModel
from diffusers.pipelines import pipeline_utils
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel
from hilam_hf.models.latent_actions import RegressionFDMConfig
from hilam_hf.models.latent_actions.auto import AutoForwardDynamicsModel
from hilam_hf.models.latent_actions.modeling_regression_fdm import RegressionFDM
from hilam_hf.models.uniskill import DiffusionDraws, UniSkillFDM, UniSkillFDMConfig, UniSkillPipeline
from hilam_hf.models.uniskill.modeling_uniskill_fdm import combine_guidance, kept_conditioning, load_part
from tests.models.mixins import ModelTesterMixin

SIZE, LATENT = 16, 6
# With one token to attend to, the weights of cross-attention are 1 whatever the queries and keys are.
UNUSED_BY_ONE_TOKEN = ("attn2.to_q.", "attn2.to_k.", "transformer_blocks.0.norm2.")

UNET = {
    "sample_size": 8,
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}
VAE = {
    "latent_channels": 4,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
}


def make_config(**changes: Any) -> UniSkillFDMConfig:
    options = {"image_size": SIZE, "latent_dim": LATENT, "unet_config": UNET, "vae_config": VAE}
    return UniSkillFDMConfig(**{**options, "num_inference_steps": 3, **changes})


def make_model(**changes: Any) -> UniSkillFDM:
    torch.manual_seed(0)
    return UniSkillFDM(make_config(**changes)).eval()


def make_batch(size: int = 3) -> dict[str, Tensor]:
    return {
        "frames": torch.rand(size, 3, SIZE, SIZE),
        "latents": torch.randn(size, LATENT),
        "next_frames": torch.rand(size, 3, SIZE, SIZE),
    }


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestUniSkillFDM(ModelTesterMixin):
    model_class = UniSkillFDM
    auto_class = AutoForwardDynamicsModel

    def make_config(self) -> UniSkillFDMConfig:
        return make_config()

    def make_inputs(self) -> dict[str, Any]:
        return dict(make_batch())

    def test_gradients_reach_every_parameter(self, model: PreTrainedModel, inputs: dict[str, Any]) -> None:
        model.train()
        model(**inputs).loss.backward()
        for name, parameter in model.named_parameters():
            if name.startswith("vae."):
                assert parameter.grad is None, f"{name} should be frozen"
            elif any(part in name for part in UNUSED_BY_ONE_TOKEN):
                assert parameter.grad.abs().max() < 1e-6, name
            else:
                assert torch.isfinite(parameter.grad).all(), name
                assert parameter.grad.abs().sum() > 0, name

    def test_loading_in_bfloat16_keeps_the_autoencoder_frozen(self, model: PreTrainedModel, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        loaded = AutoForwardDynamicsModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
        trainable = {name.split(".")[0] for name, parameter in loaded.named_parameters() if parameter.requires_grad}
        assert trainable == {"unet", "condition_norm", "condition_proj"}
        loss = loaded.loss(**make_batch())
        assert loss.dtype == torch.float32 and torch.isfinite(loss)
        frames = loaded.predict(torch.rand(1, 3, SIZE, SIZE), torch.randn(1, LATENT))
        assert frames.dtype == torch.float32 and torch.isfinite(frames).all()


def signal_rates(config: UniSkillFDMConfig, timesteps: Tensor) -> Tensor:
    """Cumulative product of 1 - beta on the scaled-linear schedule, in float64."""
    schedule = config.scheduler_config
    roots = torch.linspace(schedule["beta_start"] ** 0.5, schedule["beta_end"] ** 0.5, 1000, dtype=torch.float64)
    return (1 - roots.square()).cumprod(0)[timesteps]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_loss_is_the_error_of_the_predicted_noise_or_velocity(prediction_type: str) -> None:
    model = make_model()
    model.config.scheduler_config["prediction_type"] = prediction_type
    batch, draws = make_batch(), model.draw(3, seeded())
    output = model(**batch, draws=draws)

    rate = signal_rates(model.config, draws.timesteps)[:, None, None, None]
    signal, noise = output.next_latents.double(), draws.noise.double()
    expected = rate.sqrt() * signal + (1 - rate).sqrt() * noise
    torch.testing.assert_close(output.noisy_latents.double(), expected, rtol=0, atol=1e-5)
    velocity = rate.sqrt() * noise - (1 - rate).sqrt() * signal
    target = noise if prediction_type == "epsilon" else velocity
    losses = (output.predictions.double() - target).square().mean((1, 2, 3))
    torch.testing.assert_close(output.sample_losses.double(), losses, rtol=1e-5, atol=0)
    torch.testing.assert_close(output.loss.double(), losses.mean(), rtol=1e-5, atol=0)


def test_only_the_next_frames_latents_are_sampled_and_scaled() -> None:
    model, batch = make_model(), make_batch()
    draws = model.draw(3, seeded())
    output = model(**batch, draws=draws)
    with torch.no_grad():
        current = model.vae.encode(batch["frames"] * 2 - 1).latent_dist
        following = model.vae.encode(batch["next_frames"] * 2 - 1).latent_dist
    torch.testing.assert_close(output.image_latents, current.mode())
    sample = following.mean + following.logvar.exp().sqrt() * draws.posterior_noise
    torch.testing.assert_close(output.next_latents, 0.18215 * sample)


def test_the_loss_is_decided_by_the_generator_or_the_seed() -> None:
    model, batch = make_model(), make_batch()
    first = model.loss(**batch, generator=seeded())
    assert torch.equal(first, model.loss(**batch, generator=seeded()))
    assert not torch.equal(first, model.loss(**batch, generator=seeded(4)))
    losses = []
    for _ in range(2):
        torch.manual_seed(7)
        losses.append(model.loss(**batch))
    assert torch.equal(*losses)


def test_timesteps_are_uniform_and_noise_is_normal() -> None:
    draws = make_model().draw(2000, seeded())
    assert draws.timesteps.min() >= 0 and draws.timesteps.max() <= 999
    # A standard deviation of the counts is 13.4, of the moments 0.0014 and 0.002.
    assert (torch.bincount(draws.timesteps // 100, minlength=10) - 200).abs().max() < 60
    for noise in (draws.noise, draws.posterior_noise):
        assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert not torch.equal(draws.noise, draws.posterior_noise)


def test_conditioning_dropout_by_brute_force() -> None:
    rate = 0.05
    draws = torch.rand(200_000, generator=seeded())
    action_kept, image_kept = kept_conditioning(draws, rate)
    for draw, action, image in zip(draws[:5000].tolist(), action_kept.tolist(), image_kept.tolist(), strict=False):
        if draw < rate:
            expected = (False, True)
        elif draw < 2 * rate:
            expected = (False, False)
        elif draw < 3 * rate:
            expected = (True, False)
        else:
            expected = (True, True)
        assert (action, image) == expected
    for action, image in ((False, True), (False, False), (True, False)):
        share = ((action_kept == action) & (image_kept == image)).double().mean()
        assert abs(share - rate) < 0.0025  # five standard deviations
    assert all(kept.all() for kept in kept_conditioning(draws, 0.0))


@pytest.mark.parametrize(("draw", "action_used", "image_used"), [(0.04, 0, 1), (0.06, 0, 0), (0.14, 1, 0), (0.2, 1, 1)])
def test_what_is_dropped_has_no_influence(draw: float, action_used: bool, image_used: bool) -> None:
    model, batch, other = make_model(), make_batch(), make_batch()
    draws = model.draw(3, seeded())
    draws = DiffusionDraws(**{**vars(draws), "dropout": torch.full((3,), draw)})

    def influence(name: str, dropped: bool) -> bool:
        model.train(dropped)
        predictions = [model(**inputs, draws=draws).predictions for inputs in (batch, {**batch, name: other[name]})]
        return not torch.equal(*predictions)

    assert influence("latents", dropped=True) == action_used
    assert influence("frames", dropped=True) == image_used
    assert influence("latents", dropped=False) and influence("frames", dropped=False)


def test_dropped_conditioning_is_zero_and_not_the_projection_of_zero() -> None:
    model, batch = make_model().train(), make_batch()
    given: list[tuple[Tensor, ...]] = []
    model.unet.register_forward_pre_hook(lambda _, arguments: given.append(arguments))
    draws = model.draw(3, seeded())
    model(**batch, draws=DiffusionDraws(**{**vars(draws), "dropout": torch.tensor([0.0, 0.06, 0.12])}))
    latents, _, condition = given[0]
    assert [bool(row.any()) for row in condition] == [False, False, True]
    assert [bool(row[4:].any()) for row in latents] == [True, False, False]


def test_a_frozen_model_passes_gradients_to_the_latents() -> None:
    model, batch = make_model().requires_grad_(False), make_batch()
    latents = batch["latents"].requires_grad_()
    model.loss(**batch, generator=seeded()).backward()
    assert (latents.grad.abs().sum(1) > 0).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_gradient_to_the_latents_is_that_of_finite_differences() -> None:
    model, batch = make_model(), make_batch(1)
    latents = batch.pop("latents").requires_grad_()
    draws = model.draw(1, seeded())
    (gradient,) = torch.autograd.grad(model(latents=latents, draws=draws, **batch).loss, latents)
    direction = gradient / gradient.norm()
    with torch.no_grad():
        up, down = (model(latents=latents + step * direction, draws=draws, **batch).loss for step in (0.05, -0.05))
    torch.testing.assert_close((up - down) / 0.1, gradient.norm(), rtol=0.02, atol=0)


class NoHostSync(TorchDispatchMode):
    """Refuses what would make a GPU wait for the host to read a value."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select"), name
        return func(*args, **(kwargs or {}))


def test_the_loss_reads_no_value_back() -> None:
    model, batch = make_model().train(), make_batch()
    assert torch.isfinite(model.loss(**batch))
    with NoHostSync():
        model.loss(**batch).backward()


def test_guidance_identities() -> None:
    both, image, none = torch.randn(3, 2, 4, 3, 3, dtype=torch.float64)
    stacked = torch.cat([both, image, none])
    torch.testing.assert_close(combine_guidance(stacked, 1, 1), both)
    torch.testing.assert_close(combine_guidance(stacked, 0, 1), image)
    torch.testing.assert_close(combine_guidance(stacked, 0, 0), none)
    torch.testing.assert_close(combine_guidance(torch.cat([both] * 3), 7.5, 2.5), both)
    expected = 7.5 * both - 5.0 * image - 1.5 * none
    torch.testing.assert_close(combine_guidance(stacked, 7.5, 2.5), expected)


def ddim_by_hand(model: UniSkillFDM, batch: dict[str, Tensor], noise: Tensor, scales: tuple[float, float]) -> Tensor:
    """Three DDIM steps in float64, each branch through the UNet on its own."""
    condition = model.condition_proj(model.condition_norm(batch["latents"])).unsqueeze(1)
    image_latents = model.vae.encode(batch["frames"] * 2 - 1).latent_dist.mode()

    def predict(latents: Tensor, timestep: int, action: int, image: int) -> Tensor:
        sample = torch.cat([latents.float(), image * image_latents], dim=1)
        return model.unet(sample, timestep, encoder_hidden_states=action * condition).sample.double()

    latents = noise.double()
    for timestep in (667, 334, 1):
        both, image, none = (predict(latents, timestep, *kept) for kept in ((1, 1), (0, 1), (0, 0)))
        epsilon = none + scales[0] * (both - image) + scales[1] * (image - none)
        rate, next_rate = signal_rates(model.config, torch.tensor([timestep, max(timestep - 333, 0)]))
        signal = (latents - (1 - rate).sqrt() * epsilon) / rate.sqrt()
        latents = next_rate.sqrt() * signal + (1 - next_rate).sqrt() * epsilon
    return (model.vae.decode((latents / 0.18215).float()).sample / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
@pytest.mark.parametrize("scales", [(7.5, 2.5), (1.5, 1.0), (1.0, 1.0)])
def test_sampling_against_ddim_by_hand(scales: tuple[float, float]) -> None:
    model, batch = make_model(), make_batch()
    noise = torch.randn(3, 4, 8, 8)
    *_, sample = model.sample(
        batch["frames"], batch["latents"], noise=noise, guidance_scale=scales[0], image_guidance_scale=scales[1]
    )
    expected = ddim_by_hand(model, batch, noise, scales)
    torch.testing.assert_close(model.decode_latents(sample), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("scales", "branches"), [((1, 1), 1), ((0, 1.5), 1), ((7.5, 0.5), 1), ((1.1, 1), 3)])
def test_guidance_is_on_above_the_published_thresholds_only(scales: tuple[float, float], branches: int) -> None:
    model, batch, sizes = make_model(), make_batch(2), []
    model.unet.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    model.predict(batch["frames"], batch["latents"], guidance_scale=scales[0], image_guidance_scale=scales[1])
    assert sizes == [2 * branches] * 3


def test_predictions_are_frames_and_follow_the_generator() -> None:
    model, batch = make_model(), make_batch(2)
    frames, latents = batch["frames"], batch["latents"].requires_grad_()
    predicted = model.predict(frames, latents, generator=seeded())
    assert predicted.shape == frames.shape and not predicted.requires_grad
    assert predicted.min() >= 0 and predicted.max() <= 1
    assert torch.equal(predicted, model.predict(frames, latents, generator=seeded()))
    assert not torch.equal(predicted, model.predict(frames, latents, generator=seeded(4)))
    assert not torch.equal(predicted, model.predict(frames, -latents, generator=seeded()))


def test_samples_do_not_depend_on_their_neighbours() -> None:
    model, batch, noise = make_model(), make_batch(3), torch.randn(3, 4, 8, 8)
    *_, together = model.sample(batch["frames"], batch["latents"], noise=noise)
    for row in range(3):
        one = slice(row, row + 1)
        *_, alone = model.sample(batch["frames"][one], batch["latents"][one], noise=noise[one])
        torch.testing.assert_close(alone, together[one], rtol=0, atol=1e-4)


def test_ancestral_samplers_take_their_noise_from_the_generator() -> None:
    model, batch = make_model(sampler="ddpm"), make_batch(2)
    samples = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        samples.append(model.predict(batch["frames"], batch["latents"], generator=seeded()))
    assert torch.equal(*samples)


def save_editing_pipeline(folder: Path, **unet_changes: Any) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """The parts of an InstructPix2Pix checkpoint that matter, on the scheduler that such checkpoints come with."""
    unet, vae = UNet2DConditionModel(**{**UNET, **unet_changes}), AutoencoderKL(**VAE)
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    for name, part in {"unet": unet, "vae": vae, "scheduler": scheduler}.items():
        part.save_pretrained(folder / name)
    return unet, vae


def test_training_starts_from_an_editing_pipeline(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    unet, vae = save_editing_pipeline(tmp_path / "edit")
    model = UniSkillFDM.from_diffusers(str(tmp_path / "edit"), image_size=SIZE, latent_dim=LATENT)
    for ours, theirs in ((model.unet, unet), (model.vae, vae)):
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value), name
    assert model.noise_scheduler.config.beta_end == 0.012
    assert not any(parameter.requires_grad for parameter in model.vae.parameters())
    assert all(parameter.requires_grad for parameter in model.unet.parameters())
    assert "not expected" not in capfd.readouterr().err  # the other scheduler's options are known not to apply

    batch = make_batch()
    model.save_pretrained(tmp_path / "fdm")
    loaded = UniSkillFDM.from_pretrained(tmp_path / "fdm")
    assert torch.equal(model.loss(**batch, generator=seeded()), loaded.loss(**batch, generator=seeded()))


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    save_editing_pipeline(tmp_path / "plain", in_channels=4)
    with pytest.raises(StrictDataclassError, match=r"in_channels 4 .* expected 8"):
        UniSkillFDM.from_diffusers(str(tmp_path / "plain"), image_size=SIZE)
    unet, _ = save_editing_pipeline(tmp_path / "partial")
    del unet.conv_out
    unet.save_pretrained(tmp_path / "partial" / "unet")
    with pytest.raises(ValueError, match=r"partial/unet .*conv_out"):
        UniSkillFDM.from_diffusers(str(tmp_path / "partial"), image_size=SIZE)
    with pytest.raises(OSError, match="missing"):
        UniSkillFDM.from_diffusers(str(tmp_path / "missing"))
    RegressionFDM(RegressionFDMConfig(image_size=SIZE, hidden_size=8)).save_pretrained(tmp_path / "regression")
    with pytest.raises(ValueError, match="of kind 'regression_fdm'"):
        UniSkillFDM.from_pretrained(tmp_path / "regression")


def test_a_part_of_the_hub_that_cannot_be_had_warns_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(OSError, match="org/absent"):
        load_part(UNet2DConditionModel, "org/absent", "unet")
    assert [str(each.message) for each in recwarn] == []


def make_pipeline(model: UniSkillFDM, **options: Any) -> UniSkillPipeline:
    pipeline = UniSkillPipeline.from_fdm(model, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_pipeline_samples_as_the_model_does() -> None:
    model, batch = make_model(), make_batch(2)
    frames, latents = batch["frames"], batch["latents"]
    pipeline = make_pipeline(model)
    expected = model.predict(frames, latents, num_inference_steps=2, guidance_scale=3.0, generator=seeded())
    options = {"num_inference_steps": 2, "guidance_scale": 3.0}
    images = pipeline(frames, latents, generator=seeded(), output_type="pt", **options).images
    assert torch.equal(images, expected)
    (arrays,) = pipeline(frames, latents, generator=seeded(), output_type="np", return_dict=False, **options)
    torch.testing.assert_close(torch.from_numpy(arrays).permute(0, 3, 1, 2), expected)
    noise = torch.randn(2, 4, 8, 8)
    *_, sample = model.sample(frames, latents, noise=noise)
    assert torch.equal(pipeline(frames, latents, latents=noise, output_type="latent").images, sample)


def test_the_pipeline_takes_and_gives_pictures_of_any_size() -> None:
    model = make_model()
    picture = Image.new("RGB", (40, 20), (255, 0, 0))
    latents = torch.randn(2, LATENT)
    images = make_pipeline(model)([picture, picture], latents, generator=seeded()).images
    assert [image.size for image in images] == [(SIZE, SIZE)] * 2
    red = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None].expand(2, 3, SIZE, SIZE)
    expected = (model.predict(red, latents, generator=seeded()) * 255).round()
    assert torch.equal(torch.from_numpy(np.array(images[0])).permute(2, 0, 1), expected[0].byte())


def test_the_pipeline_is_saved_and_loaded_by_its_class_and_by_diffusers(tmp_path: Path) -> None:
    model, batch = make_model(), make_batch(2)
    make_pipeline(model, sampler="euler_discrete").save_pretrained(tmp_path)
    expected = make_pipeline(model, sampler="euler_discrete")(**pipeline_inputs(batch)).images
    for loader in (UniSkillPipeline, DiffusionPipeline):
        loaded = loader.from_pretrained(tmp_path)
        loaded.set_progress_bar_config(disable=True)
        assert type(loaded) is UniSkillPipeline
        assert torch.equal(loaded(**pipeline_inputs(batch)).images, expected)
    fdm = AutoForwardDynamicsModel.from_pretrained(tmp_path, subfolder="fdm")
    assert torch.equal(fdm.loss(**batch, generator=seeded()), model.loss(**batch, generator=seeded()))


def pipeline_inputs(batch: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "image": batch["frames"],
        "latent_actions": batch["latents"],
        "generator": seeded(),
        "output_type": "pt",
    }


def test_diffusers_accepts_the_pipeline_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers refuses repositories whose components it can't place before it downloads them."""
    make_pipeline(make_model()).save_pretrained(tmp_path)
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    siblings = [SimpleNamespace(rfilename=name) for name in files]
    monkeypatch.setattr(pipeline_utils, "model_info", lambda *_, **__: SimpleNamespace(siblings=siblings))
    monkeypatch.setattr(pipeline_utils, "hf_hub_download", lambda *_, **__: str(tmp_path / "model_index.json"))
    monkeypatch.setattr(pipeline_utils, "_resolve_revision", lambda *_, **__: "main", raising=False)
    assert Path(DiffusionPipeline.download("org/uniskill")) == tmp_path


@pytest.mark.slow
def test_diffusers_knows_the_pipeline_once_the_package_is_imported(tmp_path: Path) -> None:
    make_pipeline(make_model()).save_pretrained(tmp_path)
    probe = (
        "import sys, hilam_hf\n"
        "assert not {'torch', 'diffusers'} & set(sys.modules)\n"
        "from diffusers import DiffusionPipeline\n"
        "print(type(DiffusionPipeline.from_pretrained(sys.argv[1])).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", probe, str(tmp_path)], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "UniSkillPipeline"


def test_hilam_trains_through_the_frozen_model() -> None:
    fdm = make_model().requires_grad_(False)
    hilam = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=LATENT, stride=2)).train()
    latents = torch.randn(2, 8, LATENT)
    hilam.set_latent_statistics(latents.mean((0, 1)), latents.std((0, 1)))
    output = hilam(
        latents,
        reconstruction_steps=torch.tensor([[0, 0], [0, 6], [1, 2]]),
        reconstruction_frames=torch.rand(3, 3, SIZE, SIZE),
        reconstruction_targets=torch.rand(3, 3, SIZE, SIZE),
        forward_dynamics=fdm,
    )
    assert torch.isfinite(output.reconstruction_loss)
    output.reconstruction_loss.backward()
    assert hilam.output_proj.weight.grad.abs().sum() > 0
    assert hilam.input_proj.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in fdm.parameters())


def test_a_hilam_checkpoint_holds_it(tmp_path: Path) -> None:
    config = HiLAMConfig.preset("tiny", latent_dim=LATENT, fdm_config=make_config())
    hilam = HiLAMModel(config)
    hilam.set_latent_statistics(torch.zeros(LATENT), torch.ones(LATENT))
    hilam.save_pretrained(tmp_path)
    loaded = HiLAMModel.from_pretrained(tmp_path)
    batch = make_batch()
    assert type(loaded.fdm) is UniSkillFDM
    assert torch.equal(loaded.fdm.loss(**batch, generator=seeded()), hilam.fdm.loss(**batch, generator=seeded()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": torch.zeros(3, 3, SIZE, SIZE, dtype=torch.uint8)}, "divide 8-bit frames by 255"),
        ({"frames": torch.zeros(3, 3, 8, 8)}, r"\(B, 3, 16, 16\)"),
        ({"frames": torch.zeros(3, 1, SIZE, SIZE)}, "must have shape"),
        ({"next_frames": torch.zeros(2, 3, SIZE, SIZE)}, "must have the same shape"),
        ({"latents": torch.zeros(3, LATENT + 1)}, r"latents must have shape \(3, 6\)"),
        ({"latents": torch.zeros(2, LATENT)}, r"latents must have shape \(3, 6\)"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Tensor], message: str) -> None:
    model, batch = make_model(), make_batch() | changes
    with pytest.raises(ValueError, match=message):
        model.loss(**batch)
    if "next_frames" not in changes:
        with pytest.raises(ValueError, match=message):
            model.predict(batch["frames"], batch["latents"])


def test_bad_options_are_refused() -> None:
    model, batch = make_model(), make_batch()
    with pytest.raises(ValueError, match="num_inference_steps: got 0"):
        model.predict(batch["frames"], batch["latents"], num_inference_steps=0)
    with pytest.raises(ValueError, match="sampler: got 'pndm'"):
        model.make_scheduler("pndm")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unet_config": {**UNET, "in_channels": 4}}, "in_channels 4"),
        ({"unet_config": {key: UNET[key] for key in UNET if key != "cross_attention_dim"}}, "no cross_attention_dim"),
        ({"vae_config": {}}, "no block_out_channels"),
        ({"image_size": 15}, "multiple of the autoencoder's scale factor 2"),
        ({"conditioning_dropout": 0.5}, "0 to 1/3"),
        ({"num_inference_steps": 0}, "expected 1 or more"),
        ({"latent_dim": 0}, "expected 1 or more"),
        ({"scheduler_config": {"prediction_type": "sample"}}, "'epsilon' or 'v_prediction'"),
        ({"sampler": "pndm"}, "sampler"),
    ],
)
def test_bad_configurations_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StrictDataclassError, match=message):
        make_config(**changes)


def test_the_defaults_are_the_published_sizes() -> None:
    config = UniSkillFDMConfig()
    assert (config.image_size, config.latent_dim, config.condition_dim) == (256, 64, 768)
    assert config.latents_shape == (4, 32, 32)
    with torch.device("meta"):
        model = UniSkillFDM(config)
    # The UNet of Stable Diffusion 1.5 has 859,520,964 parameters; four more input channels add 4 x 320 x 9.
    assert sum(parameter.numel() for parameter in model.unet.parameters()) == 859_520_964 + 4 * 320 * 9
    assert sum(parameter.numel() for parameter in model.vae.parameters()) == 83_653_863
