"""The record of a running evaluation, one line an episode, from which an interrupted one goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from ...files import disk_errors, read_json
from .results import RESULTS_FILE, SCHEMA_VERSION, TABLE_FILE, EpisodeResult

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
        ValueError: The folder holds episodes of other settings, or some although `resume` is False.
    """

    def __init__(
        self, folder: str | Path, settings: Mapping[str, Any], *, resume: bool = True, overwrite: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.path = self.folder / JOURNAL_FILE
        if overwrite:
            self._remove()
        # As they come back from the file.
        header = json.loads(json.dumps({"schema_version": SCHEMA_VERSION, **settings}))
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
        for record in _whole_lines(self.path)[1:]:
            if record.get("video"):
                (self.folder / record["video"]).unlink(missing_ok=True)
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
        ValueError: Another line than the last holds no JSON.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("torn")
            records.append(read_json(f"{path}, line {number}", line))
        except ValueError as error:
            # Only the last line can be torn.
            if number < len(lines):
                raise ValueError(f"{error}; correct the line, or overwrite the evaluation") from error
            os.truncate(path, sum(map(len, lines[:-1])))
    return records
