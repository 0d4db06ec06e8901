"""Batches from items: sequences of latent actions, and samples for policies.

Shapes: B batch, T latent actions of the longest sequence, D their width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def collate_sequences(sequences: Sequence[Tensor]) -> dict[str, Tensor]:
    """Pads sequences on the right with zeros.

    Args:
        sequences: Tensors (T_i, D), T_i >= 1.

    Returns:
        `{"latents": (B, T, D), "attention_mask": bool (B, T), True where there is a latent action}`.

    Raises:
        ValueError: There is no sequence, or shapes do not fit.
    """
    if not sequences:
        raise ValueError("collate_sequences: got no sequences, expected at least one")
    shapes = [tuple(sequence.shape) for sequence in sequences]
    if any(len(shape) != 2 or shape[0] == 0 or shape[1] != shapes[0][1] for shape in shapes):
        raise ValueError(f"collate_sequences: got shapes {shapes}, expected (at least 1, D) with one D")
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    latents = pad_sequence(list(sequences), batch_first=True)
    return {"latents": latents, "attention_mask": torch.arange(latents.shape[1]) < lengths[:, None]}


def collate_policy(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stacks samples of a `PolicyDataset`.

    Args:
        samples: Samples with the same keys.

    Returns:
        The same keys: tensors stacked along a new first axis (also inside `pixels`), numbers as int64 (B,), `language`
        as a list of B strings.

    Raises:
        ValueError: There is no sample, or keys or shapes differ.
    """
    if not samples:
        raise ValueError("collate_policy: got no samples, expected at least one")
    return {key: _stack(key, [sample.get(key) for sample in samples]) for key in _common_keys(samples)}


def _common_keys(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = list(samples[0])
    other = next((sample for sample in samples if set(sample) != set(keys)), None)
    if other is not None:
        raise ValueError(
            f"collate_policy: samples differ in their keys ({sorted(keys)} and {sorted(other)}): "
            "batch samples of one dataset"
        )
    return keys


def _stack(key: str, values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        return {name: _stack(f"{key}.{name}", [value[name] for value in values]) for name in _common_keys(values)}
    if isinstance(first, Tensor):
        shapes = {tuple(value.shape) for value in values}
        if len(shapes) > 1:
            raise ValueError(f"collate_policy: {key}: got shapes {sorted(shapes)}, expected one shape")
        return torch.stack(values)
    if isinstance(first, str):
        return values
    return torch.tensor(values)
