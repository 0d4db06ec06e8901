"""UniSkill's diffusion FDM against every `uniskill_fdm` case of the golden folder (env HILAM_GOLDENS).

The published training step runs the inverse dynamics model (IDM) too. Its parts before the projection to the condition
are not this model's: their outputs are taken from the case, and their gradients are left to the IDM's tests.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers.schedulers import scheduling_ddpm
from PIL import Image
from torch import Tensor

from hilam_hf.models.uniskill import DiffusionDraws, UniSkillFDM, UniSkillFDMConfig, UniSkillImageProcessorPil
from tests.models.goldens import case_names, golden_folder, load_case, weights_recipe

# The published projection belongs to the IDM, ours to the FDM, which takes the same latent actions as everything else.
PROJECTION = {"idm.latent_norm.": "condition_norm.", "idm.latent_proj.": "condition_proj."}


def our_name(published: str) -> str | None:
    """Name of a published parameter here; None if it belongs to the IDM."""
    for prefix, ours in PROJECTION.items():
        if published.startswith(prefix):
            return ours + published.removeprefix(prefix)
    return published if published.startswith(("unet.", "vae.")) else None


def load_model(case: dict[str, Any], tensors: dict[str, Tensor]) -> UniSkillFDM:
    manifest = json.loads((golden_folder() / case["weights_manifest"]).read_text())
    manifest = [entry for entry in manifest if our_name(entry["name"]) is not None]
    stored = {name: tensor.numpy() for name, tensor in tensors.items() if name.startswith("weights/")}
    weights = weights_recipe().fill_all(manifest, case["weight_seed"], stored)
    config = UniSkillFDMConfig(
        image_size=case["resolution"],
        latent_dim=case["idm_config"]["skill_dim"],
        unet_config=case["unet_config"],
        vae_config=case["vae_config"],
        scheduler_config=case["scheduler_config"],
        conditioning_dropout=case["uncond_prob"],
        num_inference_steps=case["num_inference_steps"],
    )
    model = UniSkillFDM(config)
    model.load_state_dict({our_name(name): torch.from_numpy(array) for name, array in weights.items()}, strict=True)
    return model


def training_inputs(tensors: dict[str, Tensor]) -> dict[str, Any]:
    draws = {name: tensors[f"inputs/{name}"] for name in ("posterior_noise", "noise", "timesteps")}
    return {
        "frames": (tensors["preprocessed/curr_images"] + 1) / 2,
        "next_frames": (tensors["preprocessed/next_images"] + 1) / 2,
        "draws": DiffusionDraws(**draws, dropout=tensors["inputs/dropout_draws"]),
    }


def latents_behind(model: UniSkillFDM, condition: Tensor) -> Tensor:
    """Latent actions (B, D) that the model projects to `condition` (B, 1, E): the projection solved backwards."""
    norm, proj = model.condition_norm.double(), model.condition_proj.double()
    with torch.no_grad():
        normed = torch.linalg.lstsq(proj.weight, (condition.double().squeeze(1) - proj.bias).T).solution.T
        normed = (normed - norm.bias) / norm.weight
        # The epsilon of the norm leaves a variance of v / (v + eps), which tells v.
        left = 1 - normed.var(dim=1, unbiased=False, keepdim=True)
        latents = normed * (norm.eps / left.clamp(min=1e-8)).sqrt()
    model.condition_norm.float(), model.condition_proj.float()
    return latents.float()


def assert_golden(case: dict[str, Any], tensors: dict[str, Tensor], name: str, actual: Tensor) -> None:
    expected = tensors[name]
    atol = case["tensors"][name].get("suggested_atol", 0)
    torch.testing.assert_close(
        actual.detach().double().reshape(expected.shape),
        expected.double(),
        rtol=0,
        atol=atol,
        msg=lambda m: f"{name} {m}",
    )


@pytest.mark.parametrize("name", case_names("uniskill_fdm"))
def test_golden_preprocessing(name: str):
    case, tensors = load_case(name)
    size = case["resolution"]
    processor = UniSkillImageProcessorPil(size={"height": size, "width": size})
    for index, key in enumerate(("preprocessed/curr_images", "preprocessed/next_images")):
        pictures = [Image.fromarray(frame.numpy()) for frame in tensors["inputs/frames"][:, index]]
        pixels = processor(pictures, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(pixels * 2 - 1, tensors[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", case_names("uniskill_fdm"))
@pytest.mark.parametrize("condition_key", ["outputs/idm_latent", "outputs/eval_mode/idm_latent"])
def test_golden_training_step(name: str, condition_key: str, monkeypatch: pytest.MonkeyPatch):
    case, tensors = load_case(name)
    model = load_model(case, tensors).train()
    monkeypatch.setattr(model, "condition", lambda _: tensors[condition_key])
    latents = torch.zeros(len(tensors[condition_key]), model.config.latent_dim)

    output = model(latents=latents, **training_inputs(tensors))
    output.loss.backward()

    if "eval_mode" in condition_key:
        assert_golden(case, tensors, "outputs/eval_mode/loss", output.loss)
        return
    results = {
        "next_latents": output.next_latents,
        "curr_latents": output.image_latents,
        "noisy_latents": output.noisy_latents,
        "action_kept": output.action_kept,
        "image_kept": output.image_kept,
        "model_prediction": output.predictions,
        "loss": output.loss,
        "per_sample_loss": output.sample_losses,
    }
    for key, value in results.items():
        assert_golden(case, tensors, f"outputs/{key}", value)
    gradients = [key for key in tensors if key.startswith("grads/unet.")]
    assert gradients
    for key in gradients:
        assert_golden(case, tensors, key, model.get_parameter(our_name(key.removeprefix("grads/"))).grad)


@pytest.mark.parametrize("name", case_names("uniskill_fdm"))
def test_golden_projection_and_its_gradients(name: str):
    case, tensors = load_case(name)
    model = load_model(case, tensors).train()
    latents = latents_behind(model, tensors["outputs/idm_latent"])
    assert_golden(case, tensors, "outputs/idm_latent", model.condition(latents))

    output = model(latents=latents, **training_inputs(tensors))
    output.loss.backward()

    assert_golden(case, tensors, "outputs/loss", output.loss)
    gradients = [key for key in tensors if key.startswith(tuple(f"grads/{prefix}" for prefix in PROJECTION))]
    assert gradients
    for key in gradients:
        assert_golden(case, tensors, key, model.get_parameter(our_name(key.removeprefix("grads/"))).grad)


@pytest.mark.parametrize("name", case_names("uniskill_fdm"))
@torch.no_grad()
def test_golden_sampling(name: str, monkeypatch: pytest.MonkeyPatch):
    case, tensors = load_case(name)
    model = load_model(case, tensors).eval()
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
        assert_golden(case, tensors, f"{prefix}/timesteps", scheduler.timesteps)
        assert_golden(case, tensors, f"{prefix}/latents_per_step", torch.stack(steps))
        assert_golden(case, tensors, f"{prefix}/image", model.decode_latents(steps[-1]))
