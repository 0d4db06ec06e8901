"""Writing a corpus in bounded memory, whole or not at all, and without losing an interrupted run.

Rows go to small finished Parquet files in `<folder>/.incomplete`. Only `close()` joins them into shards, makes the card
and puts both in place. After a crash the finished files are still there, and the next run continues with `resume=True`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...files import atomic_path, disk_errors, write_text
from ...locks import LOCK_FILE, FolderLock
from .info import CARD_FILE, CorpusInfo, dataset_card
from .parts import MADE_FROM, PARQUET_OPTIONS, drop_stale_rows, grouped, read_part, write_part
from .rows import VideoColumn, check_row, corpus_features, rows_to_table
from .segment_lengths import SegmentLengthCounts
from .shards import SHARDS, shards_fingerprint
from .statistics import RunningStatistics

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation")

_STAGING = ".incomplete"
_INFO = "info.json"
_FORMER = "former-data"
# Left alone, so that a clone of a Hub dataset repository can be written to.
_REPOSITORY_FILES = frozenset({".git", ".gitattributes", ".gitignore", ".cache", _STAGING, LOCK_FILE})


class CorpusWriter:
    """Writes the rows of one corpus; until it is closed, no other writer writes into the folder.

    Used as a context manager it closes at the end of the block; when the block fails, what was added is kept for a
    later run with `resume=True`, and a corpus that was in the folder before stays as it was.

    Args:
        folder: Where the corpus goes: a folder that is absent, empty or holds a corpus.
        info: Origin of the corpus; counts and statistics are filled in. `kind` and `skill_dims` decide the columns.
        overwrite: Replace the corpus that is there (at the end, in one step) and drop any interrupted run.
        resume: Continue an interrupted run; `has(id)` then knows its rows.
        video: "path" stores what a row says; "embed" stores the video file itself.
        rows_per_group: Rows that are kept in memory before they are written, and the size of a Parquet row group.
        shard_bytes: Size that a shard may reach before the next one is begun.

    Attributes:
        ids: Ids of the episodes that were added, in this run or in the one that is continued.
        info: As given; after `close`, completed with counts and statistics.

    Raises:
        ValueError: The folder holds other files, a corpus (without `overwrite`), or an interrupted run (without
            `resume` or `overwrite`, or of another `info`).
        FolderInUseError: Another writer writes into the folder.

    Example:
        >>> with CorpusWriter("corpus", CorpusInfo(model="org/idm", latent_dim=64, stride=15), resume=True) as writer:
        ...     for episode in episodes:
        ...         if not writer.has(episode.id):
        ...             writer.add({"id": episode.id, "fps": 30, "num_frames": 120, "latent_actions": latents})
    """

    def __init__(
        self,
        folder: str | Path,
        info: CorpusInfo,
        *,
        overwrite: bool = False,
        resume: bool = False,
        video: VideoColumn = "path",
        rows_per_group: int = 64,
        shard_bytes: int = 256 * 1024**2,
    ) -> None:
        if video not in ("path", "embed"):
            raise ValueError(f'video: got {video!r}, expected "path" or "embed"')
        if info.kind == "latent-skills" and not info.skill_dims:
            raise ValueError(
                "CorpusInfo.skill_dims: a skill corpus needs the width of the skills of at least one stage"
            )
        self.folder = Path(folder)
        self.info = info
        self.video: VideoColumn = video
        self.rows_per_group = rows_per_group
        self.shard_bytes = shard_bytes
        self._staging = self.folder / _STAGING
        self._buffers: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        self._lock = FolderLock(self.folder, "a writer of a corpus")
        self._lock.acquire()
        try:
            _check_target(self.folder, overwrite=overwrite)
            self._start(overwrite=overwrite, resume=resume)
            self.ids = self._written_ids()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> CorpusWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._lock.held:
            return
        if kind is None:
            self.close()
            return
        # What stopped the run matters more than that its last rows could not be kept either.
        with contextlib.suppress(OSError):
            self.flush()
        self._leave_nothing_empty()
        self._lock.release()

    def _leave_nothing_empty(self) -> None:
        """Removes what was begun without a single row, so that a mistake leaves no traces."""
        if not any(self._parts(split) for split in SPLITS) and not (self._staging / _FORMER).exists():
            shutil.rmtree(self._staging, ignore_errors=True)

    def has(self, episode_id: str) -> bool:
        """Whether this episode was added, in this run or in the one that is continued."""
        return episode_id in self.ids

    def drop_stale(self, made_from: Mapping[str, str]) -> None:
        """Drops rows of the interrupted run whose episode is gone, or was another when the row was made.

        Args:
            made_from: For each episode that there is, by id, what `add` was told of it. A row that was told nothing, as
                older versions did, is kept, and that is logged.
        """
        for split in SPLITS:
            for part in self._parts(split):
                drop_stale_rows(part, made_from)
        self.ids = self._written_ids()

    def add(self, row: Mapping[str, Any], split: str = "train", *, made_from: str | None = None) -> None:
        """Adds one episode (see `check_row` for its keys).

        Args:
            row: The episode.
            split: "train" or "validation".
            made_from: Says from which file and options the row was made, for `drop_stale` of a later run.

        Raises:
            ValueError: The row does not fit, its id was added before, the split is unknown, or the writer was closed.
            OSError: The disk is full; rows added before are kept.
        """
        self._lock.check_held()
        if split not in SPLITS:
            raise ValueError(f"split: got {split!r}, expected one of {', '.join(SPLITS)}")
        checked = check_row(row, self.info)
        if checked["id"] in self.ids:
            raise ValueError(f"episode {checked['id']!r} was already added to {self.folder}: ids must be unique")
        self.ids.add(checked["id"])
        self._buffers[split].append(checked | {MADE_FROM: made_from})
        if len(self._buffers[split]) >= self.rows_per_group:
            self._flush_split(split)

    def flush(self) -> None:
        """Writes the rows in memory to the interrupted-run folder, where `resume=True` finds them."""
        for split in SPLITS:
            self._flush_split(split)

    def close(self) -> CorpusInfo:
        """Joins everything into shards, writes the card and puts both in place; the writer then writes no more.

        Returns:
            `info`, completed with counts and statistics.

        Raises:
            ValueError: No row was added, or the writer was closed before.
            OSError: The disk is full; the rows are kept for `resume=True`.
        """
        self._lock.check_held()
        try:
            self._finish()
        finally:
            self._lock.release()
        return self.info

    def _finish(self) -> None:
        self.flush()
        if not self._parts("train"):
            raise ValueError(f"{self.folder}: the corpus has no rows in its train split: add at least one episode")
        output = self._staging / "output"
        with disk_errors(self.folder):
            shutil.rmtree(output, ignore_errors=True)
            totals = _Totals(self.info)
            for split in SPLITS:
                self._write_shards(split, output / "data", totals)
            fingerprint = shards_fingerprint(list(output.glob(SHARDS)))
            self.info = dataclasses.replace(totals.completed(), fingerprint=fingerprint)
            self._publish(output)

    def _start(self, *, overwrite: bool, resume: bool) -> None:
        """Leaves a staging folder that belongs to this corpus."""
        mine = {"info": _origin(self.info), "video": self.video}
        self._restore_former_data()
        if any(self._parts(split) for split in SPLITS):
            if overwrite and not resume:
                shutil.rmtree(self._staging)
            elif not resume:
                raise ValueError(
                    f"{self.folder}: an interrupted run left {len(self._written_ids())} episodes here: "
                    "pass resume=True to continue it or overwrite=True to drop it"
                )
            else:
                self._check_same_corpus(mine)
        write_text(self._staging / _INFO, json.dumps(mine, indent=2))

    def _check_same_corpus(self, mine: dict[str, Any]) -> None:
        there = self._recorded() or {}
        then, now = (each.get("info", {}) | {"video": each.get("video")} for each in (there, mine))
        for name in ("model_fingerprint", "skill_fingerprint"):
            if then.get(name) is None and now[name] is not None:
                logger.warning(
                    "%s: the interrupted run does not say its %s (an older version began it): whether its rows are of "
                    "the same model cannot be checked",
                    self.folder,
                    name,
                )
                then[name] = now[name]
        if changed := [f"{name} {then.get(name)!r} -> {now[name]!r}" for name in now if then.get(name) != now[name]]:
            raise ValueError(
                f"{self.folder}: the interrupted run here was of another corpus ({', '.join(changed)}): pass "
                "overwrite=True without resume to drop it, or choose another folder"
            )

    def _restore_former_data(self) -> None:
        """A run that was killed between taking the old shards away and putting the new ones in place."""
        former, data = self._staging / _FORMER, self.folder / "data"
        if former.exists() and not data.exists():
            os.replace(former, data)

    def _recorded(self) -> Any:
        file = self._staging / _INFO
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    def _parts(self, split: str) -> list[Path]:
        return sorted(self._staging.glob(f"{split}-part-*.parquet"))

    def _written_ids(self) -> set[str]:
        ids: set[str] = set()
        for split in SPLITS:
            for part in self._parts(split):
                ids.update(read_part(part, columns=["id"]).column("id").to_pylist())
        return ids

    def _flush_split(self, split: str) -> None:
        rows = self._buffers[split]
        if not rows:
            return
        table = rows_to_table(rows, self.info, self.video)
        table = table.append_column(MADE_FROM, pa.array([row[MADE_FROM] for row in rows], type=pa.string()))
        parts = self._parts(split)
        number = int(parts[-1].stem.rpartition("-")[2]) + 1 if parts else 0
        write_part(table, self._staging / f"{split}-part-{number:06d}.parquet")
        self._buffers[split] = []

    def _write_shards(self, split: str, folder: Path, totals: _Totals) -> None:
        shards = list(grouped(self._parts(split), self.shard_bytes))
        schema = corpus_features(self.info, self.video).arrow_schema
        for number, parts in enumerate(shards):
            shard = folder / f"{split}-{number:05d}-of-{len(shards):05d}.parquet"
            # Content-defined chunks: a changed corpus shares most of its bytes with the last one on the Hub.
            with (
                atomic_path(shard) as temporary,
                pq.ParquetWriter(temporary, schema, use_content_defined_chunking=True, **PARQUET_OPTIONS) as writer,
            ):
                for part in parts:
                    table = read_part(part, columns=schema.names).cast(schema)
                    totals.take(split, table)
                    writer.write_table(table)

    def _publish(self, output: Path) -> None:
        data, former = self.folder / "data", self._staging / _FORMER
        if data.exists():
            shutil.rmtree(former, ignore_errors=True)
            os.replace(data, former)
        try:
            os.replace(output / "data", data)
            write_text(self.folder / CARD_FILE, dataset_card(self.info))
        except OSError:
            shutil.rmtree(data, ignore_errors=True)
            self._restore_former_data()
            raise
        shutil.rmtree(self._staging)


class _Totals:
    """Counts and statistics, taken while the shards are written."""

    def __init__(self, info: CorpusInfo) -> None:
        self.info = info
        self.latents = RunningStatistics(info.latent_dim)
        self.splits: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.segments: Counter[int] = Counter()
        self.segment_lengths = {stage: SegmentLengthCounts() for stage in info.skill_dims}
        self.num_frames = 0
        self.num_latents = 0

    def take(self, split: str, table: pa.Table) -> None:
        self.splits[split] += table.num_rows
        self.sources.update(source for source in table.column("source").to_pylist() if source is not None)
        self.num_frames += sum(table.column("num_frames").to_pylist())
        for chunk in table.column("latent_actions").chunks:
            latents = chunk.flatten().flatten().to_numpy().reshape(-1, self.info.latent_dim)
            self.num_latents += len(latents)
            if split == "train" and self.info.codebook is None:
                self.latents.update(latents)
        if split == "train":
            for stage in self.info.skill_dims:
                self.segments[stage] += sum(
                    len(chunk.flatten()) for chunk in table.column(f"stage{stage}_skills").chunks
                )
                self._take_lengths(stage, table)

    def _take_lengths(self, stage: int, table: pa.Table) -> None:
        packed, sizes = (table.column(name).to_pylist() for name in (f"stage{stage}_boundaries", "num_latents"))
        for bits, size in zip(packed, sizes, strict=True):
            boundaries = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=size, bitorder="little")
            self.segment_lengths[stage].add(boundaries.astype(bool))

    def completed(self) -> CorpusInfo:
        return dataclasses.replace(
            self.info,
            segments=dict(self.segments),
            segment_lengths={stage: vars(counts.summary()) for stage, counts in self.segment_lengths.items()},
            splits={split: self.splits[split] for split in SPLITS if self.splits[split]},
            num_episodes=sum(self.splits.values()),
            num_frames=self.num_frames,
            num_latents=self.num_latents,
            mean=None if self.info.codebook is not None else self.latents.mean.tolist(),
            std=None if self.info.codebook is not None else self.latents.std.tolist(),
            sources=dict(sorted(self.sources.items())),
        )


def _origin(info: CorpusInfo) -> dict[str, Any]:
    """What must agree for rows to belong to one corpus, as JSON gives it back."""
    made_by = ("kind", "model", "revision", "model_fingerprint", "latent_dim", "codebook", "stride", "stride_seconds")
    fields = {key: getattr(info, key) for key in (*made_by, "skill_model", "skill_revision", "skill_fingerprint")}
    return {**fields, "skill_dims": {str(stage): dim for stage, dim in info.skill_dims.items()}}


def _check_target(folder: Path, *, overwrite: bool) -> None:
    contents = sorted(path.name for path in folder.iterdir() if path.name not in _REPOSITORY_FILES)
    if not contents:
        return
    try:
        CorpusInfo.from_card(folder)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"{folder}: holds other files ({', '.join(contents[:5])}), not a corpus, and is not overwritten: "
            "choose an empty folder"
        ) from error
    if not overwrite:
        raise ValueError(
            f"{folder}: already holds a corpus: pass overwrite=True to replace it, or choose another folder"
        )
