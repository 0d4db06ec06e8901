"""Mamba2's state space recurrence over packed rows, as matrix products within chunks of rows.

Sequences lie one after the other, whatever their lengths; decays between rows of different sequences are zero.
Shapes: T rows, B sequences, K chunks of Q rows, H heads, P head width, N state width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..packing import SequenceLayout

_CHUNKS_PER_BLOCK = 32


def scan_packed(x: Tensor, log_decay: Tensor, b: Tensor, c: Tensor, sequence_ids: Tensor, *, chunk: int) -> Tensor:
    """Solves S_t = exp(log_decay_t) S_(t-1) + x_t b_t^T, y_t = S_t c_t on packed rows, S = 0 before each sequence.

    Args:
        x: (T, H, P).
        log_decay: (T, H), zero or negative.
        b: (T, N).
        c: (T, N).
        sequence_ids: (T,) ascending.
        chunk: Q, rows that are taken as one matrix product.

    Returns:
        (T, H, P) y. Work and memory are linear in T.
    """
    # Zeros behind the last row continue some sequence, but no row comes after them.
    outputs, _ = _scan_chunks(*(_blocks(rows, chunk) for rows in (x, log_decay, b, c, sequence_ids)))
    return outputs.flatten(0, 1)[: len(x)]


def scan_from_states(
    x: Tensor, log_decay: Tensor, b: Tensor, c: Tensor, layout: SequenceLayout, states: Tensor, *, chunk: int
) -> tuple[Tensor, Tensor]:
    """`scan_packed` for sequences that start from `states` (B, H, P, N); returns those after their last rows, too.

    Here every sequence gets chunks of its own, behind an empty one that holds its state. That costs up to 2 Q rows a
    sequence.
    """
    batch, lengths = layout.batch_size, layout.lengths
    chunks = (lengths + chunk - 1) // chunk + 1
    ends = chunks.cumsum(0)
    starts = ends - chunks
    bound = (layout.num_rows + batch * (chunk - 1)) // chunk + batch
    numbers = torch.arange(bound, device=x.device)
    owner = torch.searchsorted(ends, numbers, right=True)  # B for chunks that are left over
    known = owner.clamp(max=batch - 1)
    position = (numbers - starts[known] - 1)[:, None] * chunk + torch.arange(chunk, device=x.device)
    is_row = (position >= 0) & (position < lengths[known, None]) & (owner < batch)[:, None]
    row = (layout.cu_seqlens[known, None] + position).clamp(0, layout.num_rows - 1)
    outputs, after = _scan_chunks(
        x[row] * is_row[..., None, None],
        log_decay[row] * is_row[..., None],
        b[row],
        c[row],
        owner[:, None].expand(-1, chunk),
        starts=(starts, states),
    )
    ids = layout.sequence_ids.clamp(max=batch - 1)
    place = ((starts[ids] + 1) * chunk + layout.positions).clamp(max=bound * chunk - 1)
    return outputs.flatten(0, 1)[place], after[ends - 1]


def _scan_chunks(
    x: Tensor,
    log_decay: Tensor,
    b: Tensor,
    c: Tensor,
    segment: Tensor,
    starts: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The scan of `scan_packed` over (K, Q, ...) chunks.

    Args:
        x: (K, Q, H, P).
        log_decay: (K, Q, H).
        b: (K, Q, N).
        c: (K, Q, N).
        segment: (K, Q) equal for rows of the same sequence.
        starts: Numbers of chunks (B,) and the states (B, H, P, N) to be added after them.

    Returns:
        The outputs (K, Q, H, P), and the state after each chunk (K, H, P, N).
    """
    _, rows, heads, width = x.shape
    x = x.transpose(1, 2)
    within, entering, total = _decays(log_decay, segment, x.dtype)
    outputs = (within * (c @ b.transpose(1, 2))[:, None]) @ x
    # What a chunk adds to the state is each row's x b^T, decayed to the last row.
    kept = within[:, :, -1, :, None] * x
    added = (kept.transpose(2, 3).flatten(1, 2) @ b).unflatten(1, (heads, width))
    if starts is not None:
        added = added.index_add(0, starts[0], starts[1].to(added.dtype))
    states = _scan_states(added.flatten(2), total, segment[:, -1]).view_as(added)
    if len(x) > 1:
        read = c[1:] @ states[:-1].flatten(1, 2).transpose(1, 2)
        carried = entering[1:, ..., None] * read.view(-1, rows, heads, width).transpose(1, 2)
        outputs = outputs + _behind_first(carried)
    return outputs.transpose(1, 2), states


def _scan_states(added: Tensor, log_decay: Tensor, segment: Tensor) -> Tensor:
    """Solves S_k = exp(log_decay_k) S_(k-1) + added_k over (K, H, M), S = 0 before each segment.

    Blocks are solved as one matrix product each, and the states at their ends by this function again.
    """
    size = len(added)
    if size == 1:
        return added
    count = -(-size // _CHUNKS_PER_BLOCK)
    added, log_decay, segment = (_blocks(rows, -(-size // count)) for rows in (added, log_decay, segment))
    within, entering, total = _decays(log_decay, segment, added.dtype)
    states = within @ added.transpose(1, 2)
    if count > 1:
        ends = _scan_states(states[:, :, -1], total, segment[:, -1])
        states = states + _behind_first(entering[1:, ..., None] * ends[:-1, :, None])
    return states.transpose(1, 2).flatten(0, 1)[:size]


def _decays(log_decay: Tensor, segment: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """How much of each row's input reaches each later row of (K, Q, H) rows; nothing goes from segment to segment.

    Returns:
        The decays within each chunk (K, H, Q, Q), [i, j] from row j to row i; those from the end of the chunk before to
        each row (K, H, Q); and the logarithm of the decay over the whole chunk (K, H).
    """
    # A decay is a difference of sums. In float32 its digits would be those that the sum over all rows before leaves.
    wide = torch.float32 if log_decay.device.type == "mps" else torch.float64
    sums = log_decay.transpose(1, 2).to(wide).cumsum(-1)
    rows = segment.shape[1]
    causal = torch.ones(rows, rows, dtype=torch.bool, device=segment.device).tril()
    same = causal & (segment[:, :, None] == segment[:, None])
    # Masked before exp, which above the diagonal would overflow.
    within = (sums[..., None] - sums[..., None, :]).to(dtype).masked_fill(~same[:, None], -torch.inf).exp()
    continues = segment == F.pad(segment[:-1, -1:], (0, 0, 1, 0), value=-1)
    entering = sums.to(dtype).masked_fill(~continues[:, None], -torch.inf).exp()
    return within, entering, sums[..., -1]


def _blocks(rows: Tensor, size: int) -> Tensor:
    """(T, ...) rows as (ceil(T / size), size, ...), with zeros behind the last row."""
    missing = -len(rows) % size
    padded = F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, missing)) if missing else rows
    return padded.unflatten(0, (-1, size))


def _behind_first(blocks: Tensor) -> Tensor:
    """(K - 1, ...) blocks as (K, ...), with zeros as the first."""
    return F.pad(blocks, (0, 0) * (blocks.ndim - 1) + (1, 0))
