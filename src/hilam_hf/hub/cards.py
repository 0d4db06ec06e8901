"""Dataset cards. The card travels with a corpus, so it is made where corpora are written."""

from hilam_hf.data.corpus_info import CorpusInfo, dataset_card

__all__ = ["CorpusInfo", "dataset_card"]
