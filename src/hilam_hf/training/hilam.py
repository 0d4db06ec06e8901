"""Training of HiLAM on a latent-action corpus."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset as Corpus
from torch import Tensor
from torch.utils.data import Dataset

from ..data.collate import collate_sequences
from ..data.corpora import CorpusInfo
from ..models.dynamics import InverseDynamicsModel
from ..models.hilam import HiLAMConfig, HiLAMModel
from .config import TrainingConfig
from .loop import TrainingResult, save_model, train


class LatentSequences(Dataset[Tensor]):
    """The latent-action sequences of a corpus, kept in memory (a latent action takes 256 bytes)."""

    def __init__(self, corpus: Corpus):
        self.sequences = [
            torch.from_numpy(np.asarray(latents, dtype=np.float32)) for latents in corpus["latent_actions"]
        ]

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> Tensor:
        return self.sequences[index]


def new_hilam(info: CorpusInfo, preset: str, *, idm: InverseDynamicsModel | None = None, **options: Any) -> HiLAMModel:
    """An untrained HiLAM that fits a corpus.

    Args:
        info: What the corpus' card says.
        preset: Size of the model, of `HiLAMConfig.preset`.
        idm: The inverse dynamics model that made the corpus. With it the checkpoint takes frames, too, and not only
            latent actions; it stays frozen.
        **options: Further fields of `HiLAMConfig`.
    """
    stride = {"stride": info.stride, "stride_seconds": info.stride_seconds if info.stride is None else None}
    idm_config = None if idm is None else idm.config
    model = HiLAMModel(
        HiLAMConfig.preset(preset, latent_dim=info.latent_dim, idm_config=idm_config, **stride, **options)
    )
    if idm is not None and model.idm is not None:
        model.idm.load_state_dict(idm.state_dict())
    return model


def train_hilam(
    model: HiLAMModel,
    corpus: Corpus,
    corpus_info: CorpusInfo,
    config: TrainingConfig,
    *,
    output_dir: str | Path,
    resume: bool = False,
) -> TrainingResult:
    """Trains HiLAM in place by next-latent prediction (paper eq. 4) and saves it as `output_dir/hilam`.

    Args:
        model: The model; it takes the corpus' statistics.
        corpus: Latent-action corpus.
        corpus_info: What its card says.
        config: Training options.
        output_dir: Folder for checkpoints, history and the trained model.
        resume: Continue from the latest checkpoint in `output_dir`.

    Raises:
        ValueError: If the corpus' latent actions are of another width, or its card has no statistics.
    """
    if corpus_info.latent_dim != model.config.latent_dim:
        raise ValueError(
            f"the corpus' latent actions have {corpus_info.latent_dim} numbers, "
            f"the model takes {model.config.latent_dim}; make the model with latent_dim of the corpus"
        )
    if corpus_info.mean is None or corpus_info.std is None:
        raise ValueError("the corpus' card has no statistics (mean, std); write the corpus with CorpusWriter")
    std = torch.tensor(corpus_info.std)
    # A dimension that never changes stays at zero instead of becoming noise of unit size.
    model.set_latent_statistics(torch.tensor(corpus_info.mean), torch.where(std > 0, std, torch.ones_like(std)))
    result = train(
        model,
        LatentSequences(corpus),
        config,
        collate_fn=collate_latent_actions,
        output_dir=output_dir,
        resume=resume,
        description="HiLAM",
    )
    save_model(model, Path(output_dir) / "hilam")
    return result


def collate_latent_actions(sequences: list[Tensor]) -> dict[str, Tensor]:
    """Pads sequences to HiLAM's inputs: `latent_actions` (B, T, D) and `attention_mask` (B, T)."""
    batch = collate_sequences(sequences)
    return {"latent_actions": batch["latents"], "attention_mask": batch["attention_mask"]}
