"""Mamba2 layers on packed rows: a causal convolution, a state space recurrence and a gated norm, in plain PyTorch.

The recurrence S_t = exp(-exp(A_log) dt_t) S_(t-1) + dt_t x_t B_t^T, y_t = S_t C_t + D x_t (Mamba2, arXiv 2405.21060)
runs as matrix products within chunks of rows and a scan over the chunks' states. Sequences lie one after the other,
whatever their lengths; decays between rows of different sequences are zero. Parameter names are the published ones.

Shapes: T rows, B sequences, D width, K chunks of Q rows, H heads, P head width, N state width, C = H P + 2 N
convolution channels, W convolution taps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from ..configuration_hnet import HNetConfig
from ..dynamic_chunking import upcast
from ..packing import SequenceLayout
from ..residual import HNetRMSNorm, ResidualWriter, num_sublayers
from .settings import Mamba2Settings, mamba2_settings

__all__ = ["HNetMamba2", "Mamba2Settings", "Mamba2State", "init_mamba2_", "mamba2_settings"]

# Longer chunks cost more within, shorter ones more between them.
_CHUNK_ROWS = 64
_CHUNKS_PER_BLOCK = 32


@dataclass
class Mamba2State:
    """Where B sequences stand, so that their next rows can be computed alone. `forward` replaces both tensors."""

    conv: Tensor
    """(B, C, W - 1) the latest inputs of the convolution, newest last."""
    ssm: Tensor
    """(B, H, P, N) the recurrent state, in float32 or wider."""


class HNetMamba2(nn.Module):
    """Mamba2 mixer: in_proj, causal convolution, selective state space recurrence, gated RMS norm, out_proj.

    Args:
        config: The backbone's configuration; `ssm_cfg` holds the sizes.
        stage: The stage that this layer belongs to.

    Raises:
        ValueError: If `ssm_cfg` does not fit the width of the stage.
    """

    def __init__(self, config: HNetConfig, stage: int) -> None:
        super().__init__()
        width = config.d_model[stage]
        self.settings = sizes = mamba2_settings(config.ssm_cfg, width)
        self.in_proj = nn.Linear(width, sizes.d_inner + sizes.conv_channels + sizes.num_heads, bias=False)
        self.conv1d = nn.Conv1d(
            sizes.conv_channels, sizes.conv_channels, kernel_size=sizes.d_conv, groups=sizes.conv_channels
        )
        self.dt_bias = nn.Parameter(torch.zeros(sizes.num_heads))
        self.A_log = nn.Parameter(torch.zeros(sizes.num_heads))
        self.D = nn.Parameter(torch.ones(sizes.num_heads))
        self.norm = HNetRMSNorm(sizes.d_inner, config.rms_norm_eps)
        self.out_proj = ResidualWriter(sizes.d_inner, width, num_sublayers(config, stage))

    def forward(self, hidden_states: Tensor, layout: SequenceLayout, state: Mamba2State | None = None) -> Tensor:
        """Mixes packed rows within each sequence.

        Args:
            hidden_states: (T, D).
            layout: Where each sequence's rows lie; sequences may be empty.
            state: Where the B sequences stand; it is moved on to their last row. None: they start here.

        Returns:
            (T, D). Any split of the sequences into pieces gives the rows of the whole.
        """
        if layout.num_rows == 0:
            return hidden_states
        sizes = self.settings
        gate, mixed, dt = self.in_proj(hidden_states).split((sizes.d_inner, sizes.conv_channels, sizes.num_heads), -1)
        # Autocast would narrow the recurrence; the convolution runs in the dtype of its weights.
        mixed, dt = mixed.to(self.conv1d.weight.dtype), F.softplus(upcast(dt) + self.dt_bias)
        with torch.autocast(hidden_states.device.type, enabled=False):
            if state is not None and layout.max_length <= 1:
                outputs = self._step(mixed, dt, layout, state)
            else:
                outputs = self._scan(self._convolve(mixed, layout, state), dt, layout, state)
        gated = outputs * F.silu(upcast(gate))
        return self.out_proj(self.norm(gated).to(hidden_states.dtype))

    def new_state(
        self, batch_size: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Mamba2State:
        """The state of `batch_size` sequences that have not begun; `dtype` is that of the rows to come."""
        sizes, weight = self.settings, self.in_proj.weight
        device, dtype = device or weight.device, dtype or weight.dtype
        return Mamba2State(
            conv=torch.zeros(batch_size, sizes.conv_channels, sizes.d_conv - 1, device=device, dtype=dtype),
            ssm=torch.zeros(
                (batch_size, sizes.num_heads, sizes.headdim, sizes.d_state),
                device=device,
                dtype=torch.promote_types(dtype, torch.float32),
            ),
        )

    def _convolve(self, rows: Tensor, layout: SequenceLayout, state: Mamba2State | None) -> Tensor:
        """The depthwise causal convolution of (T, C) rows, and silu; what precedes a sequence is its state, or 0."""
        history, batch = self.settings.d_conv - 1, layout.batch_size
        numbers = torch.arange(max(layout.num_rows, batch, history), device=rows.device)
        # A stream in which every sequence follows its own W - 1 rows of history.
        place = numbers[: layout.num_rows] + history * layout.sequence_ids
        stream = rows.new_zeros(layout.num_rows + history * (batch + 1), rows.shape[1])
        stream = stream.index_copy(0, place + history, rows)
        if state is not None:
            first = layout.cu_seqlens[:-1] + history * numbers[:batch]
            window = first[:, None] + numbers[:history]
            stream = stream.index_copy(0, window.flatten(), state.conv.transpose(1, 2).flatten(0, 1).to(rows.dtype))
            latest = stream.index_select(0, (window + layout.lengths[:, None]).flatten())
            state.conv = latest.view(batch, history, -1).transpose(1, 2).to(state.conv.dtype)
        convolved = self.conv1d(stream.T[None])[0].T
        return F.silu(convolved.index_select(0, place))

    def _scan(self, convolved: Tensor, dt: Tensor, layout: SequenceLayout, state: Mamba2State | None) -> Tensor:
        """The recurrence over (T, C) convolved rows with time steps (T, H); (T, H P) outputs."""
        sizes = self.settings
        x, b, c = upcast(convolved).split((sizes.d_inner, sizes.d_state, sizes.d_state), -1)
        x = x.unflatten(-1, (sizes.num_heads, sizes.headdim))
        rows = (x * dt[..., None], -upcast(self.A_log).exp() * dt, b, c)
        limit = min(sizes.chunk_size, _CHUNK_ROWS)
        if state is None:
            outputs = scan_packed(*rows, layout.sequence_ids, chunk=min(limit, layout.num_rows))
        else:
            outputs, state.ssm = scan_from_states(*rows, layout, state.ssm, chunk=min(limit, layout.max_length))
        return torch.addcmul(outputs, upcast(self.D)[:, None], x).flatten(1)

    def _step(self, rows: Tensor, dt: Tensor, layout: SequenceLayout, state: Mamba2State) -> Tensor:
        """`_convolve` and `_scan` for sequences of at most one row, as the plain recurrence."""
        if layout.is_dense:
            return self._advance(rows, dt, state)
        first = layout.cu_seqlens[:-1].clamp(max=layout.num_rows - 1)
        has_row = (layout.lengths > 0)[:, None]
        before = state.conv
        # A time step of 0 leaves the recurrent state of a sequence without a row as it is.
        outputs = self._advance(rows.index_select(0, first), dt.index_select(0, first) * has_row, state)
        state.conv = torch.where(has_row[..., None], state.conv, before)
        return outputs.index_select(0, layout.sequence_ids.clamp(max=layout.batch_size - 1))

    def _advance(self, rows: Tensor, dt: Tensor, state: Mamba2State) -> Tensor:
        """One row (B, C) of every sequence, with time steps (B, H); (B, H P) outputs."""
        sizes = self.settings
        window = torch.cat((state.conv, rows[..., None].to(state.conv.dtype)), -1)
        state.conv = window[..., 1:]
        convolved = F.silu((window * self.conv1d.weight.squeeze(1)).sum(-1) + self.conv1d.bias)
        x, b, c = upcast(convolved).split((sizes.d_inner, sizes.d_state, sizes.d_state), -1)
        x = x.unflatten(-1, (sizes.num_heads, sizes.headdim))
        decay = (-upcast(self.A_log).exp() * dt).exp()
        state.ssm = torch.addcmul(
            state.ssm * decay[..., None, None], (x * dt[..., None])[..., None], b[:, None, None, :]
        )
        read = state.ssm.flatten(1, 2) @ c[..., None]
        return torch.addcmul(read.view_as(x), upcast(self.D)[:, None], x).flatten(1)


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


@torch.no_grad()
def init_mamba2_(module: HNetMamba2) -> None:
    """The published initialisation of what Mamba2 adds to linear maps and norms.

    exp(A_log) is uniform in [1, 16], softplus(dt_bias) log-uniform in [0.001, 0.1] and at least 1e-4, D is one, the
    convolution as PyTorch makes it.
    """
    shape, device = module.A_log.shape, module.A_log.device
    init.copy_(module.A_log, torch.empty(shape, device=device).uniform_(1, 16).log())
    dt = torch.empty(shape, device=device).uniform_(math.log(1e-3), math.log(1e-1)).exp().clamp(min=1e-4)
    init.copy_(module.dt_bias, dt + torch.log(-torch.expm1(-dt)))
    init.ones_(module.D)
    bound = module.conv1d.kernel_size[0] ** -0.5
    init.uniform_(module.conv1d.weight, -bound, bound)
    init.uniform_(module.conv1d.bias, -bound, bound)
