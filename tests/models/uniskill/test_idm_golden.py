"""UniSkill's IDM against every `uniskill_idm` and `uniskill_extraction` case of the golden folder (env HILAM_GOLDENS).

Published weights come in through the converter's renaming. Its published projection to the UNet's condition, `latent`,
belongs to the forward dynamics model here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hilam_hf.models.uniskill import UniSkillIDM
from hilam_hf.models.uniskill.convert_uniskill import infer_idm_config, rename_idm
from hilam_hf.models.uniskill.depth import depth_patches, resize_depth, scale_depth
from tests.models.goldens import Tensors, case_names, check_golden, check_held, load_case, published_weights

PARAMETERS = ("grads/", "outputs/after_train_forward/")
TRAINING = ("train_mode_", "after_train_forward/")


def load_idm(published: Mapping[str, Tensor], config: dict[str, Any]) -> tuple[UniSkillIDM, Tensors]:
    """The model and the projection to the condition; its size comes from the shapes, and must be the case's."""
    weights, condition = rename_idm(published)
    inferred = infer_idm_config(weights, num_attention_heads=config["num_heads"])
    sizes = (inferred.num_hidden_layers, inferred.hidden_size, inferred.latent_dim, inferred.image_size)
    assert sizes == tuple(config[name] for name in ("num_layers", "hidden_dim", "skill_dim", "idm_resolution"))
    model = UniSkillIDM(inferred)
    model.load_state_dict(weights, strict=True)
    return model.eval(), {name: value.clone().requires_grad_() for name, value in condition.items()}


def project(latents: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
    norm = F.layer_norm(
        latents, latents.shape[-1:], condition["condition_norm.weight"], condition["condition_norm.bias"]
    )
    return F.linear(norm, condition["condition_proj.weight"], condition["condition_proj.bias"])


def our_name(published: str) -> str:
    weights, condition = rename_idm({published: torch.empty(0)})
    return next(iter({**weights, **condition}))


def inputs_of(tensors: Tensors) -> Tensors:
    frames, depth = tensors["inputs/images"] / 255, tensors["inputs/depth"]
    return {"frames": frames[:, 0], "next_frames": frames[:, 1], "depth": depth[:, 0], "next_depth": depth[:, 1]}


@pytest.mark.parametrize("name", case_names("uniskill_idm"))
@torch.no_grad()
def test_golden_evaluation(name: str) -> None:
    case, tensors = load_case(name)
    model, condition = load_idm(published_weights(case, tensors), case["config"])
    images, depth = tensors["inputs/images"] / 255, tensors["inputs/depth"]
    output = model(**inputs_of(tensors))
    patches = depth_patches(scale_depth(depth.flatten(0, 1)), model.config.patch_size)
    outputs = {
        "skill": output.latents,
        "latent": project(output.latents, condition),
        "visual_tokens": model._visual_tokens(images.flatten(0, 1)),
        "depth_tokens": model.depth_embedding(patches),
        "modal_tokens": model.extract_features(images.flatten(0, 1), depth.flatten(0, 1)),
        "transformer_tokens": output.last_hidden_state,
        "pooled": model.proj(output.last_hidden_state[:, -1].mean(1)),
    }
    check_held(case, tensors, outputs, others=lambda name: name.startswith(TRAINING))


@pytest.mark.parametrize("name", case_names("uniskill_idm"))
def test_golden_training_mode(name: str) -> None:
    case, tensors = load_case(name)
    model, condition = load_idm(published_weights(case, tensors), case["config"])
    latent = project(model.train()(**inputs_of(tensors)).latents, condition)
    loss = latent.square().mean()
    loss.backward()
    check_golden(case, tensors, "outputs/train_mode_latent", latent)
    check_golden(case, tensors, "outputs/train_mode_mean_square", loss)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    gradients |= {name: value.grad for name, value in condition.items()}
    state = model.state_dict()
    checked = [key for key in tensors if key.startswith(PARAMETERS)]
    assert checked
    for key in checked:
        prefix = next(prefix for prefix in PARAMETERS if key.startswith(prefix))
        values = gradients if prefix == "grads/" else state
        check_golden(case, tensors, key, values[our_name(key.removeprefix(prefix))])


@pytest.mark.parametrize("name", case_names("uniskill_extraction"))
@torch.no_grad()
def test_golden_extraction(name: str) -> None:
    case, tensors = load_case(name)
    model, _ = load_idm(published_weights(case, tensors), case["config"])
    size, interval = case["config"]["idm_resolution"], case["interval"]
    # The released script resizes float frames without antialiasing; the image processor does as training does.
    frames = tensors["inputs/frames"].permute(0, 3, 1, 2) / 255
    frames = F.interpolate(frames, size=(size, size), mode="bilinear", align_corners=False)
    features = model.extract_features(frames, resize_depth(tensors["inputs/raw_depth"], size))
    skills = model.encode_features(features[:-interval], features[interval:])
    check_golden(case, tensors, "outputs/skills", skills)
