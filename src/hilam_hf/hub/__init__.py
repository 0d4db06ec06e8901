"""Cards for the Hub: what models and corpora say about themselves."""

from ..data.corpora.info import CorpusInfo, dataset_card
from .model_cards import (
    Measurement,
    latent_action_card_template,
    model_card,
    model_card_from_template,
    write_model_card,
)

__all__ = [
    "CorpusInfo",
    "Measurement",
    "dataset_card",
    "latent_action_card_template",
    "model_card",
    "model_card_from_template",
    "write_model_card",
]
