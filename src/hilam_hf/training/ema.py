"""Exponential moving average of the weights: what is kept of a run is smoother than the weights of its last step."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

AVERAGE_FILE = "average.safetensors"
UPDATES_KEY = "num_updates"


class AveragedWeights:
    """The average of a model's trainable parameters, by diffusers' `EMAModel`.

    After n updates it is d_n * average + (1 - d_n) * weights with d_n = min(decay, n / (n + 9)) and d_1 = 0, so that it
    starts at the weights after the first step and follows them closely at first. Frozen parameters are neither copied
    nor averaged. Nor are buffers (batch-norm statistics, use of codes), which are averages or counts by themselves: a
    model with averaged weights has the buffers of the last step.

    Args:
        model: The model, on the device on which it is trained, with its parameters frozen or not as they will stay.
        decay: Weight of the average so far, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float):
        # It takes seconds to import, so that only runs that average do it.
        from diffusers.training_utils import EMAModel

        trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._names = list(trainable)
        self._parameters = list(trainable.values())
        self._average = EMAModel(self._parameters, decay=decay, foreach=True)

    @property
    def num_updates(self) -> int:
        """Updates so far."""
        return self._average.optimization_step

    def update(self) -> None:
        """Takes the model's present weights into the average."""
        self._average.step(self._parameters)

    def copy_to_model(self) -> None:
        """Puts the average in the place of the model's weights, for good."""
        if self.num_updates:
            self._average.copy_to(self._parameters)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the model has the averaged weights; afterwards its own, bit for bit."""
        self._average.store(self._parameters)
        self.copy_to_model()
        try:
            yield
        finally:
            self._average.restore(self._parameters)

    def weights(self) -> dict[str, Tensor]:
        """The average by the names of the model's parameters."""
        return dict(zip(self._names, self._average.shadow_params, strict=True))

    def save(self, folder: Path) -> None:
        """Writes `average.safetensors`."""
        weights = {name: weight.contiguous() for name, weight in self.weights().items()}
        save_file(weights, folder / AVERAGE_FILE, metadata={UPDATES_KEY: str(self.num_updates)})

    def load(self, folder: Path) -> None:
        """Takes back what `save` wrote.

        Raises:
            ValueError: If the file holds other parameters than the model.
        """
        with safe_open(folder / AVERAGE_FILE, framework="pt") as file:
            saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
            num_updates = int(file.metadata()[UPDATES_KEY])
        self._take(saved, folder / AVERAGE_FILE)
        self._average.optimization_step = num_updates

    @torch.no_grad()
    def _take(self, saved: Mapping[str, Tensor], path: Path) -> None:
        weights = self.weights()
        differing = sorted(saved.keys() ^ weights.keys())
        differing += [name for name in weights.keys() & saved.keys() if saved[name].shape != weights[name].shape]
        if differing:
            raise ValueError(
                f"{path} holds other parameters than the model trains, for one {differing[0]}; "
                "freeze the same ones as before, or start afresh in another folder"
            )
        for name, weight in weights.items():
            weight.copy_(saved[name])
