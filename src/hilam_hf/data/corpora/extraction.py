"""From videos to latent actions, and from latent actions to skills: the two corpora, written as models see the data."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tqdm.auto import tqdm

from ...files import sampled_hash
from ...fingerprint import weights_fingerprint
from ...models.hilam import HiLAMModel
from ...models.latent_actions.batch_size import BatchSize, resolve_batch_size
from ...models.latent_actions.dynamics import InverseDynamicsModel
from ...models.latent_actions.pair_encoding import join_pieces
from ...models.latent_actions.partners import check_same_idm
from ..episodes import Episode, RejectedVideo, resolve_stride
from .frame_batches import EpisodeFrames, send_ahead
from .info import CorpusInfo
from .writer import CorpusWriter

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
    batch_size: BatchSize = "auto",
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
) -> ExtractionResult:
    """Runs an inverse dynamics model over videos and writes the latent-action corpus.

    A video that turns out to be damaged, has no pair of frames at the stride, or gives NaN or infinite values is set
    aside and the run goes on; an interrupted run continues with `resume=True`. Videos are decoded in a background
    thread, ahead of the computation; memory does not grow with the length of a video.

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
        batch_size: Frames computed at a time, short videos together; "auto": as many as memory allows, fewer when it
            runs out.
        overwrite: Replace a corpus that is there.
        resume: Continue an interrupted run. Rows of videos that were replaced, deleted or described otherwise since are
            dropped, and those of videos that are there computed again.
        progress: Show a progress bar.

    Raises:
        ValueError: If no video can be used, the folder holds something else, or `resume` finds rows of another model.
        FileNotFoundError: If a video is gone.
        torch.OutOfMemoryError: If `batch_size` frames don't fit; with "auto", if not even one does.
    """
    info = CorpusInfo(
        model=model_name,
        model_fingerprint=weights_fingerprint(idm),
        latent_dim=idm.config.latent_dim,
        stride=stride,
        stride_seconds=stride_seconds,
        codebook=None if idm.codebook is None else idm.codebook.tolist(),
    )
    rejected: list[RejectedVideo] = []
    with CorpusWriter(folder, info, overwrite=overwrite, resume=resume) as writer:
        splits = {each.id: "validation" if each.id in validation_ids else "train" for each in episodes}
        if resume:
            there = [each for each in episodes if writer.has(each.id)]
            writer.drop_stale({each.id: _made_from(each, splits[each.id]) for each in there})
        todo = [episode for episode in episodes if not writer.has(episode.id)]
        strides = [resolve_stride(episode.fps, frames=stride, seconds=stride_seconds) for episode in todo]
        bar = tqdm(total=len(todo), desc="latent actions", unit="video", disable=not progress, dynamic_ncols=True)
        with bar, closing(encode_episodes(idm, todo, strides, batch_size)) as results:
            for episode, k, latents in zip(todo, strides, results, strict=True):
                bar.update()
                if isinstance(latents, RejectedVideo):
                    rejected.append(latents)
                    continue
                split = splits[episode.id]
                writer.add(_row(episode, k, latents, Path(root)), split, made_from=_made_from(episode, split))
        if not writer.ids:
            raise ValueError(f"none of the {len(episodes)} videos can be used; the first: {rejected[0].reason}")
    for video in rejected:
        logger.warning("set aside %s: %s", video.path, video.reason)
    return ExtractionResult(folder=Path(folder), info=writer.info, rejected=rejected)


def encode_episodes(
    idm: InverseDynamicsModel, episodes: Sequence[Episode], strides: Sequence[int], batch_size: BatchSize = "auto"
) -> Generator[torch.Tensor | RejectedVideo, None, None]:
    """Latent actions of video files: decoded in a background thread, short videos computed together.

    Args:
        idm: Inverse dynamics model, on the device to use. It is put in evaluation mode.
        episodes: The videos.
        strides: k of each, in frames.
        batch_size: Frames computed at a time; see `resolve_batch_size`.

    Yields:
        For each video in turn its latent actions (T - k, D) on the CPU, or why it is set aside. Close the generator to
        end the thread early.

    Raises:
        FileNotFoundError: If a video is gone.
        torch.OutOfMemoryError: If `batch_size` frames don't fit; with "auto", if not even one does.
    """
    if not episodes:
        return
    idm.eval()
    size = resolve_batch_size(idm, batch_size)
    source = EpisodeFrames(episodes, strides, idm.config.image_size)
    ready = 0
    with closing(send_ahead(source.batches(size), idm.device)) as batches:
        encoded = idm.encode_batches(batches, size, halve=batch_size == "auto")
        for number, parts in groupby(encoded, key=itemgetter(0)):
            # A video has all its latents only when those of a later one come, and by then is known to be rejected.
            latents = join_pieces(part for _, part in parts).cpu()
            yield from (_set_aside(source, video) for video in range(ready, number))
            if number in source.rejected:
                yield _set_aside(source, number)
            else:
                yield latents if latents.isfinite().all() else RejectedVideo(episodes[number].path, _NOT_FINITE)
            ready = number + 1
    yield from (_set_aside(source, video) for video in range(ready, len(episodes)))


_NOT_FINITE = (
    "its latent actions have NaN or infinite values: look at its frames; where this befalls every video, the model's "
    "weights or its precision are at fault"
)


def _set_aside(source: EpisodeFrames, video: int) -> RejectedVideo:
    return RejectedVideo(source.episodes[video].path, source.rejected[video])


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


def _made_from(episode: Episode, split: str) -> str:
    """What a row depends on besides the model: the video file, and what its metadata say."""
    told = [sampled_hash(episode.path), episode.source, episode.language, episode.fps, split]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def extract_skill_corpus(
    model: HiLAMModel,
    splits: Mapping[str, Dataset],
    corpus_info: CorpusInfo,
    folder: str | Path,
    *,
    model_name: str,
    batch_size: int = 16,
    overwrite: bool = False,
    resume: bool = False,
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
        resume: Continue an interrupted run.
        progress: Show a progress bar.

    Raises:
        ValueError: If the model was trained on latent actions of another model than the corpus'.
    """
    check_same_idm("the corpus", corpus_info.model_fingerprint, "the HiLAM model", model.config.idm_fingerprint)
    widths, source = model.config.backbone.d_model, corpus_info.fingerprint or ""
    info = dataclasses.replace(
        corpus_info,
        kind="latent-skills",
        skill_model=model_name,
        skill_fingerprint=weights_fingerprint(model),
        skill_dims={stage: widths[stage - 1] for stage in range(1, model.config.num_stages + 1)},
    )
    model.eval()
    with CorpusWriter(folder, info, overwrite=overwrite, resume=resume) as writer:
        if resume:
            # Rows of another state of the latent-action corpus.
            writer.drop_stale({episode: source for corpus in splits.values() for episode in corpus["id"]})
        todo = {split: _without(corpus, writer.ids) for split, corpus in splits.items()}
        total = sum(len(corpus) for corpus in todo.values())
        with tqdm(total=total, desc="skills", unit="episode", disable=not progress, dynamic_ncols=True) as bar:
            for split, corpus in todo.items():
                for rows in corpus.iter(batch_size):
                    for row in _with_skills(model, rows):
                        writer.add(row, split, made_from=source)
                        bar.update()
    return ExtractionResult(folder=Path(folder), info=writer.info, rejected=[])


def _without(corpus: Dataset, ids: Collection[str]) -> Dataset:
    """The rows of a corpus whose episodes are not among `ids`."""
    return corpus.select([number for number, episode in enumerate(corpus["id"]) if episode not in ids])


def _with_skills(model: HiLAMModel, batch: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Rows of a latent-action corpus, given as columns, with boundaries and skills added."""
    dtype = torch.int64 if model.config.is_discrete else torch.float32
    sequences = [torch.tensor(latents, dtype=dtype) for latents in batch["latent_actions"]]
    for index, extraction in enumerate(model.extract_skills(sequences)):
        row = {name: column[index] for name, column in batch.items()}
        for stage in range(1, extraction.num_stages + 1):
            row[f"stage{stage}_boundaries"] = extraction.stages[stage].boundaries
            row[f"stage{stage}_skills"] = extraction.stages[stage].skills
        yield row
