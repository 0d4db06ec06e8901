"""The record of a running evaluation, one line an episode, from which an interrupted one goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from ...files import disk_errors, path_inside
from .results import RESULTS_FILE, SCHEMA_KEY, SCHEMA_VERSION, TABLE_FILE, EpisodeResult, is_results

JOURNAL_FILE = "episodes.jsonl"


class Journal:
    """`episodes.jsonl` of a folder: its first line holds the settings, each other a finished episode.

    A line is on the disk before the next episode is counted. One that was torn by a crash is dropped.

    Args:
        folder: Folder of the results.
        settings: All that decides the outcome.
        resume: Whether to go on with the episodes that the folder holds.
        overwrite: Whether to remove what the folder holds of an evaluation.

    Raises:
        ValueError: The folder holds episodes of other settings, or some although `resume` is False; or files under an
            evaluation's names that are none of an evaluation, which are never replaced.
    """

    def __init__(
        self, folder: str | Path, settings: Mapping[str, Any], *, resume: bool = True, overwrite: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.path = self.folder / JOURNAL_FILE
        self._check_files(overwrite)
        if overwrite:
            self._remove()
        # As they come back from the file.
        header = json.loads(json.dumps({SCHEMA_KEY: SCHEMA_VERSION, **settings}))
        lines = _whole_lines(self.path)
        if lines:
            self._check(header, lines[0], resume)
        self.finished = [self._episode(number, record) for number, record in enumerate(lines[1:], start=2)]
        with disk_errors(self.path):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
        if not lines:
            self._write(header)

    def add(self, episode: EpisodeResult) -> None:
        """Append a finished episode."""
        self._write(asdict(episode))
        self.finished.append(episode)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_files(self, overwrite: bool) -> None:
        """Sees that no file is replaced that an evaluation has not written."""
        results, table = self.folder / RESULTS_FILE, self.folder / TABLE_FILE
        if results.exists() and not is_results(results):
            raise ValueError(
                f"{results}: is not the results of an evaluation and is not replaced; choose another folder"
            )
        if self.path.exists():
            return
        if table.exists() and not results.exists():
            raise ValueError(f"{table}: is not the table of an evaluation and is not replaced; choose another folder")
        if results.exists() and not overwrite:
            raise ValueError(
                f"{self.folder} holds results whose {JOURNAL_FILE} is gone; choose another folder, or overwrite it"
            )

    def _episode(self, number: int, record: dict[str, Any]) -> EpisodeResult:
        try:
            return EpisodeResult.from_dict(record)
        except TypeError as error:
            raise ValueError(
                f"{self.path}, line {number}: no episode ({error}); correct the line, or overwrite the evaluation"
            ) from error

    def _check(self, header: dict[str, Any], recorded: dict[str, Any], resume: bool) -> None:
        if not resume:
            raise ValueError(f"{self.folder} holds an evaluation; choose another folder, resume it, or overwrite it")
        if changes := differences(recorded, header):
            raise ValueError(
                f"{self.folder} holds an evaluation with other settings: {'; '.join(changes)}. Choose another folder, "
                f"or overwrite it"
            )

    def _write(self, record: Mapping[str, Any]) -> None:
        with disk_errors(self.path):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _remove(self) -> None:
        records = [record for record in _records(self.path)[1:] if isinstance(record, dict)]
        named = [record["video"] for record in records if record.get("video")]
        videos = [path_inside(self.folder, name, where=str(self.path), follow_links=False) for name in named]
        for video in videos:
            video.unlink(missing_ok=True)
        for name in (JOURNAL_FILE, RESULTS_FILE, TABLE_FILE):
            (self.folder / name).unlink(missing_ok=True)


def differences(first: Any, second: Any, *, where: str = "", limit: int = 200) -> list[str]:
    """Name what differs between two JSON values, as `key.key: first -> second`.

    Args:
        first: The one.
        second: The other.
        where: Keys that led there.
        limit: Characters shown of a value.
    """
    if isinstance(first, dict) and isinstance(second, dict):
        keys = dict.fromkeys([*first, *second])
        found = [
            differences(first.get(key), second.get(key), where=f"{where}.{key}" if where else str(key), limit=limit)
            for key in keys
        ]
        return [change for changes in found for change in changes]
    if first == second:
        return []
    shown = [text if len(text := json.dumps(value)) <= limit else f"{text[:limit]}..." for value in (first, second)]
    return [f"{where}: {shown[0]} -> {shown[1]}"]


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a journal and cut off what a crash left of the last one.

    Raises:
        ValueError: Another line than the last holds no JSON, or the file is no journal.
    """
    records = _records(path)
    if None in records[:-1]:
        raise ValueError(
            f"{path}, line {records.index(None) + 1}: no JSON; correct the line, or overwrite the evaluation"
        )
    if records and records[-1] is None:
        lines = path.read_bytes().splitlines(keepends=True)
        os.truncate(path, sum(map(len, lines[:-1])))
        records.pop()
    return records


def _records(path: Path) -> list[Any]:
    """What the lines of a journal hold; None for one that is torn.

    Raises:
        ValueError: The file is no journal.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    records = [_record(line) for line in lines]
    if lines and not (_is_torn_header(lines[0]) if records[0] is None else SCHEMA_KEY in records[0]):
        raise ValueError(f"{path}: is not the record of an evaluation and is not replaced; choose another folder")
    return records


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _is_torn_header(line: bytes) -> bool:
    start = f'{{"{SCHEMA_KEY}"'.encode()
    return line.startswith(start) or start.startswith(line) or not line.strip(b"\0\n")
