"""UniSkill's diffusion FDM, with the IDM beside it, against every `uniskill_fdm` case of the golden folder.

The published projection of the latent action to the condition is part of the IDM; here the FDM has it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.schedulers import scheduling_ddpm
from PIL import Image
from torch import Tensor

from hilam_hf.models.processing import SquareImageProcessorPil
from hilam_hf.models.uniskill import DiffusionDraws, UniSkillFDM, UniSkillFDMConfig, UniSkillIDM
from hilam_hf.models.uniskill.depth import resize_depth, scale_depth
from tests.models.goldens import Case, Tensors, case_names, check_golden, check_held, load_case, published_weights
from tests.models.uniskill.test_idm_golden import load_idm, our_name

IDM = "idm."
OTHER_TESTS = ("depth_pair", "eval_mode/", "sample_")


def load_models(case: Case, tensors: Tensors) -> tuple[UniSkillIDM, UniSkillFDM]:
    weights = published_weights(case, tensors)
    of_idm = {name.removeprefix(IDM): weights.pop(name) for name in list(weights) if name.startswith(IDM)}
    idm, condition = load_idm(of_idm, case["idm_config"])
    fdm = UniSkillFDM(
        UniSkillFDMConfig(
            image_size=case["resolution"],
            latent_dim=case["idm_config"]["skill_dim"],
            unet_config=case["unet_config"],
            vae_config=case["vae_config"],
            scheduler_config=case["scheduler_config"],
            conditioning_dropout=case["uncond_prob"],
            num_inference_steps=case["num_inference_steps"],
        )
    )
    fdm.load_state_dict({**weights, **condition}, strict=True)
    return idm, fdm


def infer_latents(idm: UniSkillIDM, tensors: Tensors) -> Tensor:
    frames, next_frames = (tensors[f"preprocessed/idm_{name}_images"] / 255 for name in ("curr", "next"))
    depth, next_depth = tensors["outputs/depth_pair"].unbind(1)
    return idm(frames, next_frames, depth, next_depth).latents


def training_inputs(tensors: Tensors) -> dict[str, Any]:
    draws = {name: tensors[f"inputs/{name}"] for name in ("posterior_noise", "noise", "timesteps")}
    return {
        "frames": (tensors["preprocessed/curr_images"] + 1) / 2,
        "next_frames": (tensors["preprocessed/next_images"] + 1) / 2,
        "draws": DiffusionDraws(**draws, dropout=tensors["inputs/dropout_draws"]),
    }


@pytest.mark.parametrize("name", case_names("uniskill_fdm"))
def test_golden_preprocessing(name: str) -> None:
    case, tensors = load_case(name)
    for index, which in enumerate(("curr", "next")):
        pictures = [Image.fromarray(frame.numpy()) for frame in tensors["inputs/frames"][:, index]]
        pixels = processed(pictures, case["resolution"])
        published = (tensors[f"preprocessed/{which}_images"] + 1) / 2
        assert_nearly_the_same_levels(pixels * 255, published * 255)
        pixels = processed(pictures, case["idm_config"]["idm_resolution"])
        assert_nearly_the_same_levels(pixels * 255, tensors[f"preprocessed/idm_{which}_images"])


def assert_nearly_the_same_levels(actual: Tensor, published: Tensor) -> None:
    """The published code resizes with PIL, whose filter weights have fewer bits: few pixels are one level off."""
    difference = (actual.round().int() - published.round().int()).abs()
    assert difference.max() <= 1 and difference.float().mean() < 0.03


def processed(pictures: list[Image.Image], size: int) -> Tensor:
    processor = SquareImageProcessorPil(size={"height": size, "width": size})
    return processor(pictures, return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("name", case_names("uniskill_fdm"))
def test_golden_depth(name: str) -> None:
    case, tensors = load_case(name)
    maps = resize_depth(scale_depth(tensors["inputs/raw_depth"]), case["idm_config"]["idm_resolution"])
    check_golden(case, tensors, "outputs/depth_pair", torch.stack(maps.chunk(2), dim=1))


@pytest.mark.parametrize("name", case_names("uniskill_fdm"))
def test_golden_training_step(name: str) -> None:
    case, tensors = load_case(name)
    idm, fdm = load_models(case, tensors)
    latents = infer_latents(idm.train(), tensors)
    output = fdm.train()(latents=latents, **training_inputs(tensors))
    output.loss.backward()

    results = {
        "idm_latent": fdm.condition(latents),
        "next_latents": output.next_latents,
        "curr_latents": output.image_latents,
        "noisy_latents": output.noisy_latents,
        "action_kept": output.action_kept,
        "image_kept": output.image_kept,
        "model_prediction": output.predictions,
        "loss": output.loss,
        "per_sample_loss": output.sample_losses,
    }
    check_held(case, tensors, results, others=lambda name: name.startswith(OTHER_TESTS))
    parameters = dict(fdm.named_parameters()) | dict(idm.named_parameters())
    gradients = [key for key in tensors if key.startswith("grads/")]
    assert {key.split(".")[0] for key in gradients} == {"grads/unet", "grads/idm"}
    for key in gradients:
        published = key.removeprefix("grads/")
        ours = our_name(published.removeprefix(IDM)) if published.startswith(IDM) else published
        check_golden(case, tensors, key, parameters[ours].grad)


@pytest.mark.parametrize("name", case_names("uniskill_fdm"))
@torch.no_grad()
def test_golden_training_step_with_the_idm_in_evaluation_mode(name: str) -> None:
    case, tensors = load_case(name)
    idm, fdm = load_models(case, tensors)
    latents = infer_latents(idm, tensors)
    check_golden(case, tensors, "outputs/eval_mode/idm_latent", fdm.condition(latents))
    output = fdm.train()(latents=latents, **training_inputs(tensors))
    check_golden(case, tensors, "outputs/eval_mode/loss", output.loss)


@pytest.mark.parametrize("name", case_names("uniskill_fdm"))
@torch.no_grad()
def test_golden_sampling(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, tensors = load_case(name)
    _, model = load_models(case, tensors)
    model.eval()
    frames = tensors["inputs/sample_images"].permute(0, 3, 1, 2) / 255
    for sampler in case["samplers"]:
        noise = iter(tensors["inputs/sampler_noise"])
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, noise=noise, **__: next(noise))
        scheduler = model.make_scheduler(sampler["scheduler"])
        steps = list(
            model.denoise(
                scheduler,
                tensors["inputs/init_latents"],
                tensors["inputs/sample_embeds"],
                model.encode_image(frames),
                guidance_scale=sampler["guidance_scale"],
                image_guidance_scale=sampler["image_guidance_scale"],
            )
        )
        scales = f"{sampler['guidance_scale']:g}_{sampler['image_guidance_scale']:g}"
        prefix = f"outputs/sample_{sampler['scheduler']}_{scales}"
        check_golden(case, tensors, f"{prefix}/timesteps", scheduler.timesteps)
        check_golden(case, tensors, f"{prefix}/latents_per_step", torch.stack(steps))
        check_golden(case, tensors, f"{prefix}/image", model.decode_latents(steps[-1]))
