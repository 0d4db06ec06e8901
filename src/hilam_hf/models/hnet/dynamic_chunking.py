"""Dynamic chunking: boundary decision, chunking, smoothing back, and the ratio loss (H-Net; HiLAM eq. 1-3).

Everything works on packed rows, so padding cannot leak. Shapes: T rows, M chunks, D width. All of it runs in float32
(or wider), under autocast too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .packing import SequenceLayout

EMA_CLAMP = 1e-4
"""Boundary probabilities are limited to [1e-4, 1 - 1e-4] in the smoothing."""


def upcast(states: Tensor) -> Tensor:
    """`states` in float32, or as they are if wider."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


class Float32Linear(nn.Linear):
    """A linear map computed in float32 (or wider), whatever the weights' dtype and under autocast too."""

    def forward(self, states: Tensor) -> Tensor:
        states = upcast(states)
        bias = None if self.bias is None else self.bias.to(states.dtype)
        with torch.autocast(states.device.type, enabled=False):
            return F.linear(states, self.weight.to(states.dtype), bias)


class RoutingProjection(Float32Linear):
    """A query or key projection of the routing, the identity before training."""


class RoutingOutput(NamedTuple):
    """The boundary decision for T rows."""

    boundary_prob: Tensor
    """(T,) p in [0, 1]: how much a row differs from the one before it; 1 at the first row of a sequence."""
    boundary_mask: Tensor
    """(T,) bool: whether a chunk starts at the row."""
    selected_prob: Tensor
    """(T,) max(p, 1 - p), the probability of the decision that was made."""


class RoutingModule(nn.Module):
    """Decides where chunks start, from the dissimilarity of neighbouring features (eq. 1).

    A boundary is p > 0.5, as published; the paper writes >=, which differs at exact ties only.

    Args:
        d_model: Width D of the features.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.q_proj_layer = RoutingProjection(d_model, d_model, bias=False)
        self.k_proj_layer = RoutingProjection(d_model, d_model, bias=False)

    def forward(self, hidden_states: Tensor, layout: SequenceLayout) -> RoutingOutput:
        """Decides for packed features (T, D)."""
        queries = F.normalize(self.q_proj_layer(hidden_states[:-1]), dim=-1)
        keys = F.normalize(self.k_proj_layer(hidden_states[1:]), dim=-1)
        cosine = (queries * keys).sum(-1)
        dissimilarity = F.pad(((1 - cosine) / 2).clamp(0, 1), (1, 0))
        boundary_prob = torch.where(layout.is_start, torch.ones_like(dissimilarity), dissimilarity)
        boundary_mask = boundary_prob > 0.5
        selected_prob = torch.where(boundary_mask, boundary_prob, 1 - boundary_prob)
        return RoutingOutput(boundary_prob, boundary_mask, selected_prob)


class Chunks(NamedTuple):
    """What chunking leaves of T rows."""

    hidden_states: Tensor
    """(M, D) the rows at boundaries, in order."""
    layout: SequenceLayout
    """Where each sequence's chunks lie."""
    index: Tensor
    """(M,) the row that each chunk starts at."""


def chunk(hidden_states: Tensor, boundary_mask: Tensor, layout: SequenceLayout) -> Chunks:
    """Keeps the rows where a chunk starts (eq. 2).

    Args:
        hidden_states: (T, D) packed features.
        boundary_mask: (T,) bool.
        layout: Where each sequence's rows lie.
    """
    index, inner = layout.select(boundary_mask)
    return Chunks(hidden_states.index_select(0, index), inner, index)


def dechunk(
    chunk_states: Tensor,
    boundary_mask: Tensor,
    boundary_prob: Tensor,
    layout: SequenceLayout,
    chunks: Chunks | None = None,
) -> Tensor:
    """Smooths chunk states over time and spreads them over the rows of their chunks.

    z_k = p_k x_k + (1 - p_k) z_(k-1) for the chunks of each sequence, with z = 0 before the first and p limited to
    [1e-4, 1 - 1e-4]; then every row takes the value of the latest chunk at or before it.

    Args:
        chunk_states: (M, D) processed chunks x.
        boundary_mask: (T,) bool; True at the first row of every sequence, M rows in all.
        boundary_prob: (T,) p.
        layout: Where each sequence's rows lie.
        chunks: What `chunk` returned for the same mask, to save finding the boundaries again.

    Returns:
        (T, D) in float32 or wider.
    """
    index, inner = (chunks.index, chunks.layout) if chunks is not None else layout.select(boundary_mask)
    weight = upcast(boundary_prob).index_select(0, index).clamp(EMA_CLAMP, 1 - EMA_CLAMP)
    smoothed = ema(upcast(chunk_states), weight, inner.is_start)
    return smoothed.index_select(0, boundary_mask.cumsum(0) - 1)


def ema(states: Tensor, weight: Tensor, is_start: Tensor) -> Tensor:
    """The exponential moving average z_k = w_k x_k + (1 - w_k) z_(k-1), restarted from z = 0 where `is_start`.

    Args:
        states: (M, D) x.
        weight: (M,) w in (0, 1].
        is_start: (M,) bool, the first row of every sequence.

    Returns:
        (M, D) z in the dtype of `states`. Memory is linear in M. The recurrence runs in float64 where the device has
        it: in float32 the rounding of 1 - w alone costs 1e-6 when w is near 1e-4.
    """
    wide = torch.float32 if states.device.type == "mps" else torch.float64
    smoothed: Tensor = _Ema.apply(states.to(wide), weight.to(wide), is_start)
    return smoothed.to(states.dtype)


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
    """Solves y_k = decay_k y_(k-1) + inputs_k, y_(-1) = 0, in log2(M) parallel steps (Hillis-Steele scan).

    Args:
        decay: (M,) in [0, 1]; 0 restarts the recurrence.
        inputs: (M, D).

    Returns:
        (M, D) y. Only products and sums of the inputs occur, so the result is as accurate as the sequential loop.
    """
    decay, output = decay[:, None], inputs
    step = 1
    while step < len(inputs):
        output = torch.cat((output[:step], torch.addcmul(output[step:], decay[step:], output[:-step])))
        decay = torch.cat((decay[:step], decay[step:] * decay[:-step]))
        step *= 2
    return output


def straight_through_ones(selected_prob: Tensor) -> Tensor:
    """Ones in the forward pass; the gradient goes to `selected_prob` unchanged."""
    return 1 + (selected_prob - selected_prob.detach())


def ratio_loss(boundary_mask: Tensor, boundary_prob: Tensor, target_ratio: float, mask: Tensor | None = None) -> Tensor:
    """The H-Net ratio loss, which draws the average chunk length to N and keeps the decisions confident (L_ratio of eq.
    4).

    N / (N - 1) * ((N - 1) F G + (1 - F)(1 - G)), F the fraction of boundaries and G the mean of p; it is 1 at F = G = 1
    / N. The gradient flows through G only.

    Args:
        boundary_mask: (...) bool.
        boundary_prob: (...) p.
        target_ratio: N > 1, rows per chunk.
        mask: (...) True where a position counts. Without it every position counts, padding too; packed rows need none.

    Returns:
        A scalar.

    Raises:
        ValueError: If `target_ratio` is 1 or less.
    """
    if target_ratio <= 1:
        raise ValueError(f"target_ratio: got {target_ratio}, expected more than 1 (rows per chunk). Use 2 or more.")
    boundaries, prob = boundary_mask.to(boundary_prob.dtype), upcast(boundary_prob)
    if mask is None:
        fraction, mean_prob = upcast(boundaries).mean(), prob.mean()
    else:
        count = mask.sum().clamp(min=1)
        fraction = (upcast(boundaries) * mask).sum() / count
        mean_prob = torch.where(mask, prob, torch.zeros_like(prob)).sum() / count
    n = target_ratio
    return n / (n - 1) * ((n - 1) * fraction * mean_prob + (1 - fraction) * (1 - mean_prob))
