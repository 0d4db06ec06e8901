"""Folders of videos as episodes: what can be used, what cannot and why."""

from __future__ import annotations

import hashlib
import json
import math
import mimetypes
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from tqdm import tqdm

from ..video import VIDEO_EXTENSIONS, VideoError, check_video

METADATA_FILE = "metadata.jsonl"


@dataclass(frozen=True)
class Episode:
    """One usable video.

    Attributes:
        id: Unique and stable within its folder: the path below the folder without its suffix, with forward slashes.
            Where two files differ only in their suffix, both keep it.
        path: The video file.
        language: The instruction in words, or None.
        source: Name of the data set it comes from, or None.
        fps: Frames a second: that of the metadata where given, else the container's.
        num_frames: Frames in the file.
        height: Height in pixels.
        width: Width in pixels.
        metadata: The other keys of its metadata row.
    """

    id: str
    path: str
    language: str | None
    source: str | None
    fps: float
    num_frames: int
    height: int
    width: int
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RejectedVideo:
    """A file that was set aside.

    Attributes:
        path: The file.
        reason: What is wrong with it and what to do.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class VideoFolder:
    """What `scan_videos` found.

    Attributes:
        root: The folder.
        episodes: Usable videos, ordered by id.
        rejected: Files set aside, ordered by path.
    """

    root: str
    episodes: list[Episode]
    rejected: list[RejectedVideo]

    def __len__(self) -> int:
        return len(self.episodes)


def scan_videos(
    folder: str | Path,
    *,
    min_frames: int = 2,
    num_workers: int = 2,
    progress: bool = True,
    check: Literal["ends", "all"] = "ends",
) -> VideoFolder:
    """Finds and checks the videos below a folder; bad ones are listed and set aside.

    Files with the extensions `VIDEO_EXTENSIONS` (any case) are looked for at any depth. A file `metadata.jsonl`, in the
    folder or below it, may describe the videos beside or below itself: one JSON object a line, with `file_name`
    (relative to the metadata file) and any of `language`, `source`, `fps`; other keys are kept. `fps` there overrides
    the container's rate, for clips that were re-timed when they were encoded. Sizes and rates may differ from file to
    file.

    Args:
        folder: The folder.
        min_frames: Videos with fewer frames are set aside; a pair of frames takes 2.
        num_workers: Threads that check videos.
        progress: Show a progress bar.
        check: "ends" opens each file and decodes its first and last frame. "all" decodes every frame and also finds
            damage in the middle, where the decoder notices it: of single changed bits about four in five, which takes
            the program `ffmpeg`, as torchcodec repairs pictures without a word. It costs more where key frames are
            frequent (otherwise reaching the last frame decodes most of the file anyway).

    Returns:
        The episodes and the rejected files, in an order that depends only on the names.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The folder holds no videos or none that can be used, or a metadata row is malformed (with its line).

    Example:
        >>> videos = scan_videos("clips")
        >>> len(videos.episodes), [bad.reason for bad in videos.rejected]
    """
    root = _existing_folder(folder)
    if check not in ("ends", "all"):
        raise ValueError(f'check: got {check!r}, expected "ends" or "all"')
    files, rejected = _find_files(root)
    rows = _read_metadata(root)
    rejected += _rows_without_file(root, rows, {path.as_posix() for path in files})
    if not files:
        raise ValueError(
            f"{root}: no videos here; expected files ending in {', '.join(VIDEO_EXTENSIONS)}, at any depth"
            + _listed(rejected)
        )
    ids = _episode_ids(files)

    def look(path: PurePosixPath) -> Episode | RejectedVideo:
        return _look_at(root / path, ids[path], rows.get(path.as_posix(), {}), min_frames, every_frame=check == "all")

    with ThreadPoolExecutor(max_workers=max(1, num_workers)) as pool:
        looked = list(tqdm(pool.map(look, files), total=len(files), desc="Checking videos", disable=not progress))
    episodes = [item for item in looked if isinstance(item, Episode)]
    rejected += [item for item in looked if isinstance(item, RejectedVideo)]
    rejected.sort(key=lambda item: item.path)
    if not episodes:
        raise ValueError(f"{root}: none of the {len(files)} videos here can be used" + _listed(rejected))
    return VideoFolder(str(root), sorted(episodes, key=lambda episode: episode.id), rejected)


def split_episodes(
    episodes: Sequence[Episode], held_out_fraction: float, seed: int = 0
) -> tuple[list[Episode], list[Episode]]:
    """Splits episodes in two, the same way on every machine and for every order of the input.

    Episodes are ranked by a hash of seed and id, so one more episode moves at most one other across the split.

    Args:
        episodes: Episodes with different ids.
        held_out_fraction: Fraction that is held out, in [0, 1); above 0 it holds out at least one episode.
        seed: Picks the split.

    Returns:
        (training, held-out) episodes, each in the order of the input; training is never empty.

    Raises:
        ValueError: The fraction is out of range, or there is only one episode to hold out from.
    """
    if not 0 <= held_out_fraction < 1:
        raise ValueError(f"held_out_fraction: got {held_out_fraction}, expected a number in [0, 1)")
    if held_out_fraction == 0:
        return list(episodes), []
    if len(episodes) < 2:
        raise ValueError(
            f"holding out a fraction of {held_out_fraction} takes at least 2 episodes, got {len(episodes)}: "
            "add videos, or set held_out_fraction to 0"
        )
    count = min(max(1, round(held_out_fraction * len(episodes))), len(episodes) - 1)
    ranked = sorted(episodes, key=lambda episode: hashlib.sha256(f"{seed}:{episode.id}".encode()).digest())
    held_out = {episode.id for episode in ranked[:count]}
    return (
        [episode for episode in episodes if episode.id not in held_out],
        [episode for episode in episodes if episode.id in held_out],
    )


def resolve_stride(fps: float, *, frames: int | None = None, seconds: float | None = None) -> int:
    """The stride k between two frames of a pair, in frames.

    Args:
        fps: Frames a second of the episode.
        frames: The stride in frames; or
        seconds: in seconds, rounded to the nearest frame and at least 1.

    Raises:
        ValueError: Neither or both are given, or one is not positive.
    """
    if (frames is None) == (seconds is None):
        raise ValueError(f"stride: give it either in frames or in seconds, got frames={frames} and seconds={seconds}")
    if frames is not None:
        if frames < 1:
            raise ValueError(f"stride: got {frames} frames, expected at least 1")
        return frames
    assert seconds is not None
    if not 0 < seconds < math.inf:
        raise ValueError(f"stride: got {seconds} seconds, expected a finite number above 0")
    return max(1, round(seconds * fps))


def _existing_folder(folder: str | Path) -> Path:
    root = Path(folder)
    if not root.exists():
        raise FileNotFoundError(f"{root}: there is no such folder; check the path")
    if not root.is_dir():
        raise ValueError(f"{root}: expected a folder of videos, got a file: give the folder that holds it")
    return root


def _find_files(root: Path) -> tuple[list[PurePosixPath], list[RejectedVideo]]:
    """Video files below the root, as sorted relative paths, and those of a format that is not read."""
    files: list[PurePosixPath] = []
    rejected: list[RejectedVideo] = []
    for path in _walk(root):
        if path.suffix.lower() in VIDEO_EXTENSIONS:
            files.append(PurePosixPath(path.relative_to(root).as_posix()))
        elif (mimetypes.guess_type(path.name)[0] or "").startswith("video/"):
            known = ", ".join(VIDEO_EXTENSIONS)
            reason = f"the extension {path.suffix} is not read: convert it with ffmpeg to one of {known}"
            rejected.append(RejectedVideo(str(path), reason))
    return sorted(files), rejected


def _walk(root: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for directory, _, names in os.walk(root, onerror=fail):
        yield from (Path(directory, name) for name in names)


def _episode_ids(files: Sequence[PurePosixPath]) -> dict[PurePosixPath, str]:
    stems = Counter(path.with_suffix("") for path in files)
    return {path: str(path.with_suffix("") if stems[path.with_suffix("")] == 1 else path) for path in files}


def _read_metadata(root: Path) -> dict[str, dict[str, Any]]:
    """Metadata rows by the file's path below the root; each row also says where it stands, under "_where"."""
    rows: dict[str, dict[str, Any]] = {}
    for file in sorted(path for path in _walk(root) if path.name == METADATA_FILE):
        with open(file, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                where = f"{file}, line {number}"
                row = _parse_row(line, where)
                # normpath, not resolve: a row that climbs out of the folder must stay recognisable.
                name = os.path.normpath(os.path.join(file.parent.relative_to(root).as_posix(), row["file_name"]))
                key = Path(name).as_posix()
                if key in rows:
                    raise ValueError(f"{where}: {row['file_name']!r} was already described at {rows[key]['_where']}")
                rows[key] = {**row, "_where": where}
    return rows


def _parse_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{where}: this is not JSON ({error}): write one JSON object a line") from error
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise ValueError(f'{where}: expected a JSON object with "file_name", got {line.strip()[:80]}')
    for key in ("language", "source"):
        if not isinstance(row.get(key), str | None):
            raise ValueError(f"{where}: {key}: got {row[key]!r}, expected a string")
    fps = row.get("fps")
    if fps is not None and (
        isinstance(fps, bool) or not isinstance(fps, int | float) or not (math.isfinite(fps) and fps > 0)
    ):
        raise ValueError(f"{where}: fps: got {fps!r}, expected frames a second, above 0")
    return row


def _rows_without_file(root: Path, rows: Mapping[str, Mapping[str, Any]], found: set[str]) -> list[RejectedVideo]:
    missing = []
    for name, row in rows.items():
        if name in found:
            continue
        if name.startswith("../") or os.path.isabs(name):
            reason = f"named at {row['_where']}, but outside the folder: file names are relative to it"
        elif (root / name).is_file():
            reason = f"named at {row['_where']}, but not one of {', '.join(VIDEO_EXTENSIONS)}"
        else:
            reason = f"named at {row['_where']}, but there is no such file: add it, or take the line out"
        missing.append(RejectedVideo(str(root / name), reason))
    return missing


def _look_at(
    path: Path, episode_id: str, row: Mapping[str, Any], min_frames: int, *, every_frame: bool
) -> Episode | RejectedVideo:
    try:
        info = check_video(path, every_frame=every_frame)
    except VideoError as error:
        return RejectedVideo(str(path), error.reason)
    except OSError as error:
        return RejectedVideo(str(path), f"it cannot be read: {error.strerror or error}")
    if info.num_frames < min_frames:
        frames = "1 frame" if info.num_frames == 1 else f"{info.num_frames} frames"
        return RejectedVideo(str(path), f"it holds {frames}; at least {min_frames} are needed to see a change")
    fps = row.get("fps") or info.fps
    if not fps:
        return RejectedVideo(str(path), f"it does not say its frame rate: give fps in {METADATA_FILE}")
    return Episode(
        id=episode_id,
        path=str(path),
        language=row.get("language"),
        source=row.get("source"),
        fps=float(fps),
        num_frames=info.num_frames,
        height=info.height,
        width=info.width,
        metadata={key: row[key] for key in row if key not in ("file_name", "language", "source", "fps", "_where")},
    )


def _listed(rejected: Sequence[RejectedVideo], limit: int = 3) -> str:
    if not rejected:
        return ""
    first = "; ".join(f"{item.path}: {item.reason}" for item in rejected[:limit])
    more = f"; and {len(rejected) - limit} more" if len(rejected) > limit else ""
    return f" (set aside: {first}{more})"
