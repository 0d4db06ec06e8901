"""Training of HiLAM on a latent-action corpus."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset as Corpus
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..data.corpora.corpus import latent_actions_array
from ..data.corpora.info import CorpusInfo
from ..data.episodes import split_rows
from ..data.samples.collate import collate_sequences
from ..data.samples.frame_store import FrameStore
from ..data.samples.keys import SampleKey
from ..data.samples.reconstruction import ReconstructionFrames
from ..fingerprint import data_fingerprint, weights_fingerprint
from ..models.hilam import HiLAMConfig, HiLAMModel, HiLAMOutput
from ..models.latent_actions.dynamics import ForwardDynamicsModel, InverseDynamicsModel
from ..models.latent_actions.partners import check_same_idm, idm_fingerprint
from ..models.options import own_fields
from .config import TrainingConfig
from .loop import TrainingResult, train
from .model_options import parse_model_options
from .randomness import seeded
from .rows import Rows
from .run_folder import RunFolder, open_run_folder
from .saving import save_model


class LatentSequences(Dataset[Tensor]):
    """The latent-action sequences of a corpus, kept in memory (a latent action takes 256 bytes)."""

    def __init__(self, corpus: Corpus):
        # float32, or codes, for which the loss takes int64.
        arrays = [latent_actions_array(corpus, row) for row in range(len(corpus))]
        self.sequences = [torch.tensor(a) if a.dtype == np.float32 else torch.tensor(a).long() for a in arrays]
        self.episode_ids: list[str] = list(corpus["id"])

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> Tensor:
        return self.sequences[index]

    def select(self, rows: Sequence[int]) -> "LatentSequences":
        """The sequences of some rows."""
        chosen = copy.copy(self)
        chosen.sequences = [self.sequences[row] for row in rows]
        chosen.episode_ids = [self.episode_ids[row] for row in rows]
        return chosen

    def split(self, held_out_fraction: float) -> "tuple[LatentSequences, LatentSequences]":
        """Holds episodes out by their ids, see `held_out_rows`.

        Returns:
            (training, held-out) sequences.

        Raises:
            ValueError: The fraction is out of range, or it is above 0 and holds out no episode or all of them.
        """
        training, held_out = split_rows(self.episode_ids, held_out_fraction)
        return self.select(training), self.select(held_out)

    def fingerprint(self) -> str:
        """Says which sequences these are: 16 hexadecimal digits, from ids and latent actions in their order."""
        return data_fingerprint(self.episode_ids, *self.sequences)

    def sample_id(self, index: int) -> str:
        """The id of the episode."""
        return self.episode_ids[index]


class SequencesToReconstruct(Dataset[tuple[Tensor, SampleKey]]):
    """Latent-action sequences with the keys that their frames are drawn by, see `CollateWithFrames`.

    Args:
        sequences: The sequences.
        frames: What `CollateWithFrames` reads for them; it counts to the fingerprint.
    """

    draws_samples = True

    def __init__(self, sequences: LatentSequences, frames: ReconstructionFrames | None = None):
        self.sequences = sequences
        self.frames = frames

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, SampleKey]:
        return self.sequences[key.row], key

    def fingerprint(self) -> str:
        """Says which sequences and frames these are: 16 hexadecimal digits, the same on every machine."""
        return data_fingerprint(self.sequences.fingerprint(), self.frames and self.frames.fingerprint())

    def sample_id(self, index: int) -> str:
        """The id of the episode."""
        return self.sequences.sample_id(index)


class HiLAMLoss(nn.Module):
    """HiLAM with the frozen forward dynamics model of its reconstruction loss (paper eq. 4), if there is one."""

    def __init__(self, model: HiLAMModel, forward_dynamics: ForwardDynamicsModel | None):
        super().__init__()
        self.model = model
        self.forward_dynamics = None if forward_dynamics is None else forward_dynamics.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "HiLAMLoss":
        """Sets the mode; the frozen forward dynamics model always stays in evaluation mode."""
        super().train(mode)
        if self.forward_dynamics is not None:
            self.forward_dynamics.eval()
        return self

    def forward(self, **inputs: Any) -> HiLAMOutput:
        return self.model(**inputs, forward_dynamics=self.forward_dynamics)

    def count_parts(self, mean_over_parts: MeanOverParts, **inputs: Any) -> None:
        """See `HiLAMModel.count_parts`."""
        self.model.count_parts(mean_over_parts, **inputs, forward_dynamics=self.forward_dynamics)


def new_hilam(
    info: CorpusInfo, preset: str, *, idm: InverseDynamicsModel | None = None, seed: int = 0, **options: Any
) -> HiLAMModel:
    """An untrained HiLAM that fits a corpus.

    Args:
        info: What the corpus' card says.
        preset: Size of the model, of `HiLAMConfig.preset`.
        idm: The inverse dynamics model that made the corpus. With it the checkpoint takes frames, too, and not only
            latent actions; it stays frozen.
        seed: Of the weights, whatever was drawn before.
        **options: Further fields of `HiLAMConfig`.

    Raises:
        ValueError: If the corpus is of another inverse dynamics model.
    """
    if idm is not None:
        check_same_idm("the corpus", info.model_fingerprint, "idm", weights_fingerprint(idm))
    fields: dict[str, Any] = {
        **_latent_space(info),
        "stride": info.stride,
        "stride_seconds": info.stride_seconds if info.stride is None else None,
        "idm_config": None if idm is None else idm.config,
        "idm_fingerprint": info.model_fingerprint,
    }
    with seeded(seed):
        model = HiLAMModel(HiLAMConfig.preset(preset, **fields, **options))
    if idm is not None and model.idm is not None:
        model.idm.load_state_dict(idm.state_dict())
    if info.codebook is not None:
        model.set_codebook(torch.tensor(info.codebook))
    return model


def _latent_space(info: CorpusInfo) -> dict[str, Any]:
    if info.codebook is None:
        return {"latent_dim": info.latent_dim}
    return {"latent_type": "discrete", "num_codes": info.latent_dim, "codebook_size": len(info.codebook)}


def parse_hilam_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Options of `HiLAMConfig.preset` from `KEY=VALUE` pairs, values written as in YAML.

    Raises:
        ValueError: If a pair has no `=`, its key is neither a field of `HiLAMConfig` nor `routing`, or its value is not
            YAML.

    Example:
        >>> parse_hilam_options(["target_ratios=[4.0, 3.0]", "routing=identity"])
        {'target_ratios': [4.0, 3.0], 'routing': 'identity'}
    """
    return parse_model_options(pairs, known=sorted([*own_fields(HiLAMConfig), "routing"]))


def train_hilam(
    model: HiLAMModel,
    corpus: Corpus,
    corpus_info: CorpusInfo,
    config: TrainingConfig,
    *,
    output_dir: str | Path | RunFolder,
    forward_dynamics: ForwardDynamicsModel | None = None,
    frames: FrameStore | None = None,
    held_out: Sequence[int] = (),
    resume: bool = False,
    overwrite: bool = False,
) -> TrainingResult:
    """Trains HiLAM in place by next-latent prediction (paper eq. 4) and saves it as `output_dir/hilam`.

    With a forward dynamics model and the frames, predicted latent actions also have to lead to the right next frames
    (the reconstruction loss, weighted by the model's `lambda_rec`).

    Args:
        model: The model; it takes the corpus' statistics.
        corpus: Latent-action corpus.
        corpus_info: What its card says.
        config: Training options.
        output_dir: Folder for checkpoints, history and the trained model.
        forward_dynamics: Forward dynamics model that belongs to the corpus' latent actions; it stays frozen.
        frames: Frames of the corpus' episodes in its order, at the size of `forward_dynamics`.
        held_out: Rows of the corpus to validate on, and not to train on, every `config.validate_every` steps: loss and
            boundary rates.
        resume: Go on with the run that is in `output_dir`.
        overwrite: Replace it.

    Raises:
        ValueError: If only one of `forward_dynamics` and `frames` is given, the corpus' latent actions are of another
            width, its card has no statistics, or `model` or `forward_dynamics` is of another latent action model.
    """
    if (forward_dynamics is None) != (frames is None):
        raise ValueError("the reconstruction loss takes both forward_dynamics and frames; give both or neither")
    if corpus_info.latent_dim != model.config.latent_dim:
        raise ValueError(
            f"the corpus' latent actions have {corpus_info.latent_dim} numbers, "
            f"the model takes {model.config.latent_dim}; make the model with latent_dim of the corpus"
        )
    held = _values(None if corpus_info.codebook is None else len(corpus_info.codebook))
    taken = _values(model.config.codebook_size if model.config.is_discrete else None)
    if held != taken:
        raise ValueError(f"the corpus has {held}, the model takes {taken}; make the model with new_hilam")
    if model.config.idm_fingerprint is None:
        model.config.idm_fingerprint = corpus_info.model_fingerprint
    _check_partners(model, corpus_info, forward_dynamics)
    if not model.config.is_discrete:
        _set_statistics(model, corpus_info)
    sequences = LatentSequences(corpus)
    sequences.check_finite()
    dataset: Dataset[Any] = sequences
    collate: Callable[[Any], dict[str, Tensor]] = collate_latent_actions
    if frames is not None:
        drawn = ReconstructionFrames(corpus, frames, model.config.num_reconstruction_steps)
        dataset = SequencesToReconstruct(sequences, drawn)
        collate = CollateWithFrames(drawn)
    kept_out = set(held_out)
    with open_run_folder(output_dir, resume=resume, overwrite=overwrite, writes=WRITES) as folder:
        result = train(
            HiLAMLoss(model, forward_dynamics),
            Rows(dataset, [row for row in range(len(corpus)) if row not in kept_out]),
            config,
            collate_fn=collate,
            output_dir=folder,
            held_out=Rows(dataset, sorted(kept_out)) if kept_out else None,
            rate_multiplier=stage_rates(config),
            description="HiLAM",
        )
        result.note_in(model.config)
        save_model(model, folder.path / "hilam")
    return dataclasses.replace(result, model=model)


def _check_partners(model: HiLAMModel, info: CorpusInfo, forward_dynamics: ForwardDynamicsModel | None) -> None:
    check_same_idm("the corpus", info.model_fingerprint, "the HiLAM model", model.config.idm_fingerprint)
    if forward_dynamics is not None:
        fingerprint = idm_fingerprint(forward_dynamics)
        check_same_idm("the corpus", info.model_fingerprint, "the forward dynamics model", fingerprint)


def _values(codebook_size: int | None) -> str:
    return "floats" if codebook_size is None else f"codes from 0 to {codebook_size - 1}"


def _set_statistics(model: HiLAMModel, corpus_info: CorpusInfo) -> None:
    if corpus_info.mean is None or corpus_info.std is None:
        raise ValueError("the corpus' card has no statistics (mean, std); write the corpus with CorpusWriter")
    model.set_latent_statistics(torch.tensor(corpus_info.mean), torch.tensor(corpus_info.std))


def collate_latent_actions(sequences: Sequence[Tensor]) -> dict[str, Tensor]:
    """Pads sequences (T_i, D) to HiLAM's inputs: `latent_actions` (B, T, D) and `attention_mask` (B, T)."""
    batch = collate_sequences(sequences)
    return {"latent_actions": batch["latents"], "attention_mask": batch["attention_mask"]}


class CollateWithFrames:
    """Pads sequences to HiLAM's inputs and adds the frames of the time steps of the reconstruction loss.

    The steps are drawn here and not in the model, so that no other frame is read; those of a sequence depend on its own
    key alone.
    """

    def __init__(self, frames: ReconstructionFrames):
        self.frames = frames

    def __call__(self, items: Sequence[tuple[Tensor, SampleKey]]) -> dict[str, Tensor]:
        sequences, keys = zip(*items, strict=True)
        return {**collate_latent_actions(sequences), **self.frames.draw(keys)}
