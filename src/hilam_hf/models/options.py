"""Fields of a model's configuration as options: which there are, and those of one model out of those of several."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig

from ..hints import did_you_mean

_BASE_FIELDS = {field.name for field in dataclasses.fields(PreTrainedConfig)}


def own_fields(config_class: type[PreTrainedConfig]) -> list[str]:
    """Names of the fields that a configuration has of its own, sorted."""
    return sorted({field.name for field in dataclasses.fields(config_class)} - _BASE_FIELDS)


def take_options(
    options: dict[str, Any], config_class: type[PreTrainedConfig], *, prefix: str = "", extra: Sequence[str] = ()
) -> dict[str, Any]:
    """Takes the options whose names begin with a prefix out of `options`, and returns them without it.

    Args:
        options: Options by name.
        config_class: What they may be fields of.
        prefix: The prefix, such as "idm.".
        extra: What else they may be called, without the prefix.

    Raises:
        ValueError: If one is neither a field nor extra, naming the nearest one.

    Example:
        >>> options = {"idm.latent_dim": 32, "fdm.hidden_size": 8}
        >>> take_options(options, FeatureDifferenceConfig, prefix="idm."), options
        ({'latent_dim': 32}, {'fdm.hidden_size': 8})
    """
    found = {key.removeprefix(prefix): options.pop(key) for key in list(options) if key.startswith(prefix)}
    known = [*own_fields(config_class), *extra]
    for name in found:
        if name not in known:
            raise ValueError(f"unknown model option {prefix + name!r}{did_you_mean(name, known, prefix)}")
    return found
