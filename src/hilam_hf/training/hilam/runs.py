"""HiLAM from a corpus: what `hilam train hilam` and `examples/pretrain_hilam.py` do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...data.corpora.corpus import load_corpus
from ...data.corpora.info import CorpusInfo
from ...data.episodes import split_rows
from ...data.samples.frame_store import FrameStore, VideoSource
from ...files import path_inside
from ...models.latent_actions.auto import AutoForwardDynamicsModel, load_latent_action_model
from ..config import TrainingConfig
from ..held_out import check_held_out
from ..loop import TrainingResult
from ..processes import process_state
from ..run_folder import open_run_folder
from .models import new_hilam
from .train import WRITES, train_hilam


def train_hilam_on_corpus(
    corpus: str,
    config: TrainingConfig,
    *,
    output_dir: str | Path,
    preset: str = "tiny",
    model_options: Mapping[str, Any] | None = None,
    idm: str | None = None,
    fdm: str | None = None,
    videos: str | Path | None = None,
    held_out_fraction: float = 0.0,
    resume: bool = False,
    overwrite: bool = False,
) -> TrainingResult:
    """Trains a new HiLAM on a corpus of latent actions and saves it as `output_dir/hilam`.

    Args:
        corpus: Latent-action corpus: Hub id or folder.
        config: Training options.
        output_dir: Folder for checkpoints, history and the trained model.
        preset: Size of the model, of `HiLAMConfig.preset`.
        model_options: Further fields of `HiLAMConfig`, and `routing`.
        idm: The inverse dynamics model that made the corpus, to keep in the checkpoint: Hub id or folder.
        fdm: Forward dynamics model of the reconstruction loss: Hub id or folder. It needs `videos`.
        videos: Folder of the videos that the corpus was made from.
        held_out_fraction: Fraction of the episodes, by a hash of their ids, to validate on every
            `config.validate_every` steps: loss and boundary rates.
        resume: Go on with the run that is in `output_dir`.
        overwrite: Replace it.

    Raises:
        ValueError: Only one of `fdm` and `videos` is given, an option is not valid, or the models don't fit the corpus.
        OSError: The corpus or a model can't be had, or the disk is full.
    """
    if (fdm is None) != (videos is None):
        raise ValueError("the reconstruction loss takes both --fdm and --videos; give both or neither")
    check_held_out(config, held_out_fraction)
    inputs = [corpus, idm, fdm, videos]
    with open_run_folder(output_dir, resume=resume, overwrite=overwrite, inputs=inputs, writes=WRITES) as folder:
        info = CorpusInfo.from_card(corpus)
        own = None if idm is None else load_latent_action_model(idm)[0]
        model = new_hilam(info, preset, idm=own, seed=config.seed, **(model_options or {}))
        rows, forward_dynamics, frames = load_corpus(corpus), None, None
        if fdm is not None and videos is not None:
            forward_dynamics = AutoForwardDynamicsModel.from_pretrained(fdm)
            paths = [path_inside(videos, row["video"], where=f"{corpus}: episode {row['id']!r}") for row in rows]
            sources = [VideoSource(str(path), row["num_frames"]) for path, row in zip(paths, rows, strict=True)]
            shown = process_state().is_main_process
            frames = FrameStore(sources, forward_dynamics.config.image_size, progress=shown)
        return train_hilam(
            model,
            rows,
            info,
            config,
            output_dir=folder,
            forward_dynamics=forward_dynamics,
            frames=frames,
            held_out=split_rows(list(rows["id"]), held_out_fraction)[1],
        )
