"""The recursive H-Net backbone: encode, chunk, process the chunks (recursively), smooth back, decode.

Shapes: B sequences, L longest sequence, T packed rows, M chunks, D width of a stage. Parameter names are the published
ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from ..loading import StrictLoadingMixin
from .configuration_hnet import HNetConfig
from .dynamic_chunking import (
    Chunks,
    Float32Linear,
    RoutingModule,
    RoutingOutput,
    RoutingProjection,
    chunk,
    dechunk,
    straight_through_ones,
)
from .layers import HNetStack, ResidualWriter
from .packing import SequenceLayout


@dataclass
class HNetStageOutput(ModelOutput):
    """What one chunking stage decided and produced.

    Rows follow the layout of the model's input: (B, L, ...) with zeros (False) at padding for padded batches, (T, ...)
    for packed ones. L, T are those of this stage's own sequence, which for inner stages is the chunk sequence of the
    stage outside.
    """

    boundary_prob: Tensor | None = None
    """(B, L) or (T,): p of eq. 1, in [0, 1]."""
    boundary_mask: Tensor | None = None
    """(B, L) or (T,) bool: whether a chunk starts here."""
    selected_prob: Tensor | None = None
    """(B, L) or (T,): max(p, 1 - p)."""
    encoder_states: Tensor | None = None
    """(B, L, D) or (T, D): the encoder's output h."""
    dechunked_states: Tensor | None = None
    """(B, L, D) or (T, D): the inner level's output, smoothed and spread over this stage's positions."""
    chunk_states: Tensor | None = None
    """(B, M, D) or (M, D): h at the boundaries, the tokens z of the next stage (eq. 2)."""
    mask: Tensor | None = None
    """(B, L) bool, validity of this stage's positions; None for packed rows."""
    chunk_mask: Tensor | None = None
    """(B, M) bool, validity of the chunks; None for packed rows."""
    cu_seqlens: Tensor | None = None
    """(B + 1,) cumulative lengths of this stage's sequences."""
    chunk_cu_seqlens: Tensor | None = None
    """(B + 1,) cumulative numbers of chunks."""


@dataclass
class HNetOutput(ModelOutput):
    """Output of `HNetModel`."""

    last_hidden_state: Tensor | None = None
    """(B, L, D) or (T, D), zeros at padding."""
    stages: tuple[HNetStageOutput, ...] | None = None
    """One entry a chunking stage, outermost first."""


class ResidualProjection(Float32Linear):
    """The skip connection around a stage's inner level, closed before training."""


class StageRecord(NamedTuple):
    """What one chunking stage decided and produced, on packed rows."""

    layout: SequenceLayout
    routing: RoutingOutput
    encoder_states: Tensor
    chunks: Chunks
    dechunked_states: Tensor


def _packed_stage(record: StageRecord) -> HNetStageOutput:
    return _stage_output(record, lambda rows: rows, lambda rows: rows)


def padded_stage(record: StageRecord, length: int | None = None) -> HNetStageOutput:
    """A stage's record as a padded batch, `length` positions long if that is more than the longest sequence."""
    pad, chunk_layout = partial(record.layout.pad, length=length), record.chunks.layout
    stage = _stage_output(record, pad, chunk_layout.pad)
    stage.mask = pad(torch.ones_like(record.routing.boundary_mask))
    stage.chunk_mask = chunk_layout.mask
    return stage


def _stage_output(
    record: StageRecord, arrange: Callable[[Tensor], Tensor], arrange_chunks: Callable[[Tensor], Tensor]
) -> HNetStageOutput:
    return HNetStageOutput(
        boundary_prob=arrange(record.routing.boundary_prob),
        boundary_mask=arrange(record.routing.boundary_mask),
        selected_prob=arrange(record.routing.selected_prob),
        encoder_states=arrange(record.encoder_states),
        dechunked_states=arrange(record.dechunked_states),
        chunk_states=arrange_chunks(record.chunks.hidden_states),
        cu_seqlens=record.layout.cu_seqlens,
        chunk_cu_seqlens=record.chunks.layout.cu_seqlens,
    )


class _Level:
    """One level of the recursion: the whole network at stage 0, the main network of the level outside otherwise.

    A mixin, because the outermost level is a `PreTrainedModel` and the inner ones are plain modules, with the same
    parameter names.
    """

    def build_level(self, config: HNetConfig, stage: int) -> None:
        """Makes the submodules of `stage` and everything inside it."""
        layout, width = config.stages[stage], config.d_model[stage]
        self.outer_width = config.d_model[max(stage - 1, 0)]
        if width > self.outer_width:
            self.pad_dimension = nn.Parameter(torch.zeros(width - self.outer_width))
        self.is_innermost = layout.is_innermost
        if layout.is_innermost:
            self.main_network: nn.Module = HNetStack(config, stage, layout.stacks[0])
            return
        encoder, decoder = layout.stacks
        self.encoder = HNetStack(config, stage, encoder)
        self.routing_module = RoutingModule(width)
        self.main_network = HNetLevel(config, stage + 1)
        self.residual_proj = ResidualProjection(width, width)
        self.decoder = HNetStack(config, stage, decoder)

    def run_level(self, hidden_states: Tensor, layout: SequenceLayout) -> tuple[Tensor, tuple[StageRecord, ...]]:
        """Maps packed rows (T, D of the stage outside) to rows of that width, and reports every stage from here on."""
        if hasattr(self, "pad_dimension"):
            extra = self.pad_dimension.to(hidden_states.dtype).expand(len(hidden_states), -1)
            hidden_states = torch.cat((hidden_states, extra), dim=-1)
        if self.is_innermost:
            return self.main_network(hidden_states, layout)[:, : self.outer_width], ()

        encoded = self.encoder(hidden_states, layout)
        routing = self.routing_module(encoded, layout)
        chunks = chunk(encoded, routing.boundary_mask, layout)
        processed, inner_records = self.main_network(chunks.hidden_states, chunks.layout)
        dechunked = dechunk(processed, routing.boundary_mask, routing.boundary_prob, layout, chunks)
        confidence = straight_through_ones(routing.selected_prob)[:, None]
        decoded = self.decoder(dechunked * confidence + self.residual_proj(encoded), layout)

        record = StageRecord(layout, routing, encoded, chunks, dechunked)
        return decoded[:, : self.outer_width], (record, *inner_records)


class HNetLevel(_Level, nn.Module):
    """An inner level of the recursion."""

    def __init__(self, config: HNetConfig, stage: int) -> None:
        super().__init__()
        self.build_level(config, stage)

    def forward(self, hidden_states: Tensor, layout: SequenceLayout) -> tuple[Tensor, tuple[StageRecord, ...]]:
        """See `run_level`."""
        return self.run_level(hidden_states, layout)


class HNetPreTrainedModel(StrictLoadingMixin, PreTrainedModel):
    """Loading, saving and initialisation shared by H-Net models."""

    config: HNetConfig
    base_model_prefix = "hnet"
    main_input_name = "hidden_states"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ("HNetBlock",)
    _keep_in_fp32_modules_strict = ("routing_module", "residual_proj")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """The published initialisation: identity routing, closed skip connections, residual writes scaled by depth."""
        # Only modules with parameters of their own are visited, so each case is told by the module that owns the
        # parameter.
        super()._init_weights(module)
        if isinstance(module, RoutingProjection):
            init.eye_(module.weight)
        elif isinstance(module, ResidualProjection):
            init.zeros_(module.weight)
        elif isinstance(module, ResidualWriter):
            init.normal_(module.weight, std=self.config.initializer_range / module.num_sublayers**0.5)
        elif isinstance(module, HNetLevel) and hasattr(module, "pad_dimension"):
            init.zeros_(module.pad_dimension)


class HNetModel(_Level, HNetPreTrainedModel):
    """H-Net without embedding and head: a sequence of features in, a sequence of the same shape out.

    Args:
        config: The architecture.

    Raises:
        ValueError: If the layout has Mamba2 layers.

    Example:
        >>> config = HNetConfig(arch_layout=["T1", ["T1"], "T1"], d_model=[32, 32], d_intermediate=[64, 64],
        ...                     num_heads=[2, 2], rotary_emb_dim=[16, 16], window_size=[-1, -1])
        >>> HNetModel(config)(torch.randn(2, 10, 32)).stages[0].boundary_mask.shape
        torch.Size([2, 10])
    """

    def __init__(self, config: HNetConfig) -> None:
        super().__init__(config)
        self.build_level(config, 0)
        self.post_init()

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> HNetOutput:
        """Runs all stages.

        Args:
            hidden_states: (B, L, D) padded batch, or (T, D) packed rows together with `cu_seqlens`.
            attention_mask: (B, L) bool or 0/1, True where valid, padding on the right. None: all valid.
            cu_seqlens: (B + 1,) cumulative lengths of packed sequences.

        Returns:
            The output in the dtype and layout of the input, and one record a chunking stage. Padded and packed batches
            with the same sequences give the same numbers.

        Raises:
            ValueError: If shapes do not fit together, a mask has padding before a valid position, or nothing is valid.
        """
        layout = self._layout_of(hidden_states, attention_mask, cu_seqlens)
        if cu_seqlens is not None:
            return self.forward_packed(hidden_states, layout)
        length = hidden_states.shape[1]
        output, records = self.run_level(layout.pack(hidden_states), layout)
        return HNetOutput(
            last_hidden_state=layout.pad(output.to(hidden_states.dtype), length=length),
            stages=tuple(padded_stage(record, None if index else length) for index, record in enumerate(records)),
        )

    def forward_packed(self, hidden_states: Tensor, layout: SequenceLayout) -> HNetOutput:
        """Runs all stages on packed rows (T, D) whose layout is known already; the output is packed."""
        output, records = self.run_level(hidden_states, layout)
        return HNetOutput(
            last_hidden_state=output.to(hidden_states.dtype), stages=tuple(_packed_stage(record) for record in records)
        )

    def _layout_of(
        self, hidden_states: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None
    ) -> SequenceLayout:
        width, shape = self.config.d_model[0], tuple(hidden_states.shape)
        expected, ndim = ("(B, L, D)", 3) if cu_seqlens is None else ("(T, D) with cu_seqlens", 2)
        if len(shape) != ndim or shape[-1] != width:
            raise ValueError(
                f"hidden_states: got shape {shape}, expected {expected} and D = {width}. Reshape or project the "
                "features."
            )
        if cu_seqlens is not None:
            if attention_mask is not None:
                raise ValueError(
                    "attention_mask: got one together with cu_seqlens, expected one of the two. Packed rows hold no "
                    "padding; drop it."
                )
            return SequenceLayout.from_cu_seqlens(cu_seqlens, len(hidden_states))
        if attention_mask is None:
            return SequenceLayout.dense(*shape[:2], device=hidden_states.device).checked("hidden_states")
        if tuple(attention_mask.shape) != shape[:2]:
            raise ValueError(
                f"attention_mask: got shape {tuple(attention_mask.shape)}, expected {shape[:2]} as hidden_states has. "
                "Give one entry a position."
            )
        return SequenceLayout.from_mask(attention_mask)
