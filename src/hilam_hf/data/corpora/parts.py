"""Parts of a corpus that is being written: small Parquet files that an interrupted run leaves for the next one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...files import atomic_path

logger = logging.getLogger(__name__)

MADE_FROM = "made_from"
"""Column of a part, not of the corpus: what each row was made from."""
# Checksums let a reader notice damage page by page.
PARQUET_OPTIONS: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}


def read_part(part: Path, columns: list[str] | None = None) -> pa.Table:
    """Reads a part.

    Raises:
        ValueError: It is damaged.
    """
    try:
        return pq.read_table(part, columns=columns, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{part}: rows of the interrupted run are damaged ({str(error).splitlines()[0]}): delete this file and "
            "resume, which computes them again"
        ) from error


def write_part(table: pa.Table, part: Path) -> None:
    """Writes a part, whole or not at all."""
    with atomic_path(part) as temporary:
        pq.write_table(table, temporary, **PARQUET_OPTIONS)


def drop_stale_rows(part: Path, made_from: Mapping[str, str]) -> None:
    """Drops the rows whose episode is not in `made_from`, or was made from something else than that says."""
    table = read_part(part)
    ids = table.column("id").to_pylist()
    told = table.column(MADE_FROM).to_pylist() if MADE_FROM in table.column_names else [None] * len(ids)
    if None in told:
        logger.warning("%s: an older version wrote rows of it; whether their videos changed is not known", part)
    fresh = [id in made_from and was in (None, made_from[id]) for id, was in zip(ids, told, strict=True)]
    if not any(fresh):
        part.unlink()
    elif not all(fresh):
        write_part(table.filter(pa.array(fresh)), part)


def grouped(parts: list[Path], limit: int) -> Iterator[list[Path]]:
    """Runs of files of at most `limit` bytes together; a larger file is a run of its own."""
    group: list[Path] = []
    size = 0
    for part in parts:
        part_size = part.stat().st_size
        if group and size + part_size > limit:
            yield group
            group, size = [], 0
        group.append(part)
        size += part_size
    if group:
        yield group
