"""Latent-action and latent-skill corpora: what is written, what is read, and the extraction between them."""

from .corpus import (
    CorpusStatistics,
    corpus_statistics,
    latent_actions_array,
    load_corpus,
    unfold_skills,
    unpack_boundaries,
    vectors_array,
    write_latent_action_corpus,
    write_skill_corpus,
)
from .info import CorpusInfo, dataset_card
from .writer import CorpusWriter

__all__ = [
    "CorpusInfo",
    "CorpusStatistics",
    "CorpusWriter",
    "corpus_statistics",
    "dataset_card",
    "latent_actions_array",
    "load_corpus",
    "unfold_skills",
    "unpack_boundaries",
    "vectors_array",
    "write_latent_action_corpus",
    "write_skill_corpus",
]
