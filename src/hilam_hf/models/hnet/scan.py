"""The exponential moving average of dynamic chunking as a parallel scan.

Shapes: M rows, D width, N blocks of K rows.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 32


def ema(states: Tensor, weight: Tensor, is_start: Tensor, previous: Tensor | None = None) -> Tensor:
    """The exponential moving average z_k = w_k x_k + (1 - w_k) z_(k-1), restarted from z = 0 where `is_start`.

    Args:
        states: (M, D) x.
        weight: (M,) w in (0, 1].
        is_start: (M,) bool, the first row of every sequence.
        previous: (M, D) z before each row that `is_start`, in place of 0; other rows are not read.

    Returns:
        (M, D) z in the dtype of `states`. Work and memory are linear in M. The recurrence runs in float64 where the
        device has it: in float32 the rounding of 1 - w alone costs 1e-6 when w is near 1e-4.
    """
    wide = torch.float32 if states.device.type == "mps" else torch.float64
    dtype, states, weight = states.dtype, states.to(wide), weight.to(wide)
    if previous is not None:
        # w x + (1 - w) z_prev = w (x + (1 - w) / w * z_prev)
        restart = ((1 - weight) / weight)[:, None] * previous.to(wide)
        states = torch.where(is_start[:, None], states + restart, states)
    smoothed: Tensor = _Ema.apply(states, weight, is_start)
    return smoothed.to(dtype)


class _Ema(torch.autograd.Function):
    """`ema` and its gradient, which is the same recurrence run backwards."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, is_start: Tensor) -> Tensor:
        # z before a sequence is 0, so a decay of 0 at its start is exact and keeps sequences apart.
        decay = (1 - weight).masked_fill(is_start, 0)
        smoothed = linear_recurrence(decay, weight[:, None] * states)
        ctx.save_for_backward(states, weight, is_start, decay, smoothed)
        return smoothed

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        states, weight, is_start, decay, smoothed = ctx.saved_tensors
        # g_k = dL/dz_k + (1 - w_(k+1)) g_(k+1)
        later_decay = F.pad(decay[1:], (0, 1))
        grad = linear_recurrence(later_decay.flip(0), grad_outputs[0].flip(0)).flip(0)
        previous = F.pad(smoothed[:-1], (0, 0, 1, 0)).masked_fill(is_start[:, None], 0)
        return weight[:, None] * grad, (grad * (states - previous)).sum(-1), None


def linear_recurrence(decay: Tensor, inputs: Tensor) -> Tensor:
    """Solves y_k = decay_k y_(k-1) + inputs_k, y_(-1) = 0, block by block.

    Inside a block of K rows y is a triangular matrix of products of decays times the inputs; the last rows of the
    blocks form a recurrence of the same kind, K times shorter. That is log_K(M) levels of matrix products, O(M K) work.

    Args:
        decay: (M,) in [0, 1]; 0 restarts the recurrence.
        inputs: (M, D).

    Returns:
        (M, D) y.
    """
    length, width = inputs.shape
    if length == 0:
        return inputs
    block = min(_BLOCK, length)
    extra = -length % block
    decays = F.pad(decay, (0, extra)).view(-1, block)
    values = F.pad(inputs, (0, 0, 0, extra)).view(-1, block, width)

    # Products of decays as differences of logarithms, a restart counted apart because its logarithm is infinite.
    restart = decays == 0
    log_product = decays.masked_fill(restart, 1).log().cumsum(1)
    section = restart.cumsum(1)
    reaches = section[:, :, None] == section[:, None, :]
    reaches = reaches & torch.ones(block, block, dtype=torch.bool, device=decay.device).tril()
    exponent = (log_product[:, :, None] - log_product[:, None, :]).masked_fill(~reaches, -torch.inf)
    local = exponent.exp() @ values  # (N, K, D)
    if len(local) == 1:
        return local[0, :length]

    from_before = log_product.exp().masked_fill(section > 0, 0)  # (N, K) factor of the block before
    ends = linear_recurrence(from_before[:, -1], local[:, -1])
    before = F.pad(ends[:-1], (0, 0, 1, 0))
    return (local + from_before[:, :, None] * before[:, None]).view(-1, width)[:length]
