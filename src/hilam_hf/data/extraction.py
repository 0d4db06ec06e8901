"""From videos to latent actions, and from latent actions to skills: the two corpora, written as models see the data."""

import dataclasses
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from ..models.dynamics import InverseDynamicsModel
from ..models.hilam import HiLAMModel
from ..video import VideoError, VideoReader
from .corpora import CorpusInfo, CorpusWriter
from .episodes import Episode, RejectedVideo, resolve_stride

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExtractionResult:
    """What an extraction wrote.

    Attributes:
        folder: The corpus, loadable with `datasets.load_dataset`.
        info: What its card says.
        rejected: Videos that were set aside, with the reason.
    """

    folder: Path
    info: CorpusInfo
    rejected: list[RejectedVideo]


def extract_latent_actions(
    idm: InverseDynamicsModel,
    episodes: Sequence[Episode],
    folder: str | Path,
    *,
    root: str | Path,
    model_name: str,
    stride: int | None = None,
    stride_seconds: float | None = None,
    validation_ids: Collection[str] = (),
    chunk_size: int = 128,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
) -> ExtractionResult:
    """Runs an inverse dynamics model over videos and writes the latent-action corpus.

    A video that turns out to be damaged, or has no pair of frames at the stride, is set aside and the run goes on; an
    interrupted run continues with `resume=True`. Memory does not grow with the length of a video.

    Args:
        idm: Inverse dynamics model, on the device to use.
        episodes: Videos, as `scan_videos` found them.
        folder: Where the corpus goes.
        root: Folder that the corpus' `video` paths are relative to.
        model_name: Hub id or folder of `idm`, for the card.
        stride: k in frames; or
        stride_seconds: k in seconds, which gives each episode its own k from its rate.
        validation_ids: Episodes that go to the split "validation", which counts towards no statistics; the others go to
            "train".
        chunk_size: Frames decoded and encoded at a time.
        overwrite: Replace a corpus that is there.
        resume: Continue an interrupted run.
        progress: Show a progress bar.

    Raises:
        ValueError: If no video can be used, or the folder holds something else.
    """
    info = CorpusInfo(model=model_name, latent_dim=idm.config.latent_dim, stride=stride, stride_seconds=stride_seconds)
    rejected: list[RejectedVideo] = []
    idm.eval()
    with CorpusWriter(folder, info, overwrite=overwrite, resume=resume) as writer:
        for episode in tqdm(episodes, desc="latent actions", unit="video", disable=not progress, dynamic_ncols=True):
            if writer.has(episode.id):
                continue
            k = resolve_stride(episode.fps, frames=stride, seconds=stride_seconds)
            if episode.num_frames <= k:
                reason = f"it holds {episode.num_frames} frames; a latent action spans {k}: use a smaller stride"
                rejected.append(RejectedVideo(episode.path, reason))
                continue
            try:
                latents = _encode_file(idm, episode, k, chunk_size)
            except VideoError as error:
                rejected.append(RejectedVideo(episode.path, error.reason))
                continue
            split = "validation" if episode.id in validation_ids else "train"
            writer.add(_row(episode, k, latents, Path(root)), split)
        if not writer.ids:
            raise ValueError(f"none of the {len(episodes)} videos can be used; the first: {rejected[0].reason}")
    for video in rejected:
        logger.warning("set aside %s: %s", video.path, video.reason)
    return ExtractionResult(folder=Path(folder), info=writer.info, rejected=rejected)


def _encode_file(idm: InverseDynamicsModel, episode: Episode, stride: int, chunk_size: int) -> torch.Tensor:
    reader = VideoReader(episode.path, idm.config.image_size)
    chunks = (frames.to(torch.float32) / 255 for frames in reader.chunks(chunk_size))
    return torch.cat([latents.cpu() for latents in idm.encode_chunks(chunks, stride)])


def _row(episode: Episode, stride: int, latents: torch.Tensor, root: Path) -> dict[str, Any]:
    return {
        "id": episode.id,
        "source": episode.source,
        "language": episode.language,
        "fps": episode.fps,
        # A container may announce more frames than it holds.
        "num_frames": len(latents) + stride,
        "stride": stride,
        "latent_actions": latents,
        "video": Path(episode.path).relative_to(root).as_posix(),
    }


def extract_skill_corpus(
    model: HiLAMModel,
    splits: Mapping[str, Dataset],
    corpus_info: CorpusInfo,
    folder: str | Path,
    *,
    model_name: str,
    batch_size: int = 16,
    overwrite: bool = False,
    progress: bool = True,
) -> ExtractionResult:
    """Runs HiLAM over a latent-action corpus and writes the latent-skill corpus.

    Args:
        model: HiLAM, on the device to use.
        splits: Splits of the latent-action corpus by name.
        corpus_info: What its card says.
        folder: Where the skill corpus goes.
        model_name: Hub id or folder of `model`, for the card.
        batch_size: Episodes at a time.
        overwrite: Replace a corpus that is there.
        progress: Show a progress bar.
    """
    widths = model.config.backbone.d_model
    info = dataclasses.replace(
        corpus_info,
        kind="latent-skills",
        skill_model=model_name,
        skill_dims={stage: widths[stage - 1] for stage in range(1, model.config.num_stages + 1)},
    )
    model.eval()
    with CorpusWriter(folder, info, overwrite=overwrite) as writer:
        total = sum(len(corpus) for corpus in splits.values())
        with tqdm(total=total, desc="skills", unit="episode", disable=not progress, dynamic_ncols=True) as bar:
            for split, corpus in splits.items():
                for rows in corpus.iter(batch_size):
                    for row in _with_skills(model, rows):
                        writer.add(row, split)
                        bar.update()
    return ExtractionResult(folder=Path(folder), info=writer.info, rejected=[])


def _with_skills(model: HiLAMModel, batch: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Rows of a latent-action corpus, given as columns, with boundaries and skills added."""
    sequences = [torch.from_numpy(np.asarray(latents, dtype=np.float32)) for latents in batch["latent_actions"]]
    for index, extraction in enumerate(model.extract_skills(sequences)):
        row = {name: column[index] for name, column in batch.items()}
        for stage in range(1, extraction.num_stages + 1):
            row[f"stage{stage}_boundaries"] = extraction.stages[stage].boundaries
            row[f"stage{stage}_skills"] = extraction.stages[stage].skills
        yield row
