"""Checks of a corpus that is loaded: others wrote it, so its rows need not be what its card says."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from numpy.typing import NDArray

from .info import CorpusInfo
from .rows import corpus_features

_MAY_BE_NULL = frozenset({"source", "language", "video"})


def check_corpus(corpus: Dataset, info: CorpusInfo, split: str, name: str) -> None:
    """Sees that a corpus has every column, no gaps, and numbers that can be.

    Args:
        corpus: One split as it was loaded, without a selection.
        info: What its card says.
        split: Which one.
        name: What errors call the corpus.

    Raises:
        ValueError: It has not; the message names the column and what is wrong.
    """
    where = f"{name}, split {split}"
    if not len(corpus):
        raise ValueError(f"{where}: has no rows")
    if len(corpus) != info.splits[split]:
        raise ValueError(
            f"{where}: has {len(corpus)} episodes, its card says {info.splits[split]}: copy or download it again"
        )
    for column_name, feature in corpus_features(info).items():
        if column_name not in corpus.features:
            raise ValueError(f"{where}: lacks the column {column_name}; its columns are {', '.join(corpus.features)}")
        if column_name == "video":
            # A path, or the file itself.
            continue
        if corpus.features[column_name] != feature:
            raise ValueError(f"{where}: column {column_name}: got {corpus.features[column_name]}, expected {feature}")
        column: pa.ChunkedArray = corpus.data.column(column_name)
        if column.null_count and column_name not in _MAY_BE_NULL:
            raise ValueError(f"{where}: column {column_name}: {column.null_count} of {len(column)} rows are null")
        _check_numbers(column, f"{where}: column {column_name}", codes=_num_codes(column_name, info))
    for column_name in ("fps", "num_frames", "stride"):
        _check_positive(corpus, column_name, where)
    _check_frames(corpus.data, where)


def _check_positive(corpus: Dataset, name: str, where: str) -> None:
    values = corpus.data.column(name).to_numpy()
    if wrong := (values <= 0).nonzero()[0].tolist():
        episode = corpus[wrong[0]]["id"]
        raise ValueError(f"{where}: episode {episode!r}: {name}: got {values[wrong[0]]}, expected a number above 0")


def _check_frames(table: pa.Table, where: str) -> None:
    """Sees that every latent action has a frame of its episode."""
    lengths = _lengths(table, "latent_actions")
    if not (lengths > 0).all():
        raise ValueError(f"{where}: column latent_actions: row {int(np.argmin(lengths))} has none")
    if (lengths != _lengths(table, "frame_indices")).any():
        raise ValueError(f"{where}: columns latent_actions and frame_indices: expected as many of one as of the other")
    frames = table.column("frame_indices").combine_chunks().flatten().to_numpy()
    if (frames < 0).any() or (frames >= np.repeat(table.column("num_frames").to_numpy(), lengths)).any():
        raise ValueError(f"{where}: column frame_indices: expected frames from 0 to num_frames - 1")


def _lengths(table: pa.Table, column: str) -> NDArray[np.int32]:
    return pc.list_value_length(table.column(column)).to_numpy()


def _num_codes(name: str, info: CorpusInfo) -> int | None:
    return len(info.codebook) if name == "latent_actions" and info.codebook is not None else None


def _check_numbers(column: pa.ChunkedArray, where: str, *, codes: int | None) -> None:
    for chunk in column.chunks:
        values = chunk
        while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            values = values.flatten()
        if pa.types.is_floating(values.type) and not pc.all(pc.is_finite(values), min_count=0).as_py():
            raise ValueError(f"{where}: has NaN or infinite values")
        if values.null_count and values is not chunk:
            raise ValueError(f"{where}: has vectors with nulls")
        if codes is None or not len(values):
            continue
        least, most = pc.min_max(values).as_py().values()
        if least < 0 or most >= codes:
            raise ValueError(f"{where}: codes reach from {least} to {most}, but the codebook has 0 to {codes - 1}")
