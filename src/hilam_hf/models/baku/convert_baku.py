"""Published BAKU weights, by the names of the released code, into a [`BakuModel`].

A published snapshot holds one state dict per component. Put the component's name before each of its keys
(`actor._action_token`, `encoder.block_1.conv1.weight`, `proprio_projector.0.bias`, ...) and pass them all at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..published import rename
from .modeling_baku import SHARED_ENCODER, BakuModel

_RENAMES = [
    (r"actor\._action_token", r"action_token"),
    (r"actor\._policy\.transformer\.wte\.(\w+)", r"trunk.input_projection.\1"),
    (r"actor\._policy\.transformer\.wpe\.weight", r"trunk.position_embedding.weight"),
    (r"actor\._policy\.transformer\.h\.(\d+)\.ln_1\.(\w+)", r"trunk.layers.\1.attention_norm.\2"),
    (r"actor\._policy\.transformer\.h\.(\d+)\.attn\.c_attn\.(\w+)", r"trunk.layers.\1.attention.qkv.\2"),
    (r"actor\._policy\.transformer\.h\.(\d+)\.attn\.c_proj\.(\w+)", r"trunk.layers.\1.attention.output.\2"),
    (r"actor\._policy\.transformer\.h\.(\d+)\.ln_2\.(\w+)", r"trunk.layers.\1.mlp_norm.\2"),
    (r"actor\._policy\.transformer\.h\.(\d+)\.mlp\.c_fc\.(\w+)", r"trunk.layers.\1.mlp_up.\2"),
    (r"actor\._policy\.transformer\.h\.(\d+)\.mlp\.c_proj\.(\w+)", r"trunk.layers.\1.mlp_down.\2"),
    (r"actor\._policy\.transformer\.ln_f\.(\w+)", r"trunk.final_norm.\1"),
    (r"actor\._policy\.lm_head\.weight", r"trunk.output_projection.weight"),
    (r"actor\._action_head\.net\.0\.(\w+)", r"action_head.hidden1.\1"),
    (r"actor\._action_head\.net\.2\.(\w+)", r"action_head.hidden2.\1"),
    (r"actor\._action_head\.net\.4\.(\w+)", r"action_head.output.\1"),
    (r"proprio_projector\.0\.(\w+)", r"proprioception_projector.input.\1"),
    (r"proprio_projector\.3\.(\w+)", r"proprioception_projector.output.\1"),
    (r"language_projector\.0\.(\w+)", r"language_projector.input.\1"),
    (r"language_projector\.3\.(\w+)", r"language_projector.output.\1"),
]
_ENCODER_RENAMES = [
    (r"resnet18_base\.0\.weight", r"stem.weight"),
    (r"resnet18_base\.1\.(\w+)", r"stem_norm.\1"),
    (r"block_(\d+)\.conv([12])\.weight", r"blocks.\1.conv\2.weight"),
    (r"block_(\d+)\.bn([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (r"block_(\d+)\.downsample\.([01])\.(\w+)", r"blocks.\1.shortcut.\2.\3"),
    (r"lang_proj(\d+)\.(\w+)", r"films.\1.projection.\2"),
    (r"projection_layer\.spatial_softmax\._spatial_conv\.(\w+)", r"spatial_softmax.maps.\1"),
    (r"projection_layer\.projection\.(\w+)", r"projection.\1"),
]
_CAUSAL_MASK = re.compile(r"actor\._policy\.transformer\.h\.\d+\.attn\.bias")
_GRID = re.compile(r"encoder\w*\.projection_layer\.spatial_softmax\.pos_([xy])")
_FILM = re.compile(r"vision_encoders\.\w+\.films\.")
_ENCODER = re.compile(r"encoder(?:_(\w+))?\.(.+)")


def rename_published_key(name: str) -> str:
    """Our name of a published parameter.

    Raises:
        ValueError: The name is not one of the released code's.
    """
    if match := _ENCODER.fullmatch(name):
        renamed = rename(match[2], _ENCODER_RENAMES)
        if renamed is not None:
            # Published blocks and FiLM projections count from 1.
            renamed = re.sub(r"^(blocks|films)\.(\d+)", lambda m: f"{m[1]}.{int(m[2]) - 1}", renamed)
            return f"vision_encoders.{match[1] or SHARED_ENCODER}.{renamed}"
    elif (renamed := rename(name, _RENAMES)) is not None:
        return renamed
    raise ValueError(f"Unknown key {name!r} in a published BAKU checkpoint; keys need their component's prefix.")


def convert_published_state_dict(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights under our names.

    The causal mask and the coordinate grid, which are stored there and computed here, are checked and left out.

    Args:
        published: Tensors under `component.key` names.

    Raises:
        ValueError: A key is unknown, or a stored mask or grid is not the one that the model computes.
    """
    converted = {}
    for name, tensor in published.items():
        if _CAUSAL_MASK.fullmatch(name):
            _check_equal(name, tensor, torch.ones_like(tensor).tril())
        elif match := _GRID.fullmatch(name):
            _check_equal(name, tensor, _published_grid(tensor, match[1]))
        else:
            renamed = rename_published_key(name)
            converted[renamed] = tensor.reshape(-1) if renamed == "action_token" else tensor
    return converted


def load_published_weights(model: BakuModel, published: Mapping[str, Tensor]) -> BakuModel:
    """Loads published weights into `model` in place, strictly.

    Released encoders hold FiLM layers even where they are trained without FiLM; a model with `film_source=None` leaves
    those out.

    Raises:
        ValueError: Keys are unknown, missing or unexpected for the model's config.
        RuntimeError: A tensor has another shape than the config gives.
    """
    converted = convert_published_state_dict(published)
    if model.config.film_source is None:
        converted = {name: tensor for name, tensor in converted.items() if not _FILM.match(name)}
    expected = set(model.state_dict())
    missing, unexpected = sorted(expected - set(converted)), sorted(set(converted) - expected)
    if missing or unexpected:
        raise ValueError(
            f"Published BAKU weights do not fit the config: missing {missing[:5]} ({len(missing)} in all), "
            f"unexpected {unexpected[:5]} ({len(unexpected)} in all). Check cameras, film_source, num_layers and "
            f"proprioception_dim."
        )
    model.load_state_dict(converted)
    return model


def _published_grid(tensor: Tensor, axis: str) -> Tensor:
    """The coordinate called x runs along rows, the one called y along columns, over a square feature map."""
    side = round(tensor.numel() ** 0.5)
    line = torch.linspace(-1, 1, side, dtype=tensor.dtype)
    grid = line[:, None].expand(side, side) if axis == "x" else line.expand(side, side)
    return grid.reshape(tensor.shape)


def _check_equal(name: str, stored: Tensor, computed: Tensor) -> None:
    if not torch.allclose(stored, computed, atol=1e-6):
        raise ValueError(f"{name!r} in the published BAKU checkpoint differs from what this model computes.")
