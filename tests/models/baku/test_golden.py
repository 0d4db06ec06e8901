"""The BAKU trunk against every `baku` and `baku_temporal_aggregation` case of the golden folder (env HILAM_GOLDENS)."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from hilam_hf.models.acting.execution import TemporalAggregator
from hilam_hf.models.acting.history import TokenHistory
from hilam_hf.models.baku import BakuConfig, BakuModel
from hilam_hf.models.baku.convert_baku import load_published_weights, rename_published_key
from tests.models.goldens import (
    Case,
    Tensors,
    case_names,
    check_golden,
    golden_statistic,
    load_case,
    published_weights,
)

PUBLISHED_NORMALISATION_EPS = 1e-5


def config_of(case: Case, weights: Tensors) -> BakuConfig:
    published = case["config"]
    positions, hidden_size = weights["actor._policy.transformer.wpe.weight"].shape
    layers = {match[1] for name in weights if (match := re.match(r"actor\._policy\.transformer\.h\.(\d+)\.", name))}
    keypoints = next(value for name, value in weights.items() if name.endswith("spatial_softmax._spatial_conv.bias"))
    language = weights.get("language_projector.0.weight")
    return BakuConfig(
        cameras=published["pixel_keys"],
        image_size=published["image_size"],
        num_keypoints=len(keypoints),
        film_source="language" if published["film"] else None,
        share_camera_encoder=not published["separate_encoders"],
        proprioception_dim=published["proprio_dim"] if published["use_proprio"] else None,
        language_dim=None if language is None else language.shape[1],
        token_dim=weights["actor._action_token"].shape[-1],
        hidden_size=hidden_size,
        num_layers=len(layers),
        num_heads=published.get("gpt", {}).get("n_head", 4),
        max_positions=positions,
        history=published["eval_history_len"] if published["history"] else 1,
        action_dim=published["action_dim"],
        chunk_size=published["num_queries"] if published["temporal_agg"] else 1,
        action_std=float(published["stddev"]),
    )


def load_model(case: Case, tensors: Tensors) -> BakuModel:
    weights = published_weights(case, tensors)
    return load_published_weights(BakuModel(config_of(case, weights)), weights).eval()


def train_inputs(model: BakuModel, tensors: Tensors) -> dict[str, Any]:
    actions = tensors["inputs/train/actions"]
    inputs = {
        "pixels": {camera: tensors[f"inputs/train/{camera}"].float() / 255 for camera in model.config.cameras},
        "actions": actions.view(*actions.shape[:2], model.config.chunk_size, model.config.action_dim),
    }
    if model.config.language_dim is not None:
        inputs["language"] = tensors["inputs/train/task_emb"]
    if model.config.proprioception_dim is not None:
        inputs["agent_pos"] = tensors["inputs/train/proprioceptive"]
    return inputs


@pytest.mark.parametrize("name", case_names("baku"))
def test_golden_training_forward_and_gradients(name: str):
    case, tensors = load_case(name)
    model = load_model(case, tensors)
    trunk_calls: list[tuple[Tensor, Tensor]] = []
    model.trunk.register_forward_hook(lambda _, inputs, output: trunk_calls.append((inputs[0], output)))
    inputs = train_inputs(model, tensors)

    output = model(**inputs)
    output.loss.backward()

    observation = {key: value for key, value in inputs.items() if key != "actions"}
    prompt, step_tokens = model.encode_observation(**observation)
    steps = step_tokens.flatten(1, 2)
    results = {
        "token_sequence": steps if prompt is None else torch.cat([prompt, steps], dim=1),
        "transformer_input": trunk_calls[0][0],
        "transformer_output": trunk_calls[0][1],
        "action_features": output.features,
        "action_mean": output.action_mean,
        "loss": output.loss,
        "loss_target": inputs["actions"],
    }
    for key, value in results.items():
        check_golden(case, tensors, f"outputs/{key}", value)
    for key in (key for key in tensors if key.startswith("grads/")):
        gradient = model.get_parameter(rename_published_key(key.removeprefix("grads/"))).grad
        check_golden(case, tensors, key, gradient)


@pytest.mark.parametrize("name", case_names("baku"))
def test_golden_loss_curve(name: str):
    case, tensors = load_case(name)
    model = load_model(case, tensors)
    inputs = train_inputs(model, tensors)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
    losses = []
    for _ in range(case["config"]["opt_steps"]):
        loss = model(**inputs).loss
        losses.append(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    check_golden(case, tensors, "outputs/loss_curve", torch.stack(losses))


@pytest.mark.parametrize("name", case_names("baku"))
@torch.no_grad()
def test_golden_rollout(name: str):
    case, tensors = load_case(name)
    model = load_model(case, tensors)
    stats = case.get("rollout_stats")
    history = TokenHistory(model.config.history)
    aggregator = TemporalAggregator(model.config.chunk_size)
    language = None if model.config.language_dim is None else tensors["inputs/rollout/task_emb"][None]
    proprioception = None
    if model.config.proprioception_dim is not None:
        low, high = (golden_statistic(stats, tensors, f"proprio_{bound}") for bound in ("min", "max"))
        proprioception = (tensors["inputs/rollout/proprioceptive"] - low) / (high - low + PUBLISHED_NORMALISATION_EPS)
    actions = []
    for step in range(case["config"]["rollout_steps"]):
        prompt, tokens = model.encode_observation(
            pixels={c: tensors[f"inputs/rollout/{c}"][step][None, None].float() / 255 for c in model.config.cameras},
            language=language,
            agent_pos=None if proprioception is None else proprioception[step][None, None],
        )
        chunk = history.last_step(model.decode(prompt, history.append(tokens, [0]))[0], [0])
        actions.append(aggregator.update(chunk)[0])
    low, high = (golden_statistic(stats, tensors, f"action_{bound}") for bound in ("min", "max"))
    check_golden(case, tensors, "outputs/rollout_actions", torch.stack(actions) * (high - low) + low)


@pytest.mark.parametrize("name", case_names("baku_temporal_aggregation"))
def test_golden_temporal_aggregation(name: str):
    case, tensors = load_case(name)
    aggregator = TemporalAggregator(case["chunk"], decay=case["decay"])
    chunks = tensors["inputs/chunks"]
    # The published code marks an unfilled row by zeros, so that a prediction with an exact zero in it is left out.
    valid = (chunks != 0).all(dim=-1)
    actions = [aggregator.update(chunk[None], valid[None, step])[0] for step, chunk in enumerate(chunks)]
    low, high = (golden_statistic(case.get("stats"), tensors, f"action_{bound}") for bound in ("min", "max"))
    check_golden(case, tensors, "outputs/actions", torch.stack(actions) * (high - low) + low)
