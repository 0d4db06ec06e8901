"""Folders of videos as episodes: what can be used, what cannot and why."""

from __future__ import annotations

import hashlib
import math
import mimetypes
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from tqdm import tqdm

from ..files import is_hidden, walk_files
from ..recorded import check_text
from ..video import VIDEO_EXTENSIONS, VideoError, check_video
from .metadata import METADATA_FILE, METADATA_TABLE, read_metadata


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

    Files with the extensions `VIDEO_EXTENSIONS` (any case) are looked for at any depth, in linked folders, too, but not
    under names that begin with a dot. A file `metadata.jsonl`, in the folder or below it, may describe the videos
    beside or below itself: one JSON object a line, with `file_name` (relative to the metadata file) and any of
    `language`, `source`, `fps`; other keys are kept. `metadata.csv` does the same, with columns. `fps` there overrides
    the container's times, for clips that were re-timed when they were encoded. Sizes and rates may differ from file to
    file; within a file frames are evenly spaced, and a video with a variable rate is set aside.

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
    found = list(walk_files(root))
    files, rejected = _find_files(root, found)
    rows = read_metadata(root, found)
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


def held_out_rows(ids: Sequence[str], held_out_fraction: float) -> list[int]:
    """Rows that are held out, the same on every machine and in every order of the input.

    Each id is decided upon alone: it is held out where the first 8 bytes of its SHA-256, as a fraction of 2**64, are
    below `held_out_fraction`. So more ids move none of those that are there, and a larger fraction keeps what a smaller
    one holds out. How many are held out is the fraction of all on average only.

    Args:
        ids: Different ids, as of episodes.
        held_out_fraction: Fraction that is held out, in [0, 1); 0 holds out none.

    Returns:
        Their rows in `ids`, ascending.

    Raises:
        ValueError: The fraction is out of range, or it is above 0 and holds out none of these ids or all of them. The
            message has the smallest fraction that holds out one.

    Example:
        >>> held_out_rows(["drawer-open/0000", "drawer-open/0001", "drawer-open/0002"], 0.5)
        [1]
    """
    _check_fraction(held_out_fraction)
    rows = [row for row, name in enumerate(ids) if _position(name) < held_out_fraction]
    if held_out_fraction and len(rows) in (0, len(ids)):
        raise ValueError(
            f"held_out_fraction: {held_out_fraction} holds out {'none' if not rows else 'all'} of {len(ids)} "
            f"episodes: {_remedy(ids)}"
        )
    return rows


def possible_fraction(ids: Sequence[str], held_out_fraction: float) -> float:
    """The fraction nearest to the one given at which `held_out_rows` holds out at least one id, and not all.

    Args:
        ids: At least 2 different ids.
        held_out_fraction: A fraction in [0, 1).

    Raises:
        ValueError: The fraction is out of range, or there are fewer than 2 ids.
    """
    _check_fraction(held_out_fraction)
    if len(ids) < 2:
        raise ValueError(f"holding one out takes at least 2 episodes, got {len(ids)}: add more")
    return min(max(held_out_fraction, _smallest_fraction(ids)), max(map(_position, ids)))


def split_episodes(episodes: Sequence[Episode], held_out_fraction: float) -> tuple[list[Episode], list[Episode]]:
    """Splits episodes in two by their ids, see `held_out_rows`.

    Args:
        episodes: Episodes with different ids.
        held_out_fraction: Fraction that is held out, in [0, 1); 0 holds out none.

    Returns:
        (training, held-out) episodes, each in the order of the input; training is never empty.

    Raises:
        ValueError: The fraction is out of range, or it is above 0 and holds out none of these episodes or all of them.
    """
    training, held_out = split_rows([episode.id for episode in episodes], held_out_fraction)
    return [episodes[row] for row in training], [episodes[row] for row in held_out]


def split_rows(ids: Sequence[str], held_out_fraction: float) -> tuple[list[int], list[int]]:
    """Rows to train on and rows that are held out, both ascending, see `held_out_rows`.

    Raises:
        ValueError: As `held_out_rows`.
    """
    held_out = held_out_rows(ids, held_out_fraction)
    return sorted(set(range(len(ids))) - set(held_out)), held_out


def _check_fraction(held_out_fraction: float) -> None:
    if not 0 <= held_out_fraction < 1:
        raise ValueError(f"held_out_fraction: got {held_out_fraction}, expected a number in [0, 1)")


def _position(name: str) -> float:
    """Where an id lies in [0, 1), by its hash."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _smallest_fraction(ids: Sequence[str]) -> float:
    """The smallest fraction that holds one out, rounded up to four digits where that does not hold out all."""
    positions = sorted(map(_position, ids))
    rounded = math.ceil(positions[0] * 10_000) / 10_000
    return rounded if positions[0] < rounded <= positions[-1] else math.nextafter(positions[0], 1.0)


def _remedy(ids: Sequence[str]) -> str:
    if len(ids) < 2:
        return "it takes at least 2; add episodes, or set the fraction to 0"
    return f"the smallest fraction that holds one out is {_smallest_fraction(ids)}; use that one, or add episodes"


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


def resolve_stride_range(
    fps: float,
    *,
    frames: int | None = None,
    seconds: float | None = None,
    frames_range: tuple[int, int] | None = None,
    seconds_range: tuple[float, float] | None = None,
) -> tuple[int, int]:
    """The smallest and the largest stride k between two frames of a pair, in frames; one number twice where k is fixed.

    Args:
        fps: Frames a second of the episode.
        frames: k in frames; or
        seconds: in seconds; or
        frames_range: the smallest and the largest k in frames; or
        seconds_range: in seconds, both rounded to the nearest frame and at least 1.

    Raises:
        ValueError: None or several are given, a range is no pair of numbers or ends before it begins, or a number is
            not positive.
    """
    given = {"frames": frames, "seconds": seconds, "frames_range": frames_range, "seconds_range": seconds_range}
    told = {name: value for name, value in given.items() if value is not None}
    if len(told) != 1:
        raise ValueError(
            "stride: give one of frames, seconds, a range of frames or a range of seconds, got "
            f"{', '.join(f'{name}={value}' for name, value in told.items()) or 'none'}"
        )
    wanted = frames_range if frames_range is not None else seconds_range
    if wanted is None:
        k = resolve_stride(fps, frames=frames, seconds=seconds)
        return k, k
    if len(wanted) != 2 or not wanted[0] <= wanted[1]:
        raise ValueError(f"stride range: got {wanted}, expected the smallest and the largest stride, such as (10, 30)")
    unit = "frames" if frames_range is not None else "seconds"
    low, high = (resolve_stride(fps, **{unit: value}) for value in wanted)  # type: ignore[arg-type]
    return low, high


def _existing_folder(folder: str | Path) -> Path:
    root = Path(folder)
    if not root.exists():
        raise FileNotFoundError(f"{root}: there is no such folder; check the path")
    if not root.is_dir():
        raise ValueError(f"{root}: expected a folder of videos, got a file: give the folder that holds it")
    return root


def _find_files(root: Path, found: Iterable[Path]) -> tuple[list[PurePosixPath], list[RejectedVideo]]:
    """Video files below the root, as sorted relative paths, and those of a format that is not read."""
    files: list[PurePosixPath] = []
    rejected: list[RejectedVideo] = []
    for path in found:
        if path.suffix.lower() in VIDEO_EXTENSIONS:
            files.append(PurePosixPath(path.relative_to(root).as_posix()))
        elif (mimetypes.guess_type(path.name)[0] or "").startswith("video/"):
            known = ", ".join(VIDEO_EXTENSIONS)
            reason = f"the extension {path.suffix} is not read: convert it with ffmpeg to one of {known}"
            rejected.append(RejectedVideo(str(path), reason))
    return sorted(files), rejected


def _episode_ids(files: Sequence[PurePosixPath]) -> dict[PurePosixPath, str]:
    stems = Counter(path.with_suffix("") for path in files)
    # A file that keeps its suffix may be called as another one without its own: v.mp4, v.webm and v.mp4.mp4.
    unique = {path for path in files if stems[path.with_suffix("")] == 1} - {
        path for path in files if path.with_suffix("") in set(files)
    }
    return {path: str(path.with_suffix("") if path in unique else path) for path in files}


def _rows_without_file(root: Path, rows: Mapping[str, Mapping[str, Any]], found: set[str]) -> list[RejectedVideo]:
    missing = []
    for name, row in rows.items():
        if name in found:
            continue
        if name.startswith("../") or os.path.isabs(name):
            reason = f"named at {row['_where']}, but outside the folder: file names are relative to it"
        elif any(is_hidden(part) for part in PurePosixPath(name).parts):
            reason = f"named at {row['_where']}, but hidden: names that begin with a dot are not read"
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
        check_text("its path", episode_id)
    except ValueError as error:
        return RejectedVideo(os.fsencode(path).decode(errors="backslashreplace"), f"{error}: rename it")
    try:
        # A rate from the metadata says that frames are evenly spaced, whatever the container's times.
        info = check_video(path, every_frame=every_frame, constant_rate=row.get("fps") is None)
    except VideoError as error:
        return RejectedVideo(str(path), error.reason)
    except OSError as error:
        return RejectedVideo(str(path), f"it cannot be read: {error.strerror or error}")
    if info.num_frames < min_frames:
        frames = "1 frame" if info.num_frames == 1 else f"{info.num_frames} frames"
        return RejectedVideo(str(path), f"it holds {frames}; at least {min_frames} are needed to see a change")
    fps = row.get("fps") or info.fps
    if not fps:
        return RejectedVideo(
            str(path), f"it does not say its frame rate: give fps in {METADATA_FILE} or {METADATA_TABLE}"
        )
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
