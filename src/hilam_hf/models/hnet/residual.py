"""The residual stream: the norm in front of every sub-layer, and the linear maps that write to the stream."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..numerics import upcast
from .configuration_hnet import HNetConfig


class HNetRMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, in float32 or wider."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, states: Tensor) -> Tensor:
        states = upcast(states)
        return F.rms_norm(states, self.weight.shape, self.weight.to(states.dtype), self.eps)


class ResidualWriter(nn.Linear):
    """A linear map whose output is added to the residual stream.

    Args:
        in_features: Width of the input.
        out_features: Width of the residual stream.
        num_sublayers: Sub-layers (mixers and MLPs) of this stage and the stages around it, which scale its initial
            weights.
    """

    def __init__(self, in_features: int, out_features: int, num_sublayers: int) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.num_sublayers = num_sublayers


def num_sublayers(config: HNetConfig, stage: int) -> int:
    """Number of mixers and MLPs in `stage` and the stages around it."""
    return sum(1 + layer.has_mlp for layout in config.stages[: stage + 1] for layer in layout.layers)
