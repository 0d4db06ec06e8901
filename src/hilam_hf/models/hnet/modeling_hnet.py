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
from ..saving import SavingMixin
from .cache import LevelCache
from .configuration_hnet import HNetConfig
from .dynamic_chunking import (
    Chunks,
    Float32Linear,
    PreviousRows,
    RoutingModule,
    RoutingOutput,
    RoutingProjection,
    chunk,
    dechunk,
    straight_through_ones,
)
from .layers import HNetStack
from .mamba2.layer import HNetMamba2, init_mamba2_
from .packing import SequenceLayout
from .residual import ResidualWriter


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
    num_dropped: Tensor | None = None
    """() boundaries that found no room under `chunk_capacity`, each merged into the chunk before it; None with exact
    counts."""


@dataclass
class HNetOutput(ModelOutput):
    """Output of `HNetModel`."""

    last_hidden_state: Tensor | None = None
    """(B, L, D) or (T, D), zeros at padding."""
    stages: tuple[HNetStageOutput, ...] | None = None
    """One entry a chunking stage, outermost first."""


class ResidualProjection(Float32Linear):
    """The skip connection around a stage's inner level, closed before training."""


class StageTokens(NamedTuple):
    """What one chunking stage's encoder and routing say, on packed rows."""

    layout: SequenceLayout
    features: Tensor
    """(T, D) the encoder's output h."""
    boundary_mask: Tensor
    """(T,) bool: whether a chunk starts at the row."""


class StageRecord(NamedTuple):
    """What one chunking stage decided and produced, on packed rows."""

    layout: SequenceLayout
    routing: RoutingOutput
    encoder_states: Tensor
    chunks: Chunks
    dechunked_states: Tensor

    @property
    def tokens(self) -> StageTokens:
        """The part of the record that `segment_level` computes, too."""
        return StageTokens(self.layout, self.encoder_states, self.routing.boundary_mask)


def _packed_stage(record: StageRecord) -> HNetStageOutput:
    return _stage_output(record, lambda rows: rows, lambda rows: rows)


def padded_stage(record: StageRecord, length: int | None = None) -> HNetStageOutput:
    """A stage's record as a padded batch, `length` positions long if that is more than the longest sequence."""
    pad, chunk_layout = partial(record.layout.pad, length=length), record.chunks.layout
    stage = _stage_output(record, pad, chunk_layout.pad)
    stage.mask = pad(torch.ones_like(record.chunks.boundary_mask))
    stage.chunk_mask = chunk_layout.mask
    return stage


def _stage_output(
    record: StageRecord, arrange: Callable[[Tensor], Tensor], arrange_chunks: Callable[[Tensor], Tensor]
) -> HNetStageOutput:
    return HNetStageOutput(
        boundary_prob=arrange(record.routing.boundary_prob),
        boundary_mask=arrange(record.chunks.boundary_mask),
        selected_prob=arrange(record.routing.selected_prob),
        encoder_states=arrange(record.encoder_states),
        dechunked_states=arrange(record.dechunked_states),
        chunk_states=arrange_chunks(record.chunks.hidden_states),
        cu_seqlens=record.layout.cu_seqlens,
        chunk_cu_seqlens=record.chunks.layout.cu_seqlens,
        num_dropped=record.chunks.num_dropped,
    )


class _Level:
    """One level of the recursion: the whole network at stage 0, the main network of the level outside otherwise.

    A mixin, because the outermost level is a `PreTrainedModel` and the inner ones are plain modules, with the same
    parameter names.
    """

    def build_level(self, config: HNetConfig, stage: int) -> None:
        """Makes the submodules of `stage` and everything inside it."""
        layout, width = config.stages[stage], config.d_model[stage]
        self.level_config, self.stage = config, stage
        self.outer_width = config.d_model[max(stage - 1, 0)]
        if width > self.outer_width:
            self.pad_dimension = nn.Parameter(torch.zeros(width - self.outer_width))
        self.is_innermost = layout.is_innermost
        if layout.is_innermost:
            self.main_network: nn.Module = HNetStack(config, stage, layout.stacks[0])
            return
        encoder, decoder = layout.stacks
        self.encoder = HNetStack(config, stage, encoder)
        self.routing_module = RoutingModule(width, learned=config.routing == "learned")
        self.main_network = HNetLevel(config, stage + 1)
        self.residual_proj = ResidualProjection(width, width)
        self.decoder = HNetStack(config, stage, decoder)

    def run_level(
        self, hidden_states: Tensor, layout: SequenceLayout, cache: LevelCache | None = None
    ) -> tuple[Tensor, tuple[StageRecord, ...]]:
        """Maps packed rows (T, D of the stage outside) to rows of that width, and reports every stage from here on.

        Args:
            hidden_states: The rows.
            layout: Where each sequence's rows lie.
            cache: What came before them; it takes the rows in. A sequence may have no new row.
        """
        if layout.num_rows == 0:
            return hidden_states, self._records_of_nothing(hidden_states, layout)
        past = cache or LevelCache()
        if self.is_innermost:
            return self.main_network(self.widened(hidden_states), layout, past.main)[:, : self.outer_width], ()

        encoded, routing = self.decide(hidden_states, layout, past)
        chunks = chunk(encoded, routing.boundary_mask, layout, self._capacity(cache))  # eq. 2
        processed, inner_records = self.main_network(chunks.hidden_states, chunks.layout, past.main)
        dechunked = dechunk(processed, routing.boundary_prob, chunks, layout, past.smoothed)
        confidence = straight_through_ones(routing.selected_prob)[:, None]
        decoded = self.decoder(dechunked * confidence + self.residual_proj(encoded), layout, past.decoder)
        if cache is not None:
            cache.smoothed = layout.latest(dechunked, cache.smoothed)

        record = StageRecord(layout, routing, encoded, chunks, dechunked)
        return decoded[:, : self.outer_width], (record, *inner_records)

    def widened(self, hidden_states: Tensor) -> Tensor:
        """Rows at this level's width, the learned channels appended where it is more than the outer one."""
        if not hasattr(self, "pad_dimension"):
            return hidden_states
        extra = self.pad_dimension.to(hidden_states.dtype).expand(len(hidden_states), -1)
        return torch.cat((hidden_states, extra), dim=-1)

    def decide(self, hidden_states: Tensor, layout: SequenceLayout, past: LevelCache) -> tuple[Tensor, RoutingOutput]:
        """This level's encoder features (T, D) and boundary decisions (eq. 1)."""
        encoded = self.encoder(self.widened(hidden_states), layout, past.encoder)
        routing = self.routing_module(encoded, layout, past.previous)
        if past.previous is not None:
            past.previous = PreviousRows(
                layout.latest(encoded, past.previous.rows), past.previous.exists | (layout.lengths > 0)
            )
        return encoded, routing

    def segment_level(
        self,
        hidden_states: Tensor,
        layout: SequenceLayout,
        cache: LevelCache | None = None,
        *,
        limited: bool = False,
    ) -> tuple[StageTokens, ...]:
        """Features and boundaries of this stage and those inside it, by the encoders alone.

        They do not depend on the innermost network and the decoders, which are left out.

        Args:
            hidden_states: (T, D of the stage outside) packed rows.
            layout: Where each sequence's rows lie; exact unless `limited`.
            cache: What came before them; it takes the rows in. Only this method may continue from it.
            limited: Leave out the chunks that `run_level` leaves out under `chunk_capacity`; nothing waits for the
                device then. False: keep all.

        Returns:
            One entry a chunking stage, outermost first.
        """
        if self.is_innermost:
            return ()
        if layout.num_rows == 0:
            return tuple(record.tokens for record in self._records_of_nothing(hidden_states, layout))
        past = cache or LevelCache()
        encoded, routing = self.decide(hidden_states, layout, past)
        tokens = StageTokens(layout, encoded, routing.boundary_mask)
        assert isinstance(self.main_network, HNetLevel)
        if self.main_network.is_innermost:
            return (tokens,)
        chunks = chunk(encoded, routing.boundary_mask, layout, self._capacity(cache) if limited else None)
        inner = self.main_network.segment_level(chunks.hidden_states, chunks.layout, past.main, limited=limited)
        return tokens, *inner

    def _capacity(self, cache: LevelCache | None) -> float | None:
        """Room for chunks per row where their number must not be read from the device; None to count them."""
        if cache is not None:
            return None
        if self.level_config.chunk_capacity is not None:
            return self.level_config.chunk_capacity[self.stage]
        # A compiled graph cannot wait for a number; with a chunk for every row none is ever dropped.
        return 1.0 if torch.compiler.is_compiling() else None

    def _records_of_nothing(self, hidden_states: Tensor, layout: SequenceLayout) -> tuple[StageRecord, ...]:
        """The records of this stage and those inside it, for no rows."""
        if self.is_innermost:
            return ()
        assert isinstance(self.main_network, HNetLevel)
        rows = hidden_states.new_zeros(0, self.level_config.d_model[self.stage], dtype=torch.float32)
        prob, mask = rows.new_zeros(0), rows.new_zeros(0, dtype=torch.bool)
        chunks = Chunks(rows, layout, mask.long(), mask)
        record = StageRecord(layout, RoutingOutput(prob, mask, prob), rows, chunks, rows)
        return record, *self.main_network._records_of_nothing(rows, layout)

    def new_level_cache(self, batch_size: int, device: torch.device) -> LevelCache:
        """An empty cache of this level and those inside it."""
        if self.is_innermost:
            return LevelCache(main=self.main_network.new_cache(batch_size, device))
        width = self.level_config.d_model[self.stage]
        return LevelCache(
            main=self.main_network.new_level_cache(batch_size, device),
            encoder=self.encoder.new_cache(batch_size, device),
            decoder=self.decoder.new_cache(batch_size, device),
            previous=PreviousRows(
                torch.zeros(batch_size, width, device=device), torch.zeros(batch_size, dtype=torch.bool, device=device)
            ),
            smoothed=torch.zeros(batch_size, width, device=device),
        )


class HNetLevel(_Level, nn.Module):
    """An inner level of the recursion."""

    def __init__(self, config: HNetConfig, stage: int) -> None:
        super().__init__()
        self.build_level(config, stage)

    def forward(
        self, hidden_states: Tensor, layout: SequenceLayout, cache: LevelCache | None = None
    ) -> tuple[Tensor, tuple[StageRecord, ...]]:
        """See `run_level`."""
        return self.run_level(hidden_states, layout, cache)


class HNetPreTrainedModel(SavingMixin, StrictLoadingMixin, PreTrainedModel):
    """Loading, saving and initialisation shared by H-Net models."""

    config: HNetConfig
    base_model_prefix = "hnet"
    main_input_name = "hidden_states"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ("HNetBlock",)
    _keep_in_fp32_modules_strict = ("routing_module", "residual_proj", "A_log", "dt_bias", "D")

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
        elif isinstance(module, HNetMamba2):
            init_mamba2_(module)
        elif isinstance(module, HNetLevel) and hasattr(module, "pad_dimension"):
            init.zeros_(module.pad_dimension)


class HNetModel(_Level, HNetPreTrainedModel):
    """H-Net without embedding and head: a sequence of features in, a sequence of the same shape out.

    Args:
        config: The architecture.

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
        max_seqlen: int | None = None,
        cache: LevelCache | None = None,
    ) -> HNetOutput:
        """Runs all stages.

        With `chunk_capacity` set in the configuration, and always under `torch.compile`, nothing waits for the device;
        otherwise the numbers of chunks are read from it, once a stage.

        Args:
            hidden_states: (B, L, D) padded batch, or (T, D) packed rows together with `cu_seqlens`.
            attention_mask: (B, L) bool or 0/1, True where valid, padding on the right. None: all valid.
            cu_seqlens: (B + 1,) cumulative lengths of packed sequences.
            max_seqlen: A bound on the longest packed sequence, needed where nothing waits for the device.
            cache: What `new_cache` made, if the sequences continue; it takes the rows in.

        Returns:
            The output in the dtype and layout of the input, and one record a chunking stage. Padded and packed batches
            with the same sequences give the same numbers, and so do sequences in pieces with a cache.

        Raises:
            ValueError: If shapes do not fit together, a mask has padding before a valid position, or nothing is valid.
        """
        layout = self._layout_of(hidden_states, attention_mask, cu_seqlens, max_seqlen, cache)
        if cu_seqlens is not None:
            return self.forward_packed(hidden_states, layout, cache)
        length = hidden_states.shape[1]
        output, records = self.run_level(layout.pack(hidden_states), layout, cache)
        return HNetOutput(
            last_hidden_state=layout.pad(output.to(hidden_states.dtype), length=length),
            stages=tuple(padded_stage(record, None if index else length) for index, record in enumerate(records)),
        )

    def forward_packed(
        self, hidden_states: Tensor, layout: SequenceLayout, cache: LevelCache | None = None
    ) -> HNetOutput:
        """Runs all stages on packed rows (T, D) whose layout is known already; the output is packed."""
        output, records = self.run_level(hidden_states, layout, cache)
        return HNetOutput(
            last_hidden_state=output.to(hidden_states.dtype), stages=tuple(_packed_stage(record) for record in records)
        )

    def new_cache(self, batch_size: int = 1) -> LevelCache:
        """An empty cache for `batch_size` sequences that arrive piece by piece, on the model's device.

        Its memory does not grow in stages with a window, nor in Mamba2 layers.
        """
        return self.new_level_cache(batch_size, self.device)

    @torch.no_grad()
    def step(self, hidden_states: Tensor, cache: LevelCache) -> HNetOutput:
        """Continues every sequence by one position.

        Args:
            hidden_states: (B, D), one row a sequence.
            cache: What `new_cache(B)` made; it takes the rows in.

        Returns:
            The output (B, D), equal to the row that the whole sequence would have, and packed records. An inner stage
            has rows only for the sequences that start a chunk in the stage outside it; its `cu_seqlens` tell which.

        Raises:
            ValueError: If the shape does not fit, or values in the CPU's memory are not finite.
        """
        batch = len(hidden_states)
        expected = (len(cache.previous.exists) if cache.previous is not None else batch, self.config.d_model[0])
        if tuple(hidden_states.shape) != expected:
            raise ValueError(
                f"hidden_states: got shape {tuple(hidden_states.shape)}, expected {expected}, one row for each "
                "sequence of the cache. Make the cache with new_cache(batch_size)."
            )
        # An accelerator is not waited for; `HiLAMModel.stream` looks at its inputs anyway.
        if hidden_states.device.type == "cpu" and not bool(torch.isfinite(hidden_states).all()):
            raise ValueError(
                "hidden_states: got NaN or infinite values, which the cache would keep, expected finite ones. Check "
                "the input; the cache took nothing in."
            )
        return self.forward_packed(hidden_states, SequenceLayout.dense(batch, 1, hidden_states.device), cache)

    def _layout_of(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        cu_seqlens: Tensor | None,
        max_seqlen: int | None,
        cache: LevelCache | None,
    ) -> SequenceLayout:
        width, shape = self.config.d_model[0], tuple(hidden_states.shape)
        expected, ndim = ("(B, L, D)", 3) if cu_seqlens is None else ("(T, D) with cu_seqlens", 2)
        if len(shape) != ndim or shape[-1] != width:
            raise ValueError(
                f"hidden_states: got shape {shape}, expected {expected} and D = {width}. Reshape or project the "
                "features."
            )
        static = cache is None and self.config.is_static
        if cu_seqlens is not None:
            if attention_mask is not None:
                raise ValueError(
                    "attention_mask: got one together with cu_seqlens, expected one of the two. Packed rows hold no "
                    "padding; drop it."
                )
            return SequenceLayout.from_cu_seqlens(cu_seqlens, len(hidden_states), max_seqlen, static=static)
        if attention_mask is None:
            return SequenceLayout.dense(*shape[:2], device=hidden_states.device).checked("hidden_states")
        if tuple(attention_mask.shape) != shape[:2]:
            raise ValueError(
                f"attention_mask: got shape {tuple(attention_mask.shape)}, expected {shape[:2]} as hidden_states has. "
                "Give one entry a position."
            )
        return SequenceLayout.from_mask(attention_mask, static=static)
