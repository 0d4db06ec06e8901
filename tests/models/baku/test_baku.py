"""The BAKU trunk: tokens, transformer, head, loss, configuration and published weights."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from hilam_hf.models.baku import BakuConfig, BakuModel, BakuPolicy, convert_published_state_dict, load_published_weights
from hilam_hf.models.baku.modeling_baku import FilmLayer, SpatialSoftmax
from tests.helpers import require_shared
from tests.models.baku.tiny import set_policy_statistics, tiny_config, tiny_model
from tests.models.mixins import StoredModelTester


def model_inputs(config: BakuConfig, batch: int = 2, steps: int = 2) -> dict[str, Any]:
    size = config.image_size
    inputs: dict[str, Any] = {"pixels": {camera: torch.rand(batch, steps, 3, size, size) for camera in config.cameras}}
    if config.language_dim is not None:
        inputs["language"] = torch.randn(batch, config.language_dim)
    if config.proprioception_dim is not None:
        inputs["agent_pos"] = torch.randn(batch, steps, config.proprioception_dim)
    if config.condition_dim is not None:
        inputs["condition"] = torch.randn(batch, steps, config.condition_dim)
    return inputs


def rows(inputs: dict[str, Any], keep: slice) -> dict[str, Any]:
    return {k: {c: f[keep] for c, f in v.items()} if isinstance(v, dict) else v[keep] for k, v in inputs.items()}


class TestBakuModel(StoredModelTester):
    model_class = BakuModel
    # A checkpoint of this kind is a policy; the trunk alone has no Auto class.
    test_auto_class_builds_it = None

    def make_config(self) -> BakuConfig:
        return tiny_config(condition_dim=6)

    def make_inputs(self) -> dict[str, Any]:
        config = tiny_config(condition_dim=6)
        inputs = model_inputs(config, steps=3)
        return inputs | {"actions": torch.rand(2, 3, config.chunk_size, config.action_dim)}


class TestBakuPolicy(StoredModelTester):
    model_class = BakuPolicy

    def make_config(self) -> BakuConfig:
        return tiny_config()

    def make_inputs(self) -> dict[str, Any]:
        return model_inputs(tiny_config()) | {"actions": torch.rand(2, 2, 4, 3)}

    def prepare_model(self, model: BakuPolicy) -> None:
        set_policy_statistics(model)


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, ["language", "front", "wrist", "agent_pos"]),
        ({"language_dim": None, "film_source": None}, ["front", "wrist", "agent_pos"]),
        ({"proprioception_dim": None, "condition_dim": 6}, ["language", "front", "wrist", "condition"]),
        ({"condition_dim": 6, "cameras": ["front"]}, ["language", "front", "agent_pos", "condition"]),
        ({"cameras": [], "film_source": None}, ["language", "agent_pos"]),
        ({"film_source": "condition", "condition_dim": 6}, ["language", "front", "wrist", "agent_pos", "condition"]),
        ({"share_camera_encoder": False, "vision_widths": [8]}, ["language", "front", "wrist", "agent_pos"]),
    ],
)
@torch.no_grad()
def test_tokens_of_each_modality_in_order(changes: dict[str, Any], tokens: list[str]):
    model = tiny_model(**changes)
    inputs = model_inputs(model.config, steps=3)
    seen: list[Tensor] = []
    model.trunk.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    output = model(**inputs)
    assert output.action_mean.shape == (2, 3, 4, 3)
    assert output.features.shape == (2, 3, 16)

    prompt, per_step = (["language"], tokens[1:]) if tokens[0] == "language" else ([], tokens)
    layout = [None] * len(prompt) + [step for step in range(3) for _ in [*per_step, "action"]]
    assert seen[0].shape[1] == len(layout)
    assert [name for _, name in model.config.token_layout(3)] == prompt + [*per_step, "action"] * 3
    for position, name in enumerate(prompt + [*per_step, "action"] * 3):
        step = layout[position]
        if name == "language":
            expected = model.language_projector(inputs["language"])
        elif name == "agent_pos":
            expected = model.proprioception_projector(inputs["agent_pos"][:, step])
        elif name == "condition":
            expected = model.condition_projector(inputs["condition"][:, step])
        elif name == "action":
            expected = model.action_token.expand(2, -1)
        else:
            source = {"language": model.language_projector, "condition": model.condition_projector}
            encoder = model.vision_encoders["shared" if model.config.share_camera_encoder else name]
            film = model.config.film_source
            vector = None
            if film is not None:
                vector = source[film](inputs["language"] if film == "language" else inputs["condition"][:, step])
            expected = encoder(inputs["pixels"][name][:, step], vector)
        torch.testing.assert_close(seen[0][:, position], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_predictions_do_not_see_later_steps():
    model = tiny_model()
    inputs = model_inputs(model.config, steps=3)
    full = model(**inputs).action_mean
    inputs["agent_pos"][:, 2] += 5
    inputs["pixels"]["front"][:, 2] = 0
    changed = model(**inputs).action_mean
    torch.testing.assert_close(changed[:, :2], full[:, :2])
    assert (changed[:, 2] - full[:, 2]).abs().max() > 1e-3


@torch.no_grad()
def test_rows_do_not_depend_on_the_batch():
    model = tiny_model()
    inputs = model_inputs(model.config, batch=3)
    together = model(**inputs).action_mean
    torch.testing.assert_close(model(**rows(inputs, slice(1, 2))).action_mean, together[1:2], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_attention_written_out_equals_the_fused_kernel():
    model = tiny_model()
    inputs = model_inputs(model.config, steps=3)
    fused = model(**inputs).action_mean
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    torch.testing.assert_close(model(**inputs).action_mean, fused, rtol=1e-4, atol=1e-5)


def test_activation_checkpointing_gives_the_same_gradients():
    model = tiny_model().train()
    inputs = model_inputs(model.config) | {"actions": torch.rand(2, 2, 4, 3)}
    model(**inputs).loss.backward()
    expected = model.trunk.layers[0].mlp_up.weight.grad.clone()
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(**inputs).loss.backward()
    torch.testing.assert_close(model.trunk.layers[0].mlp_up.weight.grad, expected)


def test_spatial_softmax_of_a_peak_is_its_place():
    layer = SpatialSoftmax(2, 2)
    with torch.no_grad():
        layer.maps.weight.copy_(torch.eye(2)[..., None, None])
        layer.maps.bias.zero_()
    hidden = torch.zeros(1, 2, 3, 5)
    hidden[0, 0, 2, 1] = hidden[0, 1, 0, 4] = 100.0
    # Rows of 3 are at -1, 0, 1 and columns of 5 at -1, -0.5, 0, 0.5, 1; all rows come before all columns.
    torch.testing.assert_close(layer(hidden), torch.tensor([[1.0, -1.0, -0.5, 1.0]]))


def test_film_scales_by_one_plus_the_second_half_and_shifts_by_the_first():
    layer = FilmLayer(1, 2)
    with torch.no_grad():
        layer.projection.weight.copy_(torch.tensor([[10.0], [20.0], [1.0], [2.0]]))
        layer.projection.bias.zero_()
    output = layer(torch.full((1, 2, 1, 1), 3.0), torch.ones(1, 1))
    torch.testing.assert_close(output.flatten(), torch.tensor([3.0 * 2 + 10, 3.0 * 3 + 20]))


def test_loss_is_the_gaussian_likelihood_of_the_real_actions():
    model = tiny_model()
    inputs = model_inputs(model.config)
    actions = torch.rand(2, 2, 4, 3)
    mask = torch.ones(2, 2, 4, dtype=torch.bool)
    mask[0, :, 2:] = False
    mean = model(**inputs).action_mean.detach()
    expected = 50 * (mean - actions)[mask].square().mean() + math.log(0.1) + 0.5 * math.log(2 * math.pi)
    actions[0, :, 2:] = torch.nan
    loss = model(**inputs, actions=actions, action_mask=mask).loss
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_tanh_bounds_predictions():
    model = tiny_model()
    torch.nn.init.constant_(model.action_head.output.bias, 30.0)
    assert model(**model_inputs(model.config)).action_mean.max() <= 1
    unbounded = tiny_model(use_tanh=False)
    torch.nn.init.constant_(unbounded.action_head.output.bias, 30.0)
    assert unbounded(**model_inputs(unbounded.config)).action_mean.max() > 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": {"front": torch.rand(2, 2, 3, 32, 32)}}, "Camera 'wrist' is missing"),
        ({"pixels": {"front": torch.rand(2, 2, 3, 16, 16), "wrist": torch.rand(2, 2, 3, 32, 32)}}, "image_size=32"),
        ({"language": None}, "language is missing"),
        ({"language": torch.rand(2, 9)}, r"language must have shape \(B, 8\)"),
        ({"agent_pos": torch.rand(2, 2, 4)}, r"agent_pos must have shape \(B, T, 5\)"),
        ({"agent_pos": torch.rand(2, 3, 5)}, "same number of steps"),
        ({"actions": torch.rand(2, 2, 5, 3)}, "actions must have shape"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], message: str):
    model = tiny_model()
    with pytest.raises(ValueError, match=message):
        model(**model_inputs(model.config) | changes)


def test_too_long_a_sequence_is_refused():
    model = tiny_model(max_positions=9)
    with pytest.raises(ValueError, match="max_positions=9"):
        model(**model_inputs(model.config, steps=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 3}, "not divisible by num_heads"),
        ({"vision_widths": [8, 10]}, "multiples of vision_groups"),
        ({"vision_widths": []}, "multiples of vision_groups"),
        ({"cameras": ["a", "a"]}, "distinct"),
        ({"cameras": ["a.b"]}, "without dots"),
        ({"cameras": ["action"]}, "other than"),
        ({"chunk_size": 0}, "chunk_size must be greater than 0"),
        ({"dropout": 1.0}, "dropout"),
        ({"film_source": "condition"}, "needs condition_dim"),
        ({"cameras": [], "proprioception_dim": None, "film_source": None}, "needs an observation"),
        ({"history": 40}, "raise max_positions"),
        ({"n_action_steps": 5}, "exceeds chunk_size=4"),
        ({"aggregation_decay": -1.0}, "aggregation_decay"),
        ({"execution": "closed_loop"}, "execution"),
    ],
)
def test_bad_config_is_named(changes: dict[str, Any], message: str):
    with pytest.raises(StrictDataclassError, match=message):
        tiny_config(**changes)


def published_shapes() -> dict[str, list[int]]:
    listed = json.loads((require_shared() / "goldens" / "models" / "keys_baku_libero.json").read_text())["state_dicts"]
    return {f"{part}.{key}": entry["shape"] for part, entries in listed.items() for key, entry in entries.items()}


def published_checkpoint() -> dict[str, Tensor]:
    def tensor(name: str, shape: list[int]) -> Tensor:
        if name.endswith(".attn.bias"):
            return torch.ones(shape).tril()
        if name.endswith(("pos_x", "pos_y")):
            side = math.isqrt(shape[-1])
            line = torch.linspace(-1, 1, side)
            pair = torch.meshgrid(line, line, indexing="ij")
            return pair[0 if name.endswith("x") else 1].reshape(shape)
        return torch.full(shape, 0.5)

    return {name: tensor(name, shape) for name, shape in published_shapes().items()}


def test_published_key_list_fits_the_published_config():
    model = BakuModel(BakuConfig(proprioception_dim=9))
    load_published_weights(model, published_checkpoint())
    assert all((value == 0.5).all() for value in model.state_dict().values())


def test_conversion_refuses_unknown_missing_and_changed_keys():
    model = BakuModel(BakuConfig(proprioception_dim=9))
    published = published_checkpoint()
    with pytest.raises(ValueError, match=r"Unknown key 'actor\._new'"):
        load_published_weights(model, published | {"actor._new": torch.ones(1)})
    with pytest.raises(ValueError, match=r"missing \['proprioception_projector\.input\.bias'\]"):
        load_published_weights(model, {k: v for k, v in published.items() if k != "proprio_projector.0.bias"})
    with pytest.raises(ValueError, match=r"unexpected \['proprioception_projector"):
        load_published_weights(BakuModel(BakuConfig()), published)
    mask = "actor._policy.transformer.h.0.attn.bias"
    with pytest.raises(ValueError, match="differs from what this model computes"):
        convert_published_state_dict({mask: torch.ones_like(published[mask])})
