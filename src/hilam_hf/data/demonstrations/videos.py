"""Folders of videos of demonstrations, without their actions: what pretraining reads with `scan_videos`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ...files import disk_errors, write_text
from ...locks import FolderLock
from ...recorded import RecordedDemonstration, check_episode_id
from ...video import write_video
from ...video.orientation import ImageTransform
from ..metadata import METADATA_FILE, read_text
from .demonstration import Demonstration

VIDEOS = "videos"
"""Folder of a recording's own videos."""


def write_videos(
    demonstrations: Sequence[Demonstration], out: str | Path, *, camera: str | None = None, progress: bool = True
) -> None:
    """Writes one camera's pictures as a folder of videos without actions, for `scan_videos` and so for pretraining.

    Args:
        demonstrations: The episodes; pictures lie as their `image_transform` says.
        out: The folder: `<id>.mp4` and `metadata.jsonl` with instruction, task, rate and source. Videos that are
            there under these names are replaced.
        camera: The camera; None for the first of each demonstration.
        progress: Show a progress bar.

    Raises:
        ValueError: An id is no `<task>/<name>`, or an episode has no such camera.
        FolderInUseError: Another writer writes into the folder.
        OSError: The disk is full.
    """
    root = Path(out)
    for demonstration in demonstrations:
        check_episode_id(demonstration.id)
    lines = []
    with FolderLock(root, "a writer of videos"):
        for demonstration in tqdm(demonstrations, desc="Writing videos", disable=not progress):
            shown = camera or demonstration.cameras[0]
            write_video(root / f"{demonstration.id}.mp4", demonstration.frames(shown), demonstration.fps)
            lines.append(_line(describe_video(demonstration, shown, demonstration.image_transform)))
        write_text(root / METADATA_FILE, "".join(lines))


def demonstration_videos(
    recording: str | Path,
    demonstrations: Sequence[Demonstration],
    out: str | Path,
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """A folder of videos of demonstrations, under their ids: the recording's own, or one that is written.

    Args:
        recording: Where the demonstrations were loaded from.
        demonstrations: The demonstrations.
        out: Folder for the videos where the recording has none.
        overwrite: Replace what an earlier call wrote.
        progress: Show a progress bar while videos are written.

    Raises:
        ValueError: An id is no `<task>/<name>`.
        OSError: The disk is full.
    """
    own = Path(recording) / VIDEOS
    if (own / METADATA_FILE).is_file():
        return own
    if overwrite or not (Path(out) / METADATA_FILE).is_file():
        write_videos(demonstrations, out, progress=progress)
    return Path(out)


def describe_video(
    demonstration: Demonstration | RecordedDemonstration, camera: str, image_transform: ImageTransform
) -> dict[str, Any]:
    """The line of `metadata.jsonl` of a video `<id>.mp4`."""
    environment, source = demonstration.robot.environment, demonstration.source
    return {
        "file_name": f"{demonstration.id}.mp4",
        "source": source if source == environment else f"{environment}-{source}",
        "language": demonstration.language,
        "fps": float(demonstration.fps),
        "task": demonstration.task,
        "camera": camera,
        "image_transform": image_transform,
    }


class VideoFolderWriter:
    """Adds videos to a folder one at a time, each with its line of `metadata.jsonl`.

    It takes no lock: it is a part of `VideoRecordingWriter`, which holds the recording's.

    Args:
        root: The folder; what an interruption left unfinished in `metadata.jsonl` is cut off.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        with disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)
        self.entries = self._recover()

    def add(self, frames: NDArray[np.uint8], entry: Mapping[str, Any]) -> None:
        """Writes a video (T, H, W, C) and its line, which replaces the line that an interrupted episode left."""
        pixels = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
        write_video(self.root / entry["file_name"], pixels, entry["fps"])
        file, name = self.root / METADATA_FILE, entry["file_name"]
        before = self.entries.get(name)
        if before is None:
            with disk_errors(file):
                _append(file, _line(entry))
        elif before != entry:
            write_text(file, "".join(_line(row) for row in (self.entries | {name: dict(entry)}).values()))
        self.entries[name] = dict(entry)

    def _recover(self) -> dict[str, dict[str, Any]]:
        """Lines of metadata.jsonl by file name, after cutting off a last line that a crash left unfinished."""
        file = self.root / METADATA_FILE
        if not file.exists():
            return {}
        lines = read_text(file).splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
            write_text(file, "".join(lines))
        try:
            rows = [json.loads(line) for line in lines if line.strip()]
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{file}: a line is not JSON ({error}): repair it, or record into another folder"
            ) from error
        return {row["file_name"]: row for row in rows}


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _append(file: Path, line: str) -> None:
    """Appends a line whole or, when the disk is full, not at all."""
    with open(file, "ab") as stream:
        size = stream.tell()
        try:
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())
        except OSError:
            os.truncate(file, size)
            raise
