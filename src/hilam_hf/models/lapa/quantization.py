"""Noise substitution in vector quantization (NSVQ, Vali & Backstrom 2022) as LAPA uses it, with codebook refresh.

Shapes: B batch, h and w patches along the sides of a frame, D width of a token, N codes of a latent action, E width of
a code's vector, K entries of the codebook.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor, nn

from ..numerics import upcast
from .configuration_lapa import LapaConfig, reducer_layers

_EPSILON = 1e-12
_LEAST_SQUARE = 1e-24  # below it the square root's gradient would end up infinite


class Quantized(NamedTuple):
    """A batch of latent actions.

    Attributes:
        codes: (B, N) int64 indices of the nearest entries of the codebook.
        vectors: (B, N, E) what the decoder gets for them: the entries, or in training their noisy substitutes.
        perplexity: () how many entries are in use in this batch, as exp of the entropy.
    """

    codes: Tensor
    vectors: Tensor
    perplexity: Tensor


class LatentQuantizer(nn.Module):
    """Patch tokens of two frames to the codes of a latent action, and codes to the decoder's action tokens."""

    codebook_usage: Tensor

    def __init__(self, config: LapaConfig) -> None:
        super().__init__()
        width = config.quant_dim
        self.refresh_threshold = config.refresh_threshold
        self.project_in = nn.Linear(config.hidden_size, width)
        self.project_out = nn.Linear(width, config.hidden_size)
        self.codebook = nn.Parameter(torch.empty(config.codebook_size, width))
        convolutions = [
            nn.Conv2d(width, width, layer.kernel_size, stride=layer.stride, padding=layer.padding)
            for layer in reducer_layers(config.grid_size, config.num_codes)
        ]
        between = [module for convolution in convolutions for module in (convolution, nn.ReLU())]
        self.reducer = nn.Sequential(*between[:-1])
        # Saved with the weights, so that a resumed run refreshes the same codes as an uninterrupted one.
        self.register_buffer("codebook_usage", torch.zeros(config.codebook_size, dtype=torch.int32))

    def reduce(self, tokens: Tensor) -> Tensor:
        """(B, h, w, D) tokens of one frame to (B, N, E), in float32 or wider."""
        grid = self.reducer(rearrange(self.project_in(tokens), "b h w e -> b e h w"))
        return upcast(rearrange(grid, "b e h w -> b (h w) e"))

    def nearest(self, vectors: Tensor) -> Tensor:
        """(..., E) vectors to the (...) int64 indices of their nearest entries."""
        with torch.no_grad():
            distances = torch.cdist(
                vectors.flatten(0, -2), self.codebook.to(vectors.dtype), compute_mode="donot_use_mm_for_euclid_dist"
            )
            return distances.argmin(-1).view(vectors.shape[:-1])

    def substitute(self, vectors: Tensor, codes: Tensor, noise: Tensor | None = None) -> Tensor:
        """Vectors moved by as much as quantising them would, in a random direction, so that gradients pass.

        Args:
            vectors: (B, N, E).
            codes: (B, N) int64, the nearest entries. Gradients reach them by the length of the move alone.
            noise: (B, N, E) standard normal numbers z; None draws them.

        Returns:
            (B, N, E), x + (|x - c| / |z| + 1e-12) z.
        """
        noise = torch.randn_like(vectors) if noise is None else noise.to(vectors.dtype)
        residual = vectors - self.codebook.to(vectors.dtype)[codes]
        length = residual.square().sum(-1, keepdim=True).clamp_min(_LEAST_SQUARE).sqrt()
        return vectors + (length / noise.norm(dim=-1, keepdim=True) + _EPSILON) * noise

    def action_tokens(self, vectors: Tensor) -> Tensor:
        """(B, N, E) vectors to the (B, N, D) tokens that the decoder attends to."""
        # Oddity that published weights depend on: the (N, E) block is read as (E, N), which mixes codes and channels.
        batch, count, width = vectors.shape
        mixed = vectors.reshape(batch, width, count).transpose(1, 2)
        return self.project_out(mixed.to(self.project_out.weight.dtype))

    def forward(self, differences: Tensor, noise: Tensor | None = None) -> Quantized:
        """Quantises (B, N, E) differences of two frames' reduced tokens; in training with noise, and counted."""
        codes = self.nearest(differences)
        if self.training:
            self.count_usage(codes)
            vectors = self.substitute(differences, codes, noise)
        else:
            vectors = self.codebook[codes]
        return Quantized(codes, vectors, self.perplexity(codes))

    def perplexity(self, codes: Tensor) -> Tensor:
        """exp of the entropy of a batch of codes, from 1 to K; a scalar."""
        counts = torch.zeros_like(self.codebook_usage, dtype=torch.float32)
        counts = counts.index_add(0, codes.flatten(), torch.ones_like(codes.flatten(), dtype=torch.float32))
        shares = counts / codes.numel()
        return (-(shares * (shares + _EPSILON).log()).sum()).exp()

    @torch.no_grad()
    def count_usage(self, codes: Tensor) -> None:
        """Counts each code that occurs in this forward pass, in any process; once, as published, however often."""
        used = torch.zeros_like(self.codebook_usage)
        used[codes.flatten()] = 1
        if is_distributed():
            dist.all_reduce(used, op=dist.ReduceOp.MAX)
        self.codebook_usage += used

    @torch.no_grad()
    def refresh(self, batch_size: int, generator: torch.Generator | None = None) -> int:
        """See [`LapaModel.refresh_codebook`]."""
        usage = self.codebook_usage.cpu()
        used = usage / batch_size >= self.refresh_threshold
        rows = replacements(used, lambda count: torch.randperm(count, generator=generator))
        noise = _EPSILON * torch.randn(self.codebook.shape, generator=generator)
        if used.any():
            noise[used] = 0
        codebook = self.codebook.detach()
        codebook.copy_(codebook[rows.to(codebook.device)] + noise.to(codebook))
        if is_distributed():
            dist.broadcast(codebook, src=0)
        self.codebook_usage.zero_()
        return int((rows != torch.arange(len(rows))).sum())


def replacements(used: Tensor, shuffle: Callable[[int], Tensor]) -> Tensor:
    """Which entry each entry of a codebook becomes at a refresh.

    Unused entries become the used ones in order; where there are fewer of these, a shuffled repetition of them. If none
    is used, all stay.

    Args:
        used: (K,) bool.
        shuffle: Gives a permutation of as many numbers as it is told.

    Returns:
        (K,) int64; a used entry becomes itself.

    Example:
        >>> replacements(torch.tensor([True, False, True, False, True]), torch.randperm)
        tensor([0, 0, 2, 2, 4])
    """
    rows = torch.arange(len(used))
    sources, unused = rows[used], rows[~used]
    if len(sources) == 0:
        return rows
    if len(sources) < len(unused):
        repeated = sources.repeat(math.ceil(len(unused) / len(sources)))
        sources = repeated[shuffle(len(repeated))]
    rows[unused] = sources[: len(unused)]
    return rows


def is_refresh_step(step: int) -> bool:
    """Whether the codebook is refreshed after so many steps: 10, 20, .., 100, 200, .., 1000, 1500, .., 4500."""
    interval = 10 if step < 100 else 100 if step < 1000 else 500
    return 0 < step < 5000 and step % interval == 0


def is_distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
