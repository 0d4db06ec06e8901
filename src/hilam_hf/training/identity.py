"""What a run is of: its data, its model as training starts from it, and the library; a checkpoint belongs to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import Dataset
from transformers import PreTrainedConfig

from .. import __version__
from ..fingerprint import weights_fingerprint

# Of a configuration, what does not change what is computed: where it lay, and what wrote it.
_INCIDENTAL = {"_name_or_path", "name_or_path", "transformers_version", "_diffusers_version", "base_model_name_or_path"}


def run_identity(
    stage: str,
    model: nn.Module,
    dataset: Dataset[Any],
    held_out: Dataset[Any] | None = None,
    *,
    start: str | None = None,
) -> dict[str, Any]:
    """What a run is of, as JSON.

    Args:
        stage: What is trained, in words.
        model: The model before its first step.
        dataset: What it learns from.
        held_out: What it is validated on.
        start: Fingerprint of the weights that training starts from, where `model` has others by now.
    """
    return {
        "library": __version__,
        "stage": stage,
        "data": _data(dataset),
        "held-out data": None if held_out is None else _data(held_out),
        "model": {
            "class": _class_name(model),
            "weights": start or weights_fingerprint(model),
            **_configurations(model),
        },
    }


def difference(kept: Mapping[str, Any], present: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first entry in which two identities differ: its dotted name, and both values; None if they are the same.

    Example:
        >>> difference({"data": {"samples": 8}}, {"data": {"samples": 9}})
        ('data.samples', 8, 9)
    """
    for name in [*kept, *(name for name in present if name not in kept)]:
        left, right = kept.get(name), present.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            inner = difference(left, right)
            if inner is not None:
                return f"{name}.{inner[0]}", inner[1], inner[2]
        elif left != right:
            return name, left, right
    return None


def sample_ids(dataset: Dataset[Any], rows: list[int]) -> list[str]:
    """What a data set calls some of its samples; "sample 12" where it does not say."""
    name = getattr(dataset, "sample_id", "sample {}".format)
    return [name(row) for row in rows]


def _data(dataset: Dataset[Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"samples": len(dataset)}  # type: ignore[arg-type]
    if hasattr(dataset, "fingerprint"):
        described["fingerprint"] = dataset.fingerprint()
    return described


def _class_name(model: nn.Module) -> str:
    """The model's own class: sharding gives it a subclass."""
    return next(each.__name__ for each in type(model).__mro__ if not issubclass(each, FSDPModule))


def _configurations(model: nn.Module) -> dict[str, Any]:
    """Configurations of the models that a module holds, by their names in it; of one inside another the outer's."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        config = getattr(module, "config", None)
        if isinstance(config, PreTrainedConfig) and not any(
            name.startswith(f"{outer}.") or not outer for outer in found
        ):
            found[name] = _essential(config.to_dict())
    return {name or "config": values for name, values in found.items()}


def _essential(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {str(key): _essential(value) for key, value in values.items() if key not in _INCIDENTAL}
    if isinstance(values, (list, tuple)):
        return [_essential(value) for value in values]
    return values if isinstance(values, (str, int, float, bool, type(None))) else str(values)
