"""Configuration of the recursive H-Net backbone, and the sizes of its Mamba2 layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..limits import check_limits
from .layout import StageLayout, parse_layout

_SSM_CFG = {"d_state": 128, "d_conv": 4, "expand": 2, "headdim": 64, "chunk_size": 256, "ngroups": 1}


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
    unknown = sorted(set(ssm_cfg) - set(_SSM_CFG))
    if unknown:
        raise ValueError(f"ssm_cfg: got the unknown keys {unknown}, expected any of {sorted(_SSM_CFG)}. Remove them.")
    values = {**_SSM_CFG, **ssm_cfg}
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"ssm_cfg: got {name} = {value!r}, expected a positive integer. Use {_SSM_CFG[name]}.")
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


@strict
class HNetConfig(PreTrainedConfig):
    """Configuration of `HNetModel`. Lists hold one entry a stage, outermost first.

    Args:
        arch_layout: The nested layout as published: `[encoder, inner level, decoder]`, or `[stack]` innermost. A stack
            is a string of letter-count pairs: `t` attention, `m` Mamba2, upper case with an MLP after it.
        d_model: Width of each stage; may grow inwards, never shrink.
        d_intermediate: MLP width of each stage, rounded up to a multiple of 128. Unused where no block has an MLP.
        num_heads: Attention heads of each stage.
        rotary_emb_dim: Channels of every head that are rotated, even; 0 for none.
        window_size: Attention window of each stage: `w >= 0` lets position i see i-w ... i; -1 is no limit.
        routing: What the boundary decision compares: `"learned"` projections of neighbouring features, as published; or
            the features themselves (`"identity"`), which is where the projections start.
        chunk_capacity: Room for chunks in each chunking stage, per row of a sequence, in (0, 1]. Nothing then waits for
            the device, which graphs and launch-bound training want; boundaries that find no room are merged into the
            chunk before them, and the output counts them. None: exact counts, and no bound under `torch.compile`.
        ssm_cfg: Settings of Mamba2 layers (`d_state`, `d_conv`, `expand`, `chunk_size`), kept as published.
        rms_norm_eps: Epsilon of the RMS norms.
        rotary_base: Base of the rotary frequencies.
        initializer_range: Standard deviation of fresh linear weights; the projections that write to the residual stream
            are further divided by the square root of the number of sub-layers in their stage and the stages around it.

    Raises:
        StrictDataclassError: If a value has the wrong type or form; the message says what was expected.

    Example:
        >>> HNetConfig(arch_layout=["T2", ["T2"], "T2"], d_model=[64, 64], d_intermediate=[128, 128],
        ...            num_heads=[2, 2], rotary_emb_dim=[32, 32], window_size=[-1, -1]).num_chunking_stages
        1
    """

    model_type = "hnet"

    arch_layout: list = field(default_factory=lambda: ["T2", ["T2", ["T4"], "T2"], "T2"])
    d_model: list[int] = field(default_factory=lambda: [256, 256, 256])
    d_intermediate: list[int] = field(default_factory=lambda: [512, 512, 512])
    num_heads: list[int] = field(default_factory=lambda: [4, 4, 4])
    rotary_emb_dim: list[int] = field(default_factory=lambda: [32, 32, 32])
    window_size: list[int] = field(default_factory=lambda: [-1, -1, -1])
    routing: Literal["learned", "identity"] = "learned"
    chunk_capacity: list[float | int] | None = None
    ssm_cfg: dict[str, Any] = field(default_factory=dict)
    rms_norm_eps: float = 1e-5
    rotary_base: float | int = 10000.0
    initializer_range: float = 0.02

    @classmethod
    def from_published(cls, config: Mapping[str, Any], **overrides: Any) -> "HNetConfig":
        """Builds a configuration from the published form, which nests the attention lists in `attn_cfg`.

        Args:
            config: A mapping with `arch_layout`, `d_model`, `d_intermediate`, `attn_cfg` and, optionally, `ssm_cfg`.
            **overrides: Further fields of this class.
        """
        attention = config["attn_cfg"]
        return cls(
            arch_layout=config["arch_layout"],
            d_model=list(config["d_model"]),
            d_intermediate=list(config["d_intermediate"]),
            num_heads=list(attention["num_heads"]),
            rotary_emb_dim=list(attention["rotary_emb_dim"]),
            window_size=list(attention["window_size"]),
            ssm_cfg=dict(config.get("ssm_cfg") or {}),
            **overrides,
        )

    @property
    def stages(self) -> tuple[StageLayout, ...]:
        """The parsed layout, outermost stage first; the last one is the innermost stack."""
        return parse_layout(self.arch_layout)

    @property
    def num_chunking_stages(self) -> int:
        """Number of stages that decide boundaries: all but the innermost."""
        return len(self.stages) - 1

    @property
    def is_static(self) -> bool:
        """Whether the numbers of chunks must not be read from the device."""
        return self.chunk_capacity is not None or torch.compiler.is_compiling()

    def validate_capacity(self) -> None:
        """Checks that there is one capacity for each chunking stage."""
        if self.chunk_capacity is None:
            return
        stages = len(parse_layout(self.arch_layout)) - 1
        if len(self.chunk_capacity) != stages or not all(0 < share <= 1 for share in self.chunk_capacity):
            raise ValueError(
                f"chunk_capacity: got {self.chunk_capacity}, expected {stages} numbers in (0, 1], one for each "
                "chunking stage. About twice the share of boundaries that training aims at leaves room; 1 never runs "
                "out."
            )

    def validate_layout(self) -> None:
        """Checks that the layout can be read and that every per-stage list has one entry a stage."""
        depth = len(parse_layout(self.arch_layout))
        for name in ("d_model", "d_intermediate", "num_heads", "rotary_emb_dim", "window_size"):
            values = getattr(self, name)
            if len(values) != depth:
                raise ValueError(
                    f"{name}: got {len(values)} entries ({values}), expected {depth}, one for each stage of "
                    f"arch_layout {self.arch_layout}. Add or remove entries."
                )

    def validate_limits(self) -> None:
        """Checks that no size is beyond all bounds."""
        check_limits(self, sizes=("d_model", "d_intermediate", "num_heads"))
        check_limits(self.ssm_cfg, sizes=self.ssm_cfg)

    def validate_widths(self) -> None:
        """Checks widths, heads, rotary channels and windows stage by stage."""
        stages = parse_layout(self.arch_layout)
        for index, (stage, width) in enumerate(zip(stages, self.d_model, strict=False)):
            outer = self.d_model[max(index - 1, 0)]
            if width < 1 or width < outer:
                raise ValueError(
                    f"d_model: got {self.d_model}, expected positive widths that never shrink inwards. Raise "
                    f"d_model[{index}] to at least {max(outer, 1)}."
                )
            if any(layer.has_mlp for layer in stage.layers) and self.d_intermediate[index] < 1:
                raise ValueError(
                    f"d_intermediate: got {self.d_intermediate[index]} at stage {index}, expected a positive MLP "
                    "width. Set it, or use lower-case letters (no MLP) in arch_layout."
                )
            if any(layer.mixer == "t" for layer in stage.layers):
                self._validate_attention(index)
            if any(layer.mixer == "m" for layer in stage.layers):
                mamba2_settings(self.ssm_cfg, width)

    def _validate_attention(self, index: int) -> None:
        width, heads = self.d_model[index], self.num_heads[index]
        rotary, window = self.rotary_emb_dim[index], self.window_size[index]
        if heads < 1 or width % heads:
            raise ValueError(
                f"num_heads: got {heads} at stage {index}, expected a divisor of d_model[{index}] = {width}. Change "
                "one of the two."
            )
        if rotary < 0 or rotary % 2 or rotary > width // heads:
            raise ValueError(
                f"rotary_emb_dim: got {rotary} at stage {index}, expected an even number from 0 to the head width "
                f"{width // heads}. Lower it, or use fewer heads."
            )
        if window < -1:
            raise ValueError(
                f"window_size: got {window} at stage {index}, expected -1 (no limit) or a number of previous "
                "positions. Use -1 or a value of 0 or more."
            )
