"""What a folder of videos says about them: `metadata.jsonl`, or `metadata.csv` as Hugging Face's video folders have it.

Both are read as UTF-8 or, with a byte-order mark, UTF-16.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..recorded import check_text

METADATA_FILE = "metadata.jsonl"
METADATA_TABLE = "metadata.csv"


def read_metadata(root: Path, files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Rows of all metadata files by the video's path below the root; each also says where it stands, under "_where".

    Args:
        root: The folder.
        files: Files below it, among which those of metadata are looked for.

    Raises:
        ValueError: A row is malformed (with its line), or a file has another encoding.
    """
    rows: dict[str, dict[str, Any]] = {}
    readers = {METADATA_FILE: _json_rows, METADATA_TABLE: _table_rows}
    for file in sorted(path for path in files if path.name in readers):
        for where, row in readers[file.name](file):
            _check_row(row, where)
            # normpath, not resolve: a row that climbs out of the folder must stay recognisable.
            name = os.path.normpath(os.path.join(file.parent.relative_to(root).as_posix(), row["file_name"]))
            key = Path(name).as_posix()
            if key in rows:
                raise ValueError(f"{where}: {row['file_name']!r} was already described at {rows[key]['_where']}")
            rows[key] = {**row, "_where": where}
    return rows


def read_text(file: Path) -> str:
    """The text of a metadata file.

    Raises:
        ValueError: It is neither UTF-8 nor marked as UTF-16; the message names the line.
    """
    data = file.read_bytes()
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{file}, line {line}: this is not UTF-8 (byte 0x{data[error.start]:02x}): save the file as UTF-8, for one "
            f"with `iconv -f latin1 -t utf-8`"
        ) from error


def _json_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    # Not splitlines: JSON may hold the other line ends of Unicode.
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if line.strip():
            where = f"{file}, line {number}"
            yield where, _parsed(line, where)


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        # Its escapes may hold half characters, anywhere in it.
        check_text(where, json.dumps(row, ensure_ascii=False))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{where}: this is not JSON ({error}): write one JSON object a line") from error
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise ValueError(f'{where}: expected a JSON object with "file_name", got {line.strip()[:80]}')
    return row


def _table_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Empty cells tell nothing; `fps` is a number and the others are text."""
    reader = csv.DictReader(io.StringIO(read_text(file), newline=""))
    if "file_name" not in (reader.fieldnames or ()):
        raise ValueError(f"{file}, line 1: got columns {', '.join(reader.fieldnames or ())}, expected file_name first")
    for cells in reader:
        where = f"{file}, line {reader.line_num}"
        if None in cells or None in cells.values() or not cells["file_name"]:
            raise ValueError(f"{where}: expected {len(reader.fieldnames or ())} cells, with file_name")
        row: dict[str, Any] = {name: cell for name, cell in cells.items() if cell}
        if "fps" in row:
            row["fps"] = _number(row["fps"])
        yield where, row


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _check_row(row: Mapping[str, Any], where: str) -> None:
    for key in ("language", "source"):
        if not isinstance(row.get(key), str | None):
            raise ValueError(f"{where}: {key}: got {row[key]!r}, expected a string")
    fps = row.get("fps")
    if fps is not None and (
        isinstance(fps, bool) or not isinstance(fps, int | float) or not (math.isfinite(fps) and fps > 0)
    ):
        raise ValueError(f"{where}: fps: got {fps!r}, expected frames a second, above 0")
