"""Means of what is logged, gathered on the device and over all processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from .processes import gathered, process_state


class MetricWindow:
    """Means of scalar tensors since the last call of `means`; sums stay on the device, so that adding never waits.

    Args:
        device: The device that is computed on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # float64 where there is any, so that a window that a checkpoint cuts in two has the mean of a whole one.
        self._dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add_output(self, output: Mapping[str, Any]) -> None:
        """Adds the scalars of a model's output and the entries of its vectors."""
        for name, value in scalars(output):
            self.add(name, value)

    def add(self, name: str, value: Tensor) -> None:
        """Adds one value of a metric."""
        self._sums[name] = self._sums.get(name, 0) + value.detach().to(self._device, self._dtype)
        self._counts[name] = self._counts.get(name, 0) + 1

    def means(self, accelerator: Accelerator, *flags: Tensor) -> tuple[dict[str, float], list[float]]:
        """Means over this window and all processes, in one transfer from the device; starts a new window.

        Args:
            accelerator: Of the run.
            *flags: Scalars that are read back with the means; those of all processes are the same.
        """
        names = list(self._sums)
        sums = torch.stack([self._sums[name] / self._counts[name] for name in names])
        sums = accelerator.reduce(sums, reduction="mean")
        values = torch.cat([sums, torch.stack([flag.to(self._dtype) for flag in flags])]).tolist()
        self._sums, self._counts = {}, {}
        return dict(zip(names, values, strict=False)), values[len(names) :]

    def state_dict(self) -> dict[str, Any]:
        """The window as it stands: of each metric the sums of all processes, and the count."""
        names = list(self._sums)
        own = torch.stack([self._sums[name] for name in names]).tolist() if names else []
        sums = zip(*gathered(own), strict=True)
        return {name: [list(each), self._counts[name]] for name, each in zip(names, sums, strict=True)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave; with another number of processes each goes on with their mean."""
        process = process_state()
        for name, (sums, count) in state.items():
            same = len(sums) == process.num_processes
            own = sums[process.process_index] if same else sum(sums) / len(sums)
            self._sums[name] = torch.tensor(own, dtype=self._dtype, device=self._device)
            self._counts[name] = count


def scalars(output: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The scalars of a model's output by name, and the entries of its vectors as `name/index`."""
    for name, value in output.items():
        if isinstance(value, Tensor) and value.ndim == 0:
            yield name, value
        elif isinstance(value, Tensor) and value.ndim == 1:
            yield from ((f"{name}/{index}", entry) for index, entry in enumerate(value))
