"""Skills of whole sequences: the backbone runs over long ones piece by piece, and segments are put together.

Shapes: B sequences, T latent actions of one, P packed rows, S segments, d width of a stage.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..hnet.modeling_hnet import StageTokens
from ..hnet.packing import SequenceLayout
from ..numerics import upcast
from .segmenter import Segmenter
from .skills import SegmentPieces, SkillExtraction

PIECE_LENGTH = 256
"""Latent actions of a sequence that run through the backbone at a time."""


def extract(model: Segmenter, sequences: list[Tensor], piece_length: int = PIECE_LENGTH) -> list[SkillExtraction]:
    """Segments sequences at every stage.

    Args:
        model: Computes the stages' features and boundaries.
        sequences: Latent actions, each (T, D) with T >= 1, in original units or codes.
        piece_length: Rows of each sequence that run at a time; shorter sequences run in one go.

    Returns:
        One extraction a sequence, on the CPU.
    """
    stages = range(model.config.num_stages)
    boundaries: list[list[list[Tensor]]] = [[[] for _ in stages] for _ in sequences]
    segments = [[SegmentPieces(model.config.skill_token) for _ in stages] for _ in sequences]
    for tokens in _run_in_pieces(model, sequences, piece_length):
        for stage, of_stage in enumerate(tokens):
            lengths = list(of_stage.layout.lengths_on_host)
            masks = of_stage.boundary_mask.cpu().split(lengths)
            features = upcast(of_stage.features).cpu().split(lengths)
            for row, (mask, states) in enumerate(zip(masks, features, strict=True)):
                boundaries[row][stage].append(mask)
                segments[row][stage].add(states, mask)
    return [
        SkillExtraction.from_tokens(
            sequence if model.config.is_discrete else upcast(sequence).cpu(),
            [torch.cat(masks) for masks in boundaries[row]],
            [pieces.tokens() for pieces in segments[row]],
            model.config.skill_stage,
        )
        for row, sequence in enumerate(sequences)
    ]


def _run_in_pieces(model: Segmenter, sequences: list[Tensor], piece_length: int) -> Iterator[tuple[StageTokens, ...]]:
    """The stages' tokens of one piece of every sequence after the other."""
    longest = max(len(sequence) for sequence in sequences)
    cache = None if longest <= piece_length else model.new_cache(len(sequences))
    for start in range(0, longest, piece_length):
        pieces = [sequence[start : start + piece_length] for sequence in sequences]
        layout = SequenceLayout.from_lengths([len(piece) for piece in pieces], device=model.device)
        yield model.segment_rows(torch.cat(pieces).to(model.device), layout, cache)
