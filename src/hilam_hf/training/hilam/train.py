"""Training of HiLAM on a latent-action corpus."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset as Corpus
from torch import Tensor, nn
from torch.utils.data import Dataset

from ...data.corpora.info import CorpusInfo
from ...data.samples.frame_store import FrameStore
from ...data.samples.reconstruction import ReconstructionFrames
from ...models.hilam import HiLAMModel, HiLAMOutput
from ...models.latent_actions.dynamics import ForwardDynamicsModel
from ...models.latent_actions.partners import check_same_idm, idm_fingerprint
from ...models.numerics import MeanOverParts
from ..config import TrainingConfig
from ..loop import TrainingResult, train
from ..optimization import RateMultiplier
from ..rows import Rows
from ..run_folder import RunFolder, open_run_folder
from ..saving import save_model
from .data import CollateWithFrames, LatentSequences, SequencesToReconstruct, collate_latent_actions

WRITES = ("hilam",)


@dataclass(kw_only=True)
class HiLAMTrainingConfig(TrainingConfig):
    """Options of HiLAM's training besides those of every training run.

    Attributes:
        stage_rates: Factors of the learning rate for each stage of the H-Net, from the outermost in, the last for its
            innermost network. H-Net's authors raise it for outer stages, which see more tokens and are narrower. None:
            the same rate everywhere.
    """

    stage_rates: list[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stage_rates is not None and not all(
            isinstance(each, (int, float)) and each > 0 for each in self.stage_rates
        ):
            raise ValueError(f"stage_rates must be numbers above 0, such as [3.0, 1.7, 0.9], got {self.stage_rates}")


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
    rates = config.stage_rates if isinstance(config, HiLAMTrainingConfig) else None
    with open_run_folder(output_dir, resume=resume, overwrite=overwrite, writes=WRITES) as folder:
        result = train(
            HiLAMLoss(model, forward_dynamics),
            Rows(dataset, [row for row in range(len(corpus)) if row not in kept_out]),
            config,
            collate_fn=collate,
            output_dir=folder,
            held_out=Rows(dataset, sorted(kept_out)) if kept_out else None,
            rate_multiplier=None if rates is None else stage_multiplier(model, rates),
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


def stage_multiplier(model: HiLAMModel, rates: Sequence[float]) -> RateMultiplier:
    """Factor of a parameter's learning rate by the depth of its stage in the H-Net.

    Raises:
        ValueError: There are more or fewer rates than stages.
    """
    innermost = len(model.config.target_ratios)
    if len(rates) != innermost + 1:
        raise ValueError(
            f"stage_rates: got {len(rates)}, expected {innermost + 1}: one a stage and one for the innermost network"
        )
    # Each stage holds the next one under this name, and the innermost one its layers.
    return lambda name: rates[min(name.split(".").count("main_network"), innermost)]
