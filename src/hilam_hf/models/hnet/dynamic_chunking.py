"""Dynamic chunking: boundary decision, chunking, smoothing back, and the ratio loss (H-Net; HiLAM eq. 1-3).

Everything works on packed rows, so padding cannot leak. Shapes: T rows, M chunks, D width. All of it runs in float32
(or wider), under autocast too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..numerics import masked_mean, upcast
from .packing import SequenceLayout
from .scan import ema

EMA_CLAMP = 1e-4
"""Boundary probabilities are limited to [1e-4, 1 - 1e-4] in the smoothing."""


class Float32Linear(nn.Linear):
    """A linear map computed in float32 (or wider), whatever the weights' dtype and under autocast too."""

    def forward(self, states: Tensor) -> Tensor:
        states = upcast(states)
        bias = None if self.bias is None else self.bias.to(states.dtype)
        with torch.autocast(states.device.type, enabled=False):
            return F.linear(states, self.weight.to(states.dtype), bias)


class RoutingProjection(Float32Linear):
    """A query or key projection of the routing, the identity before training."""


class RoutingIdentity(nn.Module):
    """Features as they are, in float32 or wider, in the place of a projection."""

    def forward(self, states: Tensor) -> Tensor:
        return upcast(states)


class PreviousRows(NamedTuple):
    """The features before each of B sequences that continue."""

    rows: Tensor
    """(B, D) the last row of each sequence so far."""
    exists: Tensor
    """(B,) bool, False for sequences that have had no row yet."""


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
        learned: Compare learned projections of the features, as published; or else the features themselves.
    """

    def __init__(self, d_model: int, *, learned: bool = True) -> None:
        super().__init__()
        self.q_proj_layer = RoutingProjection(d_model, d_model, bias=False) if learned else RoutingIdentity()
        self.k_proj_layer = RoutingProjection(d_model, d_model, bias=False) if learned else RoutingIdentity()

    def forward(
        self, hidden_states: Tensor, layout: SequenceLayout, previous: PreviousRows | None = None
    ) -> RoutingOutput:
        """Decides for packed features (T, D).

        Args:
            hidden_states: (T, D) features h.
            layout: Where each sequence's rows lie.
            previous: The row before each sequence's first, where sequences continue.
        """
        before = torch.cat((hidden_states[:1], hidden_states[:-1]))
        is_first = layout.is_start
        if previous is not None:
            continued = previous.rows.index_select(0, layout.sequence_ids)
            before = torch.where(is_first[:, None], continued, before)
            is_first = is_first & ~previous.exists.index_select(0, layout.sequence_ids)
        queries = F.normalize(self.q_proj_layer(before), dim=-1)
        keys = F.normalize(self.k_proj_layer(hidden_states), dim=-1)
        dissimilarity = ((1 - (queries * keys).sum(-1)) / 2).clamp(0, 1)
        boundary_prob = torch.where(is_first, torch.ones_like(dissimilarity), dissimilarity)
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
    boundary_mask: Tensor
    """(T,) bool, the rows that start a chunk: the boundaries, but for those that found no room."""
    num_dropped: Tensor | None = None
    """() boundaries that found no room, each merged into the chunk before it; None with exact counts."""


def chunk(
    hidden_states: Tensor, boundary_mask: Tensor, layout: SequenceLayout, capacity: float | None = None
) -> Chunks:
    """Keeps the rows where a chunk starts (eq. 2).

    Args:
        hidden_states: (T, D) packed features.
        boundary_mask: (T,) bool.
        layout: Where each sequence's rows lie.
        capacity: Room for chunks, per row of a sequence, in (0, 1]: the number of chunks is then a bound known without
            a transfer from the device. None: exact counts.
    """
    if capacity is None:
        index, inner = layout.select(boundary_mask)
        return Chunks(hidden_states.index_select(0, index), inner, index, boundary_mask)
    kept, index, inner = layout.select_static(boundary_mask, capacity)
    dropped = boundary_mask & ~kept
    if layout.valid_rows is not None:
        dropped = dropped & layout.valid_rows
    return Chunks(hidden_states.index_select(0, index), inner, index, kept, dropped.sum())


def dechunk(
    chunk_states: Tensor,
    boundary_prob: Tensor,
    chunks: Chunks,
    layout: SequenceLayout,
    previous: Tensor | None = None,
) -> Tensor:
    """Smooths chunk states over time and spreads them over the rows of their chunks.

    z_k = p_k x_k + (1 - p_k) z_(k-1) for the chunks of each sequence, with z = 0 before the first and p limited to
    [1e-4, 1 - 1e-4]; then every row takes the value of the latest chunk at or before it.

    Args:
        chunk_states: (M, D) processed chunks x.
        boundary_prob: (T,) p.
        chunks: What `chunk` returned for the rows.
        layout: Where each sequence's rows lie.
        previous: (B, D) z before the first row of each sequence, where sequences continue.

    Returns:
        (T, D) in float32 or wider; finite numbers without meaning at rows of no sequence.
    """
    inner = chunks.layout
    weight = upcast(boundary_prob).index_select(0, chunks.index).clamp(EMA_CLAMP, 1 - EMA_CLAMP)
    before = None if previous is None else upcast(previous).index_select(0, inner.sequence_ids)
    smoothed = ema(upcast(chunk_states), weight, inner.is_start, before)
    latest = chunks.boundary_mask.cumsum(0) - 1
    if previous is None:
        return smoothed.index_select(0, latest)
    # Rows before a sequence's first new chunk still belong to its latest old one.
    has_chunk = latest >= inner.cu_seqlens[layout.sequence_ids]
    index = torch.where(has_chunk, latest + len(previous), layout.sequence_ids)
    return torch.cat((upcast(previous), smoothed)).index_select(0, index)


def straight_through_ones(selected_prob: Tensor) -> Tensor:
    """Ones in the forward pass; the gradient goes to `selected_prob` unchanged."""
    return 1 + (selected_prob - selected_prob.detach())


class BoundaryCounts(NamedTuple):
    """What the ratio loss of a part of a batch divides by; means over the parts, see `numerics.MeanOverParts`."""

    rows: Tensor
    """() float."""
    boundaries: Tensor
    """() float."""


def ratio_loss(
    boundary_mask: Tensor,
    boundary_prob: Tensor,
    target_ratio: float,
    mask: Tensor | None = None,
    counts: BoundaryCounts | None = None,
) -> Tensor:
    """The H-Net ratio loss, which draws the average chunk length to N and keeps the decisions confident (L_ratio of eq.
    4).

    N / (N - 1) * ((N - 1) F G + (1 - F)(1 - G)), F the fraction of boundaries and G the mean of p; it is 1 at F = G = 1
    / N. The gradient flows through G only.

    Args:
        boundary_mask: (...) bool.
        boundary_prob: (...) p.
        target_ratio: N > 1, rows per chunk.
        mask: (...) True where a position counts. Without it every position counts, padding too; packed rows need none.
        counts: For a part of a batch. F is then that of the whole batch, and G the part's sum of p by the mean number
            of rows: the loss is linear in G, so its mean over the parts is that of the whole batch. None: the batch is
            whole.

    Returns:
        A scalar.

    Raises:
        ValueError: If `target_ratio` is 1 or less.
    """
    if target_ratio <= 1:
        raise ValueError(f"target_ratio: got {target_ratio}, expected more than 1 (rows per chunk). Use 2 or more.")
    prob = upcast(boundary_prob)
    if counts is None:
        fraction, mean_prob = masked_mean(boundary_mask.to(prob.dtype), mask), masked_mean(prob, mask)
    else:
        fraction, mean_prob = counts.boundaries / counts.rows, masked_mean(prob, mask, counts.rows)
    n = target_ratio
    return n / (n - 1) * ((n - 1) * fraction * mean_prob + (1 - fraction) * (1 - mean_prob))
