"""Published BAKU weights, by the list of names and shapes of the golden folder, into our models."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hilam_hf.models.baku import BakuConfig, BakuModel, convert_published_state_dict, load_published_weights
from tests.models.goldens import published_shapes


def published_checkpoint() -> dict[str, Tensor]:
    shapes = published_shapes("actor._action_token")

    def tensor(name: str, shape: list[int]) -> Tensor:
        if name.endswith(".attn.bias"):
            return torch.ones(shape).tril()
        if name.endswith(("pos_x", "pos_y")):
            side = math.isqrt(shape[-1])
            line = torch.linspace(-1, 1, side)
            pair = torch.meshgrid(line, line, indexing="ij")
            return pair[0 if name.endswith("x") else 1].reshape(shape)
        return torch.full(shape, 0.5)

    return {name: tensor(name, entry["shape"]) for name, entry in shapes.items()}


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


def test_a_model_without_film_leaves_the_film_layers_out():
    published = published_checkpoint()
    film = {name for name in published if ".lang_proj" in name}
    assert len(film) == 8
    model = BakuModel(BakuConfig(proprioception_dim=9, film_source=None))
    assert not any("film" in name for name in model.state_dict())
    for weights in (published, {name: value for name, value in published.items() if name not in film}):
        load_published_weights(model, weights)
        assert all((value == 0.5).all() for value in model.state_dict().values())


def test_a_model_with_film_needs_the_film_layers():
    published = {name: value for name, value in published_checkpoint().items() if ".lang_proj" not in name}
    with pytest.raises(ValueError, match=r"missing \['vision_encoders\.\w+\.films"):
        load_published_weights(BakuModel(BakuConfig(proprioception_dim=9)), published)
