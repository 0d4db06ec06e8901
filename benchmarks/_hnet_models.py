"""What benchmarks/hnet.py compares: ours, the peers, and an isotropic transformer, on the same batches.

The inner network of an H-Net runs on chunks only, so a model that happens to find fewer boundaries does less work.
Untrained models differ in that. Here the boundaries are therefore given: each model computes its own boundary
probabilities, and then max(p, 1 - p) stands where a boundary is to be and min(p, 1 - p) elsewhere, which costs next to
nothing and leaves all other work and every gradient in place.

Shapes: B sequences, L positions, D width, P packed rows (valid positions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel
from hilam_hf.models.hnet import HNetConfig, RoutingModule, SequenceLayout, chunk, dechunk, ratio_loss
from hilam_hf.models.hnet.dynamic_chunking import straight_through_ones


@dataclass(frozen=True)
class Setting:
    """The sizes that every model shares."""

    width: int = 256
    heads: int = 4
    encoder: int = 4
    main: int = 6
    decoder: int = 4
    latent_dim: int = 64
    chunk_length: int = 4
    """N, positions a chunk."""
    mlp: int = 640
    """Width of our gated MLP, the nearest in parameters to the peer's plain one, which is 4 times the width."""
    window: int = -1
    """Attention window of ours; -1 is none, as the peer has none."""
    chunk_capacity: float | None = None
    """The most chunks, as a fraction of the positions, in the mode without host synchronisation; None is no cap."""


@dataclass(frozen=True)
class Batch:
    """Latent actions (B, L, latent_dim), their validity (B, L) or None, and where boundaries are to be (B, L)."""

    latents: Tensor
    boundaries: Tensor
    mask: Tensor | None = None

    @cached_property
    def packed_boundaries(self) -> Tensor:
        """(P,) boundaries of the valid positions."""
        return self.boundaries.flatten() if self.mask is None else self.boundaries[self.mask]

    @cached_property
    def static_boundaries(self) -> Tensor:
        """(B * L,) those, filled up: the rows of a model whose number of rows may not depend on the mask."""
        return F.pad(self.packed_boundaries, (0, self.boundaries.numel() - len(self.packed_boundaries)))

    @property
    def num_tokens(self) -> int:
        """Valid positions."""
        return len(self.packed_boundaries)


def equal_batch(setting: Setting, batch: int, length: int, device: torch.device, seed: int = 0) -> Batch:
    """A batch of sequences of equal length."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, length, setting.latent_dim, generator=generator)
    boundaries = boundary_pattern(batch, length, setting.chunk_length, generator)
    return Batch(latents.to(device), boundaries.to(device))


def ragged_batch(
    setting: Setting, lengths: Sequence[int], device: torch.device, seed: int = 0, padded_to: int | None = None
) -> Batch:
    """A batch padded to the longest of `lengths`, or further."""
    longest = padded_to or max(lengths)
    batch = equal_batch(setting, len(lengths), longest, device, seed)
    mask = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]
    return Batch(batch.latents, batch.boundaries, mask)


def ragged_lengths(batches: int, size: int, quantiles: Sequence[int], seed: int = 0) -> list[list[int]]:
    """`batches` lists of `size` lengths, drawn from a distribution given by evenly spaced quantiles.

    Two quantiles, the shortest and the longest, make it uniform.
    """
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(batches, size, generator=generator) * (len(quantiles) - 1)
    below = places.long()
    table = torch.tensor(quantiles, dtype=torch.float32)
    return torch.lerp(table[below], table[below + 1], places - below).round().long().tolist()


def boundary_pattern(batch: int, length: int, chunk_length: int, generator: torch.Generator) -> Tensor:
    """(B, L) bool: position 0, and one position drawn from each later group of `chunk_length`.

    Chunks last 1 to 2 N - 1 positions, and any first part of a sequence has 1 / N of boundaries, give or take one.
    """
    groups = math.ceil(length / chunk_length)
    offsets = torch.randint(chunk_length, (batch, groups), generator=generator)
    offsets[:, 0] = 0
    pattern = F.one_hot(offsets, chunk_length).bool().flatten(1)
    return pattern[:, :length]


def force(prob: Tensor, boundaries: Tensor) -> Tensor:
    """`prob` or 1 - `prob`, whichever decides as `boundaries` says."""
    sure = torch.maximum(prob, 1 - prob)
    return torch.where(boundaries, sure, 1 - sure)


@dataclass
class Contender:
    """A model under test: `loss` of a batch, and a training step on it."""

    name: str
    model: nn.Module
    loss: Callable[[Batch], Tensor]
    rate: Callable[[Batch], float] | None = None
    """Boundaries a position that the model works with, to see that it is as wanted; None without chunking."""
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    @property
    def num_parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def train_step(self, batch: Batch) -> None:
        """Forward, loss, backward, optimizer."""
        self.loss(batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def infer(self, batch: Batch) -> None:
        """Forward and loss, without gradients."""
        self.loss(batch)


class GivenRouting:
    """Forward hook on our routing module that puts the boundaries where a batch wants them.

    Args:
        static: Whether the model works without host synchronisation, and so on rows that padding leaves over too.
    """

    def __init__(self, static: bool) -> None:
        self.static = static
        self.boundaries = torch.empty(0, dtype=torch.bool)

    def set(self, batch: Batch) -> None:
        """Takes the boundaries of `batch`."""
        self.boundaries = batch.static_boundaries if self.static else batch.packed_boundaries

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        return decided(output, self.boundaries)


class StreamedRouting:
    """Like `GivenRouting` where rows come a few at a time: each call takes the next ones of a pattern (L,)."""

    def __init__(self, pattern: Tensor) -> None:
        self.pattern, self.position = pattern, 0

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        start, self.position = self.position, self.position + len(output.boundary_prob)
        return decided(output, self.pattern[start : self.position])


def decided(output: Any, boundaries: Tensor) -> Any:
    """The output of a routing module with these boundaries."""
    prob = force(output.boundary_prob, boundaries)
    selected = torch.maximum(prob, 1 - prob)
    return output._replace(boundary_prob=prob, boundary_mask=boundaries, selected_prob=selected)


class GivenCosine:
    """Stands in for the peer's cosine similarity: p = (1 - cosine) / 2 comes out on the wanted side of 1/2."""

    def __init__(self, cosine: Callable[..., Tensor]) -> None:
        self.cosine = cosine
        self.boundaries = torch.empty(0, dtype=torch.bool)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        size = self.cosine(*args, **kwargs).abs()
        return torch.where(self.boundaries, -size, size)


def our_model(setting: Setting) -> HiLAMModel:
    """HiLAM with one chunking stage and known statistics."""
    head_width = setting.width // setting.heads
    backbone: dict[str, Any] = {
        "arch_layout": [f"T{setting.encoder}", [f"T{setting.main}"], f"T{setting.decoder}"],
        "d_model": [setting.width] * 2,
        "d_intermediate": [setting.mlp] * 2,
        "num_heads": [setting.heads] * 2,
        "rotary_emb_dim": [head_width // 2] * 2,
        "window_size": [setting.window] * 2,
    }
    if setting.chunk_capacity is not None:
        backbone["chunk_capacity"] = [setting.chunk_capacity]
    config = HiLAMConfig(
        latent_dim=setting.latent_dim,
        hnet_config=HNetConfig(**backbone),
        target_ratios=[float(setting.chunk_length)],
        skill_stage=1,
    )
    model = HiLAMModel(config)
    model.set_latent_statistics(torch.zeros(setting.latent_dim), torch.ones(setting.latent_dim))
    return model


def streaming_model(preset: str, latent_dim: int, steps: int, chunk_length: int) -> HiLAMModel:
    """A preset that finds a boundary in every `chunk_length` positions, at each stage, for `steps` latent actions."""
    model = HiLAMModel(HiLAMConfig.preset(preset, latent_dim=latent_dim)).eval()
    model.set_latent_statistics(torch.zeros(latent_dim), torch.ones(latent_dim))
    generator = torch.Generator().manual_seed(0)
    for module in model.hnet.modules():
        if isinstance(module, RoutingModule):
            pattern = boundary_pattern(1, steps, chunk_length, generator).squeeze(0)
            module.register_forward_hook(StreamedRouting(pattern))
    return model


def ours(setting: Setting, device: torch.device, compile_mode: str | None = None) -> Contender:
    """Our HiLAM: L1 of the next latent action and ratio loss; a mask keeps padding out of all work.

    Args:
        setting: The sizes.
        device: Where it runs.
        compile_mode: A mode of `torch.compile`, for the whole graph; None is eager.
    """
    model, given = our_model(setting).to(device), GivenRouting(static=setting.chunk_capacity is not None)
    model.hnet.routing_module.register_forward_hook(given)
    run = model if compile_mode is None else torch.compile(model, mode=compile_mode, fullgraph=True, dynamic=False)

    def loss(batch: Batch) -> Tensor:
        given.set(batch)
        return run(batch.latents, attention_mask=batch.mask).loss

    def rate(batch: Batch) -> float:
        given.set(batch)
        return model(batch.latents, attention_mask=batch.mask).boundary_rates.item()

    return Contender("ours", model, loss, rate)


def peer(setting: Setting, device: torch.device, **decoder_kwargs: Any) -> Contender:
    """The PyPI package HiLAM: same losses. It takes no mask, so it works on padding too.

    Args:
        setting: The sizes.
        device: Where it runs.
        **decoder_kwargs: Options of its x-transformers decoders.
    """
    from HiLAM import HierarchicalLatentActionModel

    model = HierarchicalLatentActionModel(
        setting.width,
        h_net_head_depth=setting.encoder,
        h_net_trunk_depth=setting.main,
        h_net_tail_depth=setting.decoder,
        actions_num_continuous=setting.latent_dim,
        h_net_target_avg_action_length=float(setting.chunk_length),
        state_action_attend=False,
        decoder_kwargs={"heads": setting.heads, "attn_dim_head": setting.width // setting.heads} | decoder_kwargs,
    ).to(device)
    given, seen = given_cosine(), []
    chunker = model.action_chunker.dynamic_sequence_chunker

    def loss(batch: Batch) -> Tensor:
        given.boundaries = batch.boundaries
        return model(None, actions=batch.latents)

    def rate(batch: Batch) -> float:
        handle = chunker.register_forward_hook(lambda *call: seen.append(call[2][1].boundary_mask.float().mean()))
        loss(batch)
        handle.remove()
        return seen.pop().item()

    return Contender("HiLAM", model, loss, rate)


def given_cosine() -> GivenCosine:
    """The stand-in for the cosine similarity in h-net-dynamic-chunking, put there if it is not yet."""
    from h_net_dynamic_chunking import h_net_dynamic_chunking as package

    if not isinstance(package.cosine_similarity, GivenCosine):
        package.cosine_similarity = GivenCosine(package.cosine_similarity)
    return package.cosine_similarity


class IsotropicBlock(nn.Module):
    """A plain causal pre-norm block with our MLP."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        width = setting.width
        self.heads = setting.heads
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * setting.mlp, bias=False), nn.Linear(setting.mlp, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps (B, L, D) to (B, L, D)."""
        parts = self.qkv(self.norm1(hidden)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.out(mixed.transpose(1, 2).flatten(2))
        value, gate = self.up(self.norm2(hidden)).chunk(2, dim=-1)
        return hidden + self.down(value * F.silu(gate))


class Isotropic(nn.Module):
    """`layers` plain blocks at full rate between the same projections: next-latent prediction without chunking."""

    def __init__(self, setting: Setting, layers: int) -> None:
        super().__init__()
        self.input_proj = nn.Linear(setting.latent_dim, setting.width)
        self.blocks = nn.Sequential(*(IsotropicBlock(setting) for _ in range(layers)), nn.RMSNorm(setting.width))
        self.output_proj = nn.Linear(setting.width, setting.latent_dim)

    def forward(self, latents: Tensor) -> Tensor:
        """The L1 loss of (B, L, latent_dim)."""
        predictions = self.output_proj(self.blocks(self.input_proj(latents)))
        return F.l1_loss(predictions[:, :-1], latents[:, 1:])


def isotropic(setting: Setting, layers: int, device: torch.device, compile_mode: str | None = None) -> Contender:
    """A plain transformer of that many layers; it works on padding too."""
    model = Isotropic(setting, layers).to(device)
    run = model if compile_mode is None else torch.compile(model, mode=compile_mode, fullgraph=True, dynamic=False)
    return Contender(f"{layers} plain layers", model, lambda batch: run(batch.latents))


def block_flops(setting: Setting, length: int) -> float:
    """Floating-point operations of a block's forward pass on one sequence; causal attention counts half its square."""
    linear = 2 * length * (4 * setting.width**2 + 3 * setting.width * setting.mlp)
    return linear + 2 * setting.width * length**2


def our_flops(setting: Setting, length: int) -> float:
    """Operations of our forward pass on one sequence whose chunks last N positions on average."""
    outside = (setting.encoder + setting.decoder) * block_flops(setting, length)
    inside = setting.main * block_flops(setting, math.ceil(length / setting.chunk_length))
    # Query, key and residual projections of the chunking stage.
    return outside + inside + 2 * length * 3 * setting.width**2 + projection_flops(setting, length)


def isotropic_flops(setting: Setting, layers: int, length: int) -> float:
    """Operations of the forward pass of plain layers on one sequence."""
    return layers * block_flops(setting, length) + projection_flops(setting, length)


def projection_flops(setting: Setting, length: int) -> float:
    """Operations of the maps from and to latent actions."""
    return 2 * length * 2 * setting.latent_dim * setting.width


def equal_flops_layers(setting: Setting, length: int) -> int:
    """The number of plain layers whose operations come nearest to ours."""
    return round((our_flops(setting, length) - projection_flops(setting, length)) / block_flops(setting, length))


def our_chunker(setting: Setting, batch: Batch, states: Tensor) -> Callable[[], None]:
    """Routing, ratio loss, chunking and smoothing back of `states` (B, L, D), forward and backward."""
    routing, given = RoutingModule(setting.width).to(states.device), GivenRouting(static=False)
    nn.init.eye_(routing.q_proj_layer.weight)
    nn.init.eye_(routing.k_proj_layer.weight)
    routing.register_forward_hook(given)
    given.set(batch)

    def run() -> None:
        layout = SequenceLayout.dense(*states.shape[:2], device=states.device)
        rows = layout.pack(states)
        decision = routing(rows, layout)
        chunks = chunk(rows, decision.boundary_mask, layout, setting.chunk_capacity)
        smooth = dechunk(chunks.hidden_states, decision.boundary_prob, chunks, layout)
        smooth = smooth * straight_through_ones(decision.selected_prob)[:, None]
        loss = ratio_loss(decision.boundary_mask, decision.boundary_prob, float(setting.chunk_length))
        (smooth.sum() + loss).backward()

    return run


def peer_chunker(setting: Setting, batch: Batch, states: Tensor) -> Callable[[], None]:
    """The same work by the PyPI package h-net-dynamic-chunking."""
    from h_net_dynamic_chunking import DynamicSequenceChunker

    chunker = DynamicSequenceChunker(setting.width, target_avg_token_length=float(setting.chunk_length))
    chunker, given = chunker.to(states.device), given_cosine()

    def run() -> None:
        given.boundaries = batch.boundaries
        chunks, upsample, loss = chunker(states)
        (upsample(chunks).sum() + loss).backward()

    return run
