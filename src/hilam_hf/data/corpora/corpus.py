"""Latent-action and latent-skill corpora: one row an episode, as Parquet that `load_dataset` reads with no custom code.

Shapes: T frames, k stride, N latent actions (T - k), D their width; S_s segments of stage s, D_s the width of a skill.
"""

from __future__ import annotations

import dataclasses
import glob
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from numpy.typing import NDArray

from ..hub_folder import dataset_folder
from .checks import check_corpus
from .info import CARD_FILE, CorpusInfo, CorpusKind
from .rows import VideoColumn, to_numpy
from .shards import SHARDS, checked_shards
from .statistics import RunningStatistics
from .writer import SPLITS, CorpusWriter

Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class CorpusStatistics:
    """What `corpus_statistics` finds.

    Attributes:
        mean: (D,) of the latent actions, float64.
        std: (D,), the population's.
        num_episodes: Rows.
        num_frames: Video frames.
        num_latents: Latent actions.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    num_episodes: int
    num_frames: int
    num_latents: int


def write_latent_action_corpus(
    folder: str | Path,
    rows: Rows | Mapping[str, Rows],
    *,
    info: CorpusInfo,
    overwrite: bool = False,
    resume: bool = False,
    video: VideoColumn = "path",
) -> CorpusInfo:
    """Writes a latent-action corpus, going through `rows` once.

    Args:
        folder: Where it goes: absent, empty, or (with `overwrite`) a corpus that is replaced once all is written.
        rows: Episodes (keys: see `hilam_hf.data.corpora.rows.check_row`), or episodes by split ("train", "validation").
        info: Origin of the corpus.
        overwrite: Replace a corpus, and drop an interrupted run.
        resume: Continue an interrupted run; rows that it wrote are passed over. To also avoid computing them, use
            `CorpusWriter` and its `has`.
        video: "path" stores what a row says; "embed" stores the video file in a `Video` column.

    Returns:
        `info`, completed with counts and statistics.

    Raises:
        ValueError: A row or option does not fit, or the folder holds something else.
        OSError: The disk is full; what was written is kept for `resume=True`.

    Example:
        >>> info = CorpusInfo(model="org/idm", revision="v1", latent_dim=64, stride=15)
        >>> row = {"id": "a", "fps": 30, "num_frames": 120, "latent_actions": latents}  # (105, 64)
        >>> write_latent_action_corpus("corpus", [row], info=info).num_latents
        105
    """
    return _write(folder, rows, info, "latent-actions", overwrite=overwrite, resume=resume, video=video)


def write_skill_corpus(
    folder: str | Path,
    rows: Rows | Mapping[str, Rows],
    *,
    info: CorpusInfo,
    overwrite: bool = False,
    resume: bool = False,
    video: VideoColumn = "path",
) -> CorpusInfo:
    """Writes a latent-skill corpus: the columns of a latent-action corpus and, for each stage s >= 1, its segments.

    A row adds `stage{s}_boundaries`, bool (N,) at the resolution of the latent actions (the unfolded boundary of
    eq. 5), and `stage{s}_skills`, (S_s, D_s), one vector a segment. Where `info.skill_dims` is empty, the first row
    decides the stages. Everything else is as in `write_latent_action_corpus`.
    """
    by_split = _by_split(rows)
    if not info.skill_dims:
        info, by_split = _with_stages_of_first_row(info, by_split)
    return _write(folder, by_split, info, "latent-skills", overwrite=overwrite, resume=resume, video=video)


def load_corpus(
    path_or_id: str | Path, split: str = "train", *, revision: str | None = None, cache_dir: str | Path | None = None
) -> Dataset:
    """Loads one split of a corpus, after comparing its files with the card's fingerprint.

    Args:
        path_or_id: Corpus folder, or Hub id of a dataset; with `HF_HUB_OFFLINE=1` one that the Hub's cache holds.
        split: "train" or "validation".
        revision: Branch, tag or commit on the Hub.
        cache_dir: Where `datasets` keeps its Arrow copy.

    Raises:
        FileNotFoundError: There is neither such a folder nor such a dataset, or data files are missing.
        ValueError: It is not a corpus, has no such split, or its files or rows are not what its card says.
    """
    name = str(path_or_id)
    folder = dataset_folder(path_or_id, revision=revision, only=[CARD_FILE, SHARDS])
    info = _checked_info(folder, split, name)
    shards = checked_shards(folder, info, split, name)
    # The name becomes part of the name of the Arrow copy, so that other contents never get an older copy.
    try:
        rows = load_dataset(
            "parquet",
            name=info.fingerprint,
            data_files={split: [glob.escape(str(shard)) for shard in shards]},
            split=split,
            cache_dir=None if cache_dir is None else str(cache_dir),
        )
    except DatasetGenerationError as error:
        raise ValueError(f"{name}, split {split}: cannot be read ({error.__cause__})") from error
    check_corpus(rows, info, split, name)
    return rows


def corpus_statistics(dataset: Dataset) -> CorpusStatistics:
    """Statistics of the latent actions of a corpus, in bounded memory.

    Raises:
        ValueError: The dataset has no rows.
    """
    dim = dataset.features["latent_actions"].feature.length
    statistics = RunningStatistics(dim)
    for index in range(len(dataset)):
        statistics.update(latent_actions_array(dataset, index))
    frames = sum(dataset.select_columns(["num_frames"])[:]["num_frames"])
    return CorpusStatistics(statistics.mean, statistics.std, len(dataset), frames, statistics.count)


def latent_actions_array(dataset: Dataset, index: int) -> NDArray[Any]:
    """Latent actions of one episode without a copy.

    Args:
        dataset: A corpus, also after `select`, `filter` or `shuffle`.
        index: Row in [0, number of rows).

    Returns:
        (N, D), float32 or int32 codes, a read-only view of the Arrow data (`torch.tensor(...)` copies it).
    """
    return vectors_array(dataset, "latent_actions", index)


def vectors_array(dataset: Dataset, column: str, index: int) -> NDArray[Any]:
    """One episode's vectors of any column of them (`latent_actions`, `stage{s}_skills`, `actions`), without a copy.

    Returns:
        (rows, width), float32 except for codes, read-only.

    Raises:
        IndexError: There is no such row.
        ValueError: The column is not there or holds no vectors of one width.
    """
    if not 0 <= index < len(dataset):
        raise IndexError(f"row {index} is outside 0..{len(dataset) - 1}")
    table = dataset.data
    kind = table.schema.field(column).type if column in table.column_names else None
    if not (kind is not None and pa.types.is_list(kind) and pa.types.is_fixed_size_list(kind.value_type)):
        raise ValueError(f"column {column!r}: expected lists of vectors of one width; columns: {dataset.column_names}")
    # `datasets` offers no public way to a row's Arrow value under an indices mapping that does not copy.
    mapping = dataset._indices
    row = index if mapping is None else mapping.column(0)[index].as_py()
    vectors: pa.FixedSizeListArray = table.column(column)[row].values
    return vectors.flatten().to_numpy(zero_copy_only=True).reshape(-1, kind.value_type.list_size)


def unpack_boundaries(row: Mapping[str, Any], stage: int) -> NDArray[np.bool_]:
    """Boundaries b̄^s of one episode, at the resolution of its latent actions.

    Args:
        row: A row of a skill corpus.
        stage: s, from 1.

    Returns:
        bool (N,); True where a segment starts, as it does at 0.

    Raises:
        ValueError: The row has no such stage, or its bits do not fit.
    """
    packed = row.get(f"stage{stage}_boundaries")
    if packed is None:
        raise ValueError(f"stage {stage}: the row has {_stages_of(row)}")
    num_latents = int(row["num_latents"])
    bits = np.frombuffer(bytes(packed), dtype=np.uint8)
    # The numpy format of `datasets` drops trailing zero bytes of binary columns.
    missing = (num_latents + 7) // 8 - len(bits)
    if missing > 0:
        bits = np.concatenate([bits, np.zeros(missing, dtype=np.uint8)])
    boundaries = np.unpackbits(bits, count=num_latents, bitorder="little").astype(bool)
    if not boundaries[0]:
        raise ValueError(f"episode {row['id']!r}: stage {stage}: its first latent action does not start a segment")
    return boundaries


def unfold_skills(row: Mapping[str, Any], stage: int) -> NDArray[np.float32]:
    """Skills of one episode, repeated over their segments (eq. 5).

    `k_t = cumsum(b̄)_t` numbers the segment of latent action t, and `z̄_t = z_{k_t}`.

    Args:
        row: A row of a skill corpus.
        stage: s, from 1.

    Returns:
        float32 (N, D_s).

    Raises:
        ValueError: The row has no such stage, or a different number of segments and skills.
    """
    boundaries = unpack_boundaries(row, stage)
    skills = np.asarray(to_numpy(row[f"stage{stage}_skills"]), dtype=np.float32)
    segments = np.cumsum(boundaries) - 1
    if segments[-1] + 1 != len(skills):
        raise ValueError(
            f"episode {row['id']!r}: stage {stage} has {segments[-1] + 1} segments but {len(skills)} skills"
        )
    return skills[segments]


def _write(
    folder: str | Path,
    rows: Rows | Mapping[str, Rows],
    info: CorpusInfo,
    kind: CorpusKind,
    *,
    overwrite: bool,
    resume: bool,
    video: VideoColumn,
) -> CorpusInfo:
    skill_dims = info.skill_dims if kind == "latent-skills" else {}
    info = dataclasses.replace(info, kind=kind, skill_dims=skill_dims)
    with CorpusWriter(folder, info, overwrite=overwrite, resume=resume, video=video) as writer:
        continued = frozenset(writer.ids)
        for split, episodes in _by_split(rows).items():
            for row in episodes:
                if row.get("id") not in continued:
                    writer.add(row, split)
    return writer.info


def _by_split(rows: Rows | Mapping[str, Rows]) -> dict[str, Rows]:
    if not isinstance(rows, Mapping):
        return {"train": rows}
    unknown = sorted(set(rows) - set(SPLITS))
    if unknown:
        raise ValueError(f"splits: got {', '.join(unknown)}, expected any of {', '.join(SPLITS)}")
    return dict(rows)


def _with_stages_of_first_row(info: CorpusInfo, by_split: dict[str, Rows]) -> tuple[CorpusInfo, dict[str, Rows]]:
    """Looks at the first row without losing it, since rows may come from a generator."""
    for split, rows in by_split.items():
        iterator = iter(rows)
        first = next(iterator, None)
        if first is None:
            by_split[split] = ()
            continue
        by_split[split] = itertools.chain([first], iterator)
        stages = sorted(int(match[1]) for key in first if (match := re.fullmatch(r"stage(\d+)_skills", key)))
        dims = {stage: int(to_numpy(first[f"stage{stage}_skills"]).shape[-1]) for stage in stages}
        if not dims:
            raise ValueError(f"episode {first.get('id')!r}: a skill corpus needs stage1_boundaries and stage1_skills")
        return dataclasses.replace(info, kind="latent-skills", skill_dims=dims), by_split
    raise ValueError("a skill corpus needs at least one episode, got no rows")


def _checked_info(folder: Path, split: str, name: str) -> CorpusInfo:
    if not (folder / CARD_FILE).is_file():
        interrupted = (folder / ".incomplete").exists()
        reason = "its writing was interrupted: run it again with resume" if interrupted else f"it has no {CARD_FILE}"
        raise ValueError(f"{name}: not a complete corpus folder: {reason}")
    info = CorpusInfo.from_card(folder)
    if split not in info.splits:
        raise ValueError(f"{name}: has no split {split!r}; its splits are {', '.join(info.splits)}")
    return info


def _stages_of(row: Mapping[str, Any]) -> str:
    stages = sorted(int(match[1]) for key in row if (match := re.fullmatch(r"stage(\d+)_boundaries", key)))
    return f"stages {', '.join(map(str, stages))}" if stages else "no stages: it is not from a skill corpus"
