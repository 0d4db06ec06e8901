"""Mamba2 layers on packed rows: a causal convolution, a state space recurrence and a gated norm, in plain PyTorch.

The recurrence S_t = exp(-exp(A_log) dt_t) S_(t-1) + dt_t x_t B_t^T, y_t = S_t C_t + D x_t (Mamba2, arXiv 2405.21060)
runs as matrix products within chunks of rows and a scan over the chunks' states. Sequences lie one after the other,
whatever their lengths; decays between rows of different sequences are zero. Parameter names are the published ones.

Shapes: T rows, B sequences, D width, H heads, P head width, N state width, C = H P + 2 N convolution channels, W
convolution taps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from ...numerics import upcast
from ..configuration_hnet import HNetConfig, mamba2_settings
from ..packing import SequenceLayout
from ..residual import HNetRMSNorm, ResidualWriter, num_sublayers
from .scan import scan_from_states, scan_packed

# Longer chunks cost more within, shorter ones more between them.
_CHUNK_ROWS = 64


@dataclass
class Mamba2State:
    """Where B sequences stand, so that their next rows can be computed alone. `forward` replaces both tensors."""

    conv: Tensor
    """(B, C, W - 1) the latest inputs of the convolution, newest last."""
    ssm: Tensor
    """(B, H, P, N) the recurrent state, in float32 or wider."""

    def reset(self, indices: Tensor) -> None:
        """Forgets the sequences with these numbers."""
        self.conv[indices] = 0
        self.ssm[indices] = 0


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
