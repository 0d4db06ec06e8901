"""LeRobot datasets of version 3.0 read without lerobot: those written here and published copies of LIBERO.

Pictures may be videos, several episodes in one file, or lie in the Parquet files.

Shapes: T frames, N frames asked for, H height, W width, C = 3 channels, D width of a column.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from ...libero_conventions import ACTION_DIM
from ...video import VideoError, VideoReader
from .demonstration import RobotEpisode, check_phases, check_vectors
from .lerobot_info import (
    ACTION_KEYS,
    CAMERA_KEYS,
    INFO_FILE,
    JOINTS_KEY,
    OURS,
    PHASE_KEY,
    STATE_KEYS,
    STORED_TRANSFORM,
    file_in,
    read_info,
)

_STATE_PARTS = {"ee_positions": slice(0, 3), "ee_axis_angles": slice(3, 6), "gripper_positions": slice(6, 8)}
# Open files a process; each holds a decoder with its buffers.
_OPEN_READERS = 16


def read_lerobot(root: str | Path) -> list[RobotEpisode]:
    """Opens a dataset; pictures are read when they are asked for.

    Cameras, state and actions are found by the names that published copies of LIBERO give them. Single pictures out of
    datasets that keep them in Parquet files are slow to get: let them be held in memory.

    Args:
        root: The folder with `meta/info.json`.

    Returns:
        Its episodes in their order. Pictures are as stored (`image_transform` is `stored_transform`); where the dataset
        does not say, that is turned by 180 degrees. Ids are `<instruction>/episode_<n>` where the dataset has no other.

    Raises:
        FileNotFoundError: The folder or one of its files is missing.
        ValueError: The dataset is of another version, has no such robot data, or is damaged.
    """
    folder = Path(root)
    info = read_info(folder)
    rows = _episode_rows(folder)
    layout = _Layout.of(folder, info)
    tables = _data_tables(folder, info, rows, layout)
    return [_read_episode(folder, info, row, table, layout) for row, table in zip(rows, tables, strict=True)]


@dataclass(frozen=True)
class VideoFrames:
    """A part of a video file.

    Attributes:
        path: The file.
        first: Frame of the file that is the episode's first.
        length: T.
        fps: Rate that the dataset gives.
    """

    path: Path
    first: int
    length: int
    fps: float

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 (N, H, W, C).

        Raises:
            VideoError: The file is damaged, or is not the one that the dataset describes.
        """
        reader = _video_reader(self.path, self.path.stat().st_mtime_ns if self.path.exists() else 0)
        fps = reader.info.fps
        if len(reader) < self.first + self.length or (fps is not None and abs(fps - self.fps) > 0.01 * self.fps):
            raise VideoError.about(
                self.path,
                f"it has {len(reader)} frames at {fps} a second, expected at least {self.first + self.length} "
                f"at {self.fps}: copy the dataset again",
            )
        return reader.read([self.first + index for index in indices]).permute(0, 2, 3, 1).numpy()


@dataclass(frozen=True)
class ParquetFrames:
    """Pictures in a column of a Parquet file, as encoded images.

    Attributes:
        path: The file.
        column: The column, of structs with `bytes`.
        first: Row that is the episode's first.
    """

    path: Path
    column: str
    first: int

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 (N, H, W, C).

        Raises:
            ValueError: A picture is missing or no picture.
        """
        file = pq.ParquetFile(self.path)
        pictures: list[NDArray[np.uint8]] = []
        wanted, start = [self.first + index for index in indices], 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            rows = [row - start for row in wanted if start <= row < end]
            if rows:
                column = file.read_row_group(group, columns=[self.column]).column(self.column)
                pictures += [self._picture(column[row].as_py(), start + row) for row in rows]
            start = end
        return np.stack(pictures)

    def _picture(self, value: Any, row: int) -> NDArray[np.uint8]:
        data = value.get("bytes") if isinstance(value, dict) else None
        if data is None:
            raise ValueError(f"{self.path}: {self.column}, row {row}: holds no picture, only {value!r}")
        try:
            return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        except OSError as error:
            raise ValueError(f"{self.path}: {self.column}, row {row}: cannot be decoded ({error})") from error


@dataclass(frozen=True)
class LeRobotFrames:
    """Frames of one episode, by camera."""

    cameras: dict[str, VideoFrames | ParquetFrames]

    def read(self, camera: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 (N, H, W, C) for ascending indices."""
        return self.cameras[camera].read(indices)


@dataclass(frozen=True)
class _Layout:
    """What a dataset calls its columns: cameras by our name, and the columns of numbers with their widths."""

    cameras: dict[str, str]
    action: str
    state: str | None
    joints: str | None
    phase: str | None

    @classmethod
    def of(cls, root: Path, info: dict[str, Any]) -> _Layout:
        features = info["features"]
        found = {camera: _first_of(keys, features) for camera, keys in CAMERA_KEYS.items()}
        action, state = _first_of(ACTION_KEYS, features), _first_of(STATE_KEYS, features)
        cameras = {camera: key for camera, key in found.items() if key is not None}
        if action is None or not cameras:
            lacking = "actions" if action is None else "cameras"
            known = ACTION_KEYS if action is None else [key for keys in CAMERA_KEYS.values() for key in keys]
            raise ValueError(
                f"{root / INFO_FILE}: has no {lacking} of LIBERO: got features {', '.join(features)}, "
                f"expected one of {', '.join(known)}"
            )
        widths = {key: tuple(features[key].get("shape", ())) for key in (action, state) if key is not None}
        if widths[action] != (ACTION_DIM,):
            raise ValueError(f"{root / INFO_FILE}: {action}: got shape {widths[action]}, expected ({ACTION_DIM},)")
        return cls(
            cameras=cameras,
            action=action,
            # A state of another width is another robot's, or laid out in a way that the dataset does not tell.
            state=state if state is not None and widths[state] == (8,) else None,
            joints=JOINTS_KEY if JOINTS_KEY in features else None,
            phase=PHASE_KEY if PHASE_KEY in features else None,
        )

    @property
    def columns(self) -> list[str]:
        return ["episode_index", *(key for key in (self.action, self.state, self.joints, self.phase) if key)]


def _first_of(keys: Sequence[str], features: dict[str, Any]) -> str | None:
    return next((key for key in keys if key in features), None)


def _episode_rows(root: Path) -> list[dict[str, Any]]:
    files = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise FileNotFoundError(f"{root / 'meta' / 'episodes'}: there are no episodes here: record or copy some first")
    rows: list[dict[str, Any]] = []
    for file in files:
        names = [name for name in _parquet_schema(file).names if not name.startswith("stats/")]
        rows += pq.read_table(file, columns=names).to_pylist()
    if not rows:
        raise ValueError(f"{root / 'meta' / 'episodes'}: has no episodes: record or copy some first")
    needed = ("episode_index", "length", "tasks", "data/chunk_index", "data/file_index")
    for row in rows:
        missing = [key for key in needed if row.get(key) is None]
        if missing:
            raise ValueError(f"{root}: meta/episodes, episode {row.get('episode_index')}: lacks {', '.join(missing)}")
        if len(row["tasks"]) != 1:
            raise ValueError(f"{root}: episode {row['episode_index']}: got tasks {row['tasks']}, expected one")
    return sorted(rows, key=lambda row: row["episode_index"])


def _parquet_schema(file: Path) -> pa.Schema:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file: copy the dataset again")
    try:
        return pq.read_schema(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file}: not a Parquet file ({error}): copy or record it again") from error


def _data_tables(
    root: Path, info: dict[str, Any], rows: Sequence[dict[str, Any]], layout: _Layout
) -> list[tuple[Path, int, pa.Table]]:
    """File, row of the first frame in it, and columns of each episode."""
    found = []
    path, table = None, pa.table({})
    for row in rows:
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        file = file_in(root, info["data_path"], **place)
        if file != path:
            missing = [name for name in layout.columns if name not in _parquet_schema(file).names]
            if missing:
                raise ValueError(f"{file}: lacks the columns {', '.join(missing)}, which {INFO_FILE} describes")
            path, table = file, pq.read_table(file, columns=layout.columns)
        places = np.flatnonzero(table.column("episode_index").to_numpy() == row["episode_index"])
        if len(places) != row["length"] or (np.diff(places) != 1).any():
            raise ValueError(
                f"{file}: episode {row['episode_index']}: got {len(places)} rows, expected {row['length']} together"
            )
        found.append((file, int(places[0]), table.slice(places[0], len(places))))
    return found


def _read_episode(
    root: Path, info: dict[str, Any], row: dict[str, Any], data: tuple[Path, int, pa.Table], layout: _Layout
) -> RobotEpisode:
    file, first, table = data
    where = f"{file}: episode {row['episode_index']}"
    length, language, ours = row["length"], row["tasks"][0], info.get(OURS, {})
    actions = _vectors(where, table, layout.action, ACTION_DIM)
    robot = {}
    if layout.state is not None:
        state = _vectors(where, table, layout.state, 8)
        robot = {name: state[:, part] for name, part in _STATE_PARTS.items()}
    if layout.joints is not None:
        robot["joint_positions"] = _vectors(where, table, layout.joints, 7)
    frames = {
        camera: _frames(root, info, row, key, ParquetFrames(file, key, first)) for camera, key in layout.cameras.items()
    }
    # The instruction is all that published datasets tell of the task.
    task = row.get(f"{OURS}/task") or re.sub(r"[^\w-]+", "_", language.lower()).strip("_") or "task"
    stored = ours.get("image_transform", STORED_TRANSFORM)
    return RobotEpisode(
        id=row.get(f"{OURS}/id") or f"{task}/episode_{row['episode_index']:06d}",
        task=task,
        language=language,
        num_frames=length,
        fps=float(info["fps"]),
        actions=actions,
        proprioception=robot,
        phases=_phases(where, table, layout),
        source=ours.get("source", "unknown"),
        camera_names=tuple(layout.cameras),
        reader=LeRobotFrames(frames),
        stored_transform=stored,
        image_transform=stored,
        metadata=_metadata(row) | {"episode_index": row["episode_index"]},
    )


def _frames(
    root: Path, info: dict[str, Any], row: dict[str, Any], key: str, in_table: ParquetFrames
) -> VideoFrames | ParquetFrames:
    if info["features"][key]["dtype"] == "image":
        return in_table
    where = f"{root}: meta/episodes, episode {row['episode_index']}"
    names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
    place: dict[str, Any] = {name: row.get(f"videos/{key}/{name}") for name in names}
    if None in place.values() or not info.get("video_path"):
        raise ValueError(f"{where}: does not say where the video of {key} is")
    start, end = place["from_timestamp"], place["to_timestamp"]
    if round((end - start) * info["fps"]) != row["length"]:
        raise ValueError(f"{where}: {key}: {start} to {end} s are not {row['length']} frames at {info['fps']} a second")
    indices = {name: place[name] for name in ("chunk_index", "file_index")}
    path = file_in(root, info["video_path"], video_key=key, **indices)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file: copy the dataset again")
    return VideoFrames(path, round(start * info["fps"]), row["length"], float(info["fps"]))


def _vectors(where: str, table: pa.Table, key: str, width: int) -> NDArray[np.float32]:
    column = table.column(key)
    widths = pc.unique(pc.list_value_length(column)).to_pylist() if _is_list(column.type) else [None]
    if widths != [width]:
        raise ValueError(f"{where}: {key}: got rows of {widths} numbers, expected {width} in each")
    values = pc.list_flatten(column).to_numpy().reshape(len(table), width)
    check_vectors(where, key, values, len(table), width)
    return values.astype(np.float32)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _phases(where: str, table: pa.Table, layout: _Layout) -> list[str] | None:
    """Names, or None where the recording does not tell them: then all are empty."""
    names = [] if layout.phase is None else table.column(layout.phase).to_pylist()
    if not any(names):
        return None
    check_phases(where, names, len(table))
    return names


def _metadata(row: dict[str, Any]) -> dict[str, Any]:
    found = {name: row[f"{OURS}/{name}"] for name in ("seed", "initial_state", "success") if f"{OURS}/{name}" in row}
    if f"{OURS}/metadata" in row:
        found["metadata"] = json.loads(row[f"{OURS}/metadata"])
    return found


@lru_cache(maxsize=_OPEN_READERS)
def _video_reader(path: Path, modified: int) -> VideoReader:
    """An open file; one that was replaced is opened again."""
    return VideoReader(path)
