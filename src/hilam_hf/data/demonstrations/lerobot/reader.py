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
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from ....files import walk_files
from ....fingerprint import data_fingerprint, file_fingerprint
from ....recorded import check_phases, check_vectors
from ....video.pixels import PICTURE_FORMATS
from ..demonstration import Demonstration, DemonstrationFormat
from ..video_frames import CameraFrames, VideoFrames
from .info import INFO_FILE, OURS, PHASE_KEY, file_in, read_info
from .layout import LeRobotLayout, StateColumn
from .libero import LIBERO
from .writer import LeRobotWriter


def read_lerobot(root: str | Path) -> list[Demonstration]:
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
    columns = _Columns.of(folder, info, LIBERO)
    tables = _data_tables(folder, info, rows, columns)
    return [_read_episode(folder, info, row, table, columns) for row, table in zip(rows, tables, strict=True)]


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

    def fingerprint(self) -> str:
        """By column, row and both ends of the file."""
        return data_fingerprint(self.column, self.first, file_fingerprint(self.path))

    def _picture(self, value: Any, row: int) -> NDArray[np.uint8]:
        data = value.get("bytes") if isinstance(value, dict) else None
        if data is None:
            raise ValueError(f"{self.path}: {self.column}, row {row}: holds no picture, only {value!r}")
        try:
            return np.asarray(Image.open(io.BytesIO(data), formats=PICTURE_FORMATS).convert("RGB"))
        # Pillow raises SyntaxError for broken chunks of a PNG.
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{self.path}: {self.column}, row {row}: cannot be decoded ({error})") from error


@dataclass(frozen=True)
class _Columns:
    """What a dataset calls its columns: cameras by our name, actions, and those of the proprioception that it has."""

    layout: LeRobotLayout
    cameras: dict[str, str]
    action: str
    states: dict[str, StateColumn]
    phase: str | None

    @classmethod
    def of(cls, root: Path, info: dict[str, Any], layout: LeRobotLayout) -> _Columns:
        features = info["features"]
        found = {camera: _first_of(keys, features) for camera, keys in layout.cameras.items()}
        cameras = {camera: key for camera, key in found.items() if key is not None}
        action = _first_of(layout.action_keys, features)
        if action is None or not cameras:
            lacking = "actions" if action is None else "cameras"
            known = layout.action_keys if action is None else [key for keys in layout.cameras.values() for key in keys]
            raise ValueError(
                f"{root / INFO_FILE}: has no {lacking} of {layout.robot.environment}: got features "
                f"{', '.join(features)}, expected one of {', '.join(known)}"
            )
        if (shape := _shape(features, action)) != (layout.robot.action_dim,):
            raise ValueError(f"{root / INFO_FILE}: {action}: got shape {shape}, expected ({layout.robot.action_dim},)")
        keys = {_first_of(state.keys, features): state for state in layout.states}
        # A state of another width is another robot's, or laid out in a way that the dataset does not tell.
        states = {key: state for key, state in keys.items() if key and _shape(features, key) == (layout.width(state),)}
        return cls(layout, cameras, action, states, PHASE_KEY if PHASE_KEY in features else None)

    @property
    def names(self) -> list[str]:
        return ["episode_index", self.action, *self.states, *([self.phase] if self.phase else [])]


def _shape(features: dict[str, Any], key: str) -> tuple[int, ...]:
    return tuple(features[key].get("shape", ()))


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
    root: Path, info: dict[str, Any], rows: Sequence[dict[str, Any]], columns: _Columns
) -> list[tuple[Path, int, pa.Table]]:
    """File, row of the first frame in it, and columns of each episode."""
    found = []
    path, table = None, pa.table({})
    for row in rows:
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        file = file_in(root, info["data_path"], **place)
        if file != path:
            missing = [name for name in columns.names if name not in _parquet_schema(file).names]
            if missing:
                raise ValueError(f"{file}: lacks the columns {', '.join(missing)}, which {INFO_FILE} describes")
            path, table = file, pq.read_table(file, columns=columns.names)
        places = np.flatnonzero(table.column("episode_index").to_numpy() == row["episode_index"])
        if len(places) != row["length"] or (np.diff(places) != 1).any():
            raise ValueError(
                f"{file}: episode {row['episode_index']}: got {len(places)} rows, expected {row['length']} together"
            )
        found.append((file, int(places[0]), table.slice(places[0], len(places))))
    return found


def _read_episode(
    root: Path, info: dict[str, Any], row: dict[str, Any], data: tuple[Path, int, pa.Table], columns: _Columns
) -> Demonstration:
    file, first, table = data
    where = f"{file}: episode {row['episode_index']}"
    language, ours = row["tasks"][0], info.get(OURS, {})
    actions = _vectors(where, table, columns.action, columns.layout.robot.action_dim)
    robot: dict[str, NDArray[np.float32]] = {}
    for key, state in columns.states.items():
        robot |= _parts(_vectors(where, table, key, columns.layout.width(state)), state, columns.layout)
    frames = {
        camera: _frames(root, info, row, key, ParquetFrames(file, key, first))
        for camera, key in columns.cameras.items()
    }
    # The instruction is all that published datasets tell of the task.
    task = row.get(f"{OURS}/task") or re.sub(r"[^\w-]+", "_", language.lower()).strip("_") or "task"
    stored = ours.get("image_transform", columns.layout.image_transform)
    return Demonstration(
        id=row.get(f"{OURS}/id") or f"{task}/episode_{row['episode_index']:06d}",
        task=task,
        language=language,
        fps=float(info["fps"]),
        actions=actions,
        proprioception=robot,
        robot=columns.layout.robot,
        phases=_phases(where, table, columns),
        source=ours.get("source", "unknown"),
        cameras=tuple(columns.cameras),
        reader=CameraFrames(frames),
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
    return VideoFrames(path, float(start), row["length"], float(info["fps"]))


def _parts(values: NDArray[np.float32], state: StateColumn, layout: LeRobotLayout) -> dict[str, NDArray[np.float32]]:
    ends = np.cumsum([layout.robot.proprioception[part] for part in state.parts])
    return dict(zip(state.parts, np.split(values, ends[:-1], axis=1), strict=True))


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


def _phases(where: str, table: pa.Table, columns: _Columns) -> list[str] | None:
    """Names, or None where the recording does not tell them: then all are empty."""
    names = [] if columns.phase is None else table.column(columns.phase).to_pylist()
    if not any(names):
        return None
    check_phases(where, names, len(table))
    return names


def _metadata(row: dict[str, Any]) -> dict[str, Any]:
    found = {name: row[f"{OURS}/{name}"] for name in ("seed", "initial_state", "success") if f"{OURS}/{name}" in row}
    if f"{OURS}/metadata" in row:
        found["metadata"] = json.loads(row[f"{OURS}/metadata"])
    return found


def _datasets(path: Path) -> list[Path]:
    if (path / INFO_FILE).is_file():
        return [path]
    name = Path(INFO_FILE)
    found = walk_files(path) if path.is_dir() else ()
    return sorted(file.parent.parent for file in found if file.parts[-2:] == name.parts)


FORMAT = DemonstrationFormat(
    name="lerobot",
    looks_like=f"LeRobot datasets of LIBERO, with {INFO_FILE}",
    recognises=lambda path: bool(_datasets(path)),
    read=lambda path: [demonstration for root in _datasets(path) for demonstration in read_lerobot(root)],
    writer=LeRobotWriter,
    folder="lerobot",
)
