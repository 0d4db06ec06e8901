"""Cards for the Hub: what models and corpora say about themselves."""

from ..data.corpora.info import CorpusInfo, dataset_card
from .model_cards import Measurement, model_card, model_card_from_template, write_model_card

__all__ = ["CorpusInfo", "Measurement", "dataset_card", "model_card", "model_card_from_template", "write_model_card"]
