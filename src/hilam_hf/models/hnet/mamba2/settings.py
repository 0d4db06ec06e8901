"""Settings of Mamba2 layers, read from the published form `ssm_cfg` and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DEFAULTS = {"d_state": 128, "d_conv": 4, "expand": 2, "headdim": 64, "chunk_size": 256, "ngroups": 1}


@dataclass(frozen=True)
class Mamba2Settings:
    """Sizes of one Mamba2 layer; `mamba2_settings` makes and checks it."""

    d_inner: int
    """Inner width, `expand` times the layer's width."""
    num_heads: int
    """Heads, `d_inner / headdim`."""
    headdim: int
    """Channels of a head."""
    d_state: int
    """Width of the recurrent state of a channel."""
    d_conv: int
    """Taps of the causal convolution."""
    chunk_size: int
    """Most rows that the scan takes as one matrix product; it changes speed and memory, not the result."""

    @property
    def conv_channels(self) -> int:
        """Channels that go through the convolution: x, B and C."""
        return self.d_inner + 2 * self.d_state


def mamba2_settings(ssm_cfg: Mapping[str, Any], width: int) -> Mamba2Settings:
    """Completes `ssm_cfg` with the published defaults and derives the sizes of a layer.

    Args:
        ssm_cfg: Any of `d_state` (128), `d_conv` (4), `expand` (2), `headdim` (64), `chunk_size` (256) and `ngroups`
            (1, the only value that H-Net uses), all positive integers.
        width: D, the width of the layer's input.

    Raises:
        ValueError: If a key is unknown, a value is no positive integer, or heads don't divide the inner width.
    """
    unknown = sorted(set(ssm_cfg) - set(_DEFAULTS))
    if unknown:
        raise ValueError(f"ssm_cfg: got the unknown keys {unknown}, expected any of {sorted(_DEFAULTS)}. Remove them.")
    values = {**_DEFAULTS, **ssm_cfg}
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"ssm_cfg: got {name} = {value!r}, expected a positive integer. Use {_DEFAULTS[name]}.")
    if values["ngroups"] != 1:
        raise ValueError(
            f"ssm_cfg: got ngroups = {values['ngroups']}, expected 1: all heads share B and C. Remove the key."
        )
    d_inner, headdim = values["expand"] * width, values["headdim"]
    if d_inner % headdim:
        raise ValueError(
            f"ssm_cfg: got headdim = {headdim} for the inner width {d_inner} (expand {values['expand']} times width "
            f"{width}), expected a divisor of it. Change headdim, expand or d_model."
        )
    return Mamba2Settings(
        d_inner=d_inner,
        num_heads=d_inner // headdim,
        headdim=headdim,
        d_state=values["d_state"],
        d_conv=values["d_conv"],
        chunk_size=values["chunk_size"],
    )
