"""Statistics of the data that travel in a policy's checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import initialization as init

from ..numerics import is_constant

Statistics = tuple[Tensor, Tensor]
"""(mean, standard deviation) or (minimum, maximum), each a number for every dimension."""


class Normalizer(nn.Module):
    """Affine map between data units and what the network sees: normalised = (value - offset) / scale.

    The statistics are buffers, NaN until they are set, and using it before that is an error. A dimension that is
    constant but for rounding (`numerics.is_constant`) gets scale 0: it is normalised to 0 plus its deviation, and
    always restored to its constant.

    Args:
        name: What is normalised, for messages.
        size: Length of the vectors.
    """

    def __init__(self, name: str, size: int):
        super().__init__()
        self.name = name
        self.size = size
        self.register_buffer("offset", torch.full((size,), float("nan")))
        self.register_buffer("scale", torch.full((size,), float("nan")))
        self._known_set = False

    @property
    def is_set(self) -> bool:
        """Whether the statistics have been given. Looks at the values until they have been found set."""
        if not self._known_set:
            self._known_set = not bool(torch.isnan(self.offset).any() | torch.isnan(self.scale).any())
        return self._known_set

    def set_mean_std(self, mean: Tensor, std: Tensor) -> None:
        """Normalise to mean 0 and standard deviation 1.

        Raises:
            ValueError: A statistic has the wrong length, is not finite, or a deviation is negative.
        """
        self._set(mean, std)

    def set_min_max(self, minimum: Tensor, maximum: Tensor) -> None:
        """Normalise [minimum, maximum] to [-1, 1].

        Raises:
            ValueError: A statistic has the wrong length, is not finite, or a minimum exceeds its maximum.
        """
        minimum, maximum = torch.as_tensor(minimum), torch.as_tensor(maximum)
        self._set((maximum + minimum) / 2, (maximum - minimum) / 2)

    def normalize(self, values: Tensor) -> Tensor:
        """(..., size) in data units to normalised values."""
        self._require_set()
        scale = torch.where(self.scale == 0, 1, self.scale)
        return (values - self.offset.to(values.dtype)) / scale.to(values.dtype)

    def denormalize(self, values: Tensor) -> Tensor:
        """(..., size) normalised values to data units."""
        self._require_set()
        return values * self.scale.to(values.dtype) + self.offset.to(values.dtype)

    def init_weights(self) -> None:
        """Marks statistics that no checkpoint brought as not given."""
        init.constant_(self.offset, float("nan"))
        init.constant_(self.scale, float("nan"))

    @torch.no_grad()
    def _set(self, offset: Tensor, scale: Tensor) -> None:
        for statistic in (offset, scale):
            statistic = torch.as_tensor(statistic)
            if statistic.shape not in ((), (self.size,)) or not bool(torch.isfinite(statistic).all()):
                raise ValueError(
                    f"Statistics of {self.name} must be {self.size} finite numbers, got shape "
                    f"{tuple(statistic.shape)}: {statistic.flatten()[:4].tolist()}."
                )
        if bool((torch.as_tensor(scale) < 0).any()):
            raise ValueError(f"Statistics of {self.name}: a deviation is negative, or a minimum exceeds its maximum.")
        self.offset.copy_(torch.as_tensor(offset))
        self.scale.copy_(torch.as_tensor(scale))
        self.scale.masked_fill_(is_constant(self.offset, self.scale), 0)

    def _require_set(self) -> None:
        if not self.is_set:
            raise ValueError(
                f"The statistics of {self.name} are not set; call set_statistics({self.name}=...) with those of the "
                f"training data before training or acting."
            )


def optional_normalizer(name: str, size: int | None) -> Normalizer | None:
    """A normaliser where there is something to normalise."""
    return None if size is None else Normalizer(name, size)


def require_normalizer(name: str, normalizer: Normalizer | None) -> Normalizer:
    """The normaliser.

    Raises:
        ValueError: The policy has none of that name.
    """
    if normalizer is None:
        raise ValueError(f"This policy takes no {name}, so it has no statistics of it; leave {name} out.")
    return normalizer
