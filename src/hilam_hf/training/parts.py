"""One batch in several parts, as accumulation and many processes compute it: counts of the whole for every part.

A loss that divides by a count of its batch (valid time steps, say) is wrong where the parts of a batch differ in that
count and their losses are averaged. It divides by the mean count over the parts instead, which this module finds out;
see `MeanOverParts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .sharding import gather_for


class PartMeans:
    """Means of counts over the parts of a batch, over all processes.

    Args:
        accelerator: Of the run.
        model: The model, unwrapped. With a method `count_parts` it takes `mean_over_parts`; others are left alone.
    """

    def __init__(self, accelerator: Accelerator, model: nn.Module):
        self._accelerator = accelerator
        self._model: Any = model
        self._applies = hasattr(model, "count_parts")
        gather_for(model, "count_parts")

    def of_step(self, parts: Sequence[Mapping[str, Any]], seed: Callable[[int], None]) -> list[dict[str, Any]]:
        """Further arguments of the model for each part of a step that this process computes.

        With one part a process the counts are summed up while the model runs. With several, all counts have to be
        known before the first backward pass, so the model counts all parts first.

        Args:
            parts: Inputs of each part.
            seed: Starts the random streams for a part, by its number: it is counted as it will be computed.
        """
        if not self._applies or len(parts) * self._accelerator.num_processes == 1:
            return [{} for _ in parts]
        if len(parts) == 1:
            return [{"mean_over_parts": lambda name, count: self._mean_over_processes(count)}]
        counts = []
        for number, part in enumerate(parts):
            seed(number)
            counts.append(self._counted(part))
        names = list(counts[0])
        if not names:
            return [{} for _ in parts]
        table = torch.stack([torch.stack([each[name] for name in names]) for each in counts])
        by_name = dict(zip(names, self._mean_over_processes(table.mean(0)), strict=True))
        return [{"mean_over_parts": lambda name, count: by_name[name]} for _ in parts]

    def _counted(self, part: Mapping[str, Any]) -> dict[str, Tensor]:
        counts: dict[str, Tensor] = {}

        def note(name: str, count: Tensor) -> Tensor:
            counts[name] = count.detach().float()
            return counts[name]

        with torch.no_grad(), self._accelerator.autocast():
            self._model.count_parts(note, **part)
        return counts

    def _mean_over_processes(self, count: Tensor) -> Tensor:
        return self._accelerator.reduce(count.detach().float(), reduction="mean")
