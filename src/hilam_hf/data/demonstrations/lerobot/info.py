"""What describes a LeRobot dataset of version 3.0: names of files and columns, `info.json`, and statistics.

Names and meanings are those of huggingface/lerobot 0.4 (`src/lerobot/datasets`); nothing of lerobot is needed.

Shapes: T frames, H height, W width, C = 3 channels, D width of a column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Features, List, Value
from numpy.typing import NDArray

from ....files import path_inside
from ....video.pixels import MAX_LEVEL
from ...metadata import read_text
from .layout import LeRobotLayout

VERSION = "v3.0"
INFO_FILE = "meta/info.json"
STATS_FILE = "meta/stats.json"
TASKS_FILE = "meta/tasks.parquet"
EPISODES_FILE = "meta/episodes/chunk-000/file-000.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
CHUNK_SIZE = 1000
"""Files a folder."""

OURS = "hilam"
"""Key in `info.json`, and prefix of columns of the episodes' table, of what LeRobot has no place for."""

PHASE_KEY = "phase"
_INDEX_COLUMNS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
# Pictures whose statistics are taken of an episode: LeRobot samples them, too.
_SAMPLED_PICTURES = 32
_CONVERTER = "python -m lerobot.datasets.v30.convert_dataset_v21_to_v30 --repo-id=<the dataset>"


def new_info(
    layout: LeRobotLayout,
    cameras: Mapping[str, tuple[int, int]],
    *,
    fps: float,
    source: str,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """`info.json` of a dataset without episodes.

    Args:
        layout: The columns.
        cameras: (H, W) of each camera's pictures.
        fps: Frames a second.
        source: Who acts: "scripted" or "human".
        provenance: What decides how episodes come out; plain JSON.
    """
    rate = int(fps) if float(fps).is_integer() else float(fps)
    videos = {layout.cameras[camera][0]: _video_feature(size, rate) for camera, size in cameras.items()}
    return {
        "codebase_version": VERSION,
        "robot_type": layout.robot.name,
        "total_episodes": 0,
        "total_frames": 0,
        "total_tasks": 0,
        "chunks_size": CHUNK_SIZE,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 500,
        "fps": rate,
        "splits": {},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": {
            **videos,
            **{state.keys[0]: _vector_feature(state.names) for state in layout.states},
            layout.action_keys[0]: _vector_feature(layout.robot.action_names),
            PHASE_KEY: {"dtype": "string", "shape": [1], "names": None},
            **{name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in _INDEX_COLUMNS.items()},
        },
        OURS: {
            "source": source,
            "image_transform": layout.image_transform,
            "observations": "before_action",
            "provenance": dict(provenance),
        },
    }


def data_features(layout: LeRobotLayout) -> Features:
    """Columns of the frames' Parquet files that are written here."""
    vectors = {state.keys[0]: layout.width(state) for state in layout.states}
    vectors[layout.action_keys[0]] = layout.robot.action_dim
    return Features(
        {
            **{name: List(Value("float32"), length=width) for name, width in vectors.items()},
            PHASE_KEY: Value("string"),
            **{name: Value(dtype) for name, dtype in _INDEX_COLUMNS.items()},
        }
    )


def read_info(root: Path) -> dict[str, Any]:
    """`info.json`, checked.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no JSON, of another version, or lacks something.
    """
    file = root / INFO_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file: {root} is not a LeRobot dataset of version 3.0")
    try:
        info = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: this is not JSON ({error})") from error
    version = info.get("codebase_version") if isinstance(info, dict) else None
    if version != VERSION:
        raise ValueError(
            f"{file}: codebase_version: got {version}, expected {VERSION}; datasets of v2.1 are converted by lerobot "
            f"itself: {_CONVERTER}"
        )
    missing = [key for key in ("fps", "features", "data_path") if not info.get(key)]
    if missing or not isinstance(info["features"], dict):
        raise ValueError(f"{file}: lacks {', '.join(missing) or 'a table of features'}: copy the dataset again")
    return info


def file_in(root: Path, template: str, **values: Any) -> Path:
    """A file of the dataset by a template of `info.json`.

    Raises:
        ValueError: The template is malformed or leads out of the dataset.
    """
    try:
        path = template.format(**values)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{root / INFO_FILE}: got the path template {template!r}, which cannot be filled in"
        ) from error
    return path_inside(root, path, where=f"{root / INFO_FILE}: the path template {template!r}")


def vector_statistics(values: NDArray[Any]) -> dict[str, Any]:
    """Statistics of a column of one episode, over frames.

    Args:
        values: (T, D), or (T,) for D = 1.

    Returns:
        min, max, mean, std (population), quantiles, each a list of D numbers, and count, a list of one.
    """
    rows = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    return _statistics(rows, len(rows), (-1,))


def picture_statistics(frames: NDArray[np.uint8]) -> dict[str, Any]:
    """Statistics of one camera's pictures, over some of an episode's frames, by channel and scaled to [0, 1].

    Args:
        frames: (T, H, W, C).

    Returns:
        As `vector_statistics`, each a (C, 1, 1) list; count is of pictures.
    """
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), _SAMPLED_PICTURES)).round().astype(int)
    pixels = frames[chosen].reshape(-1, frames.shape[3]) / MAX_LEVEL
    return _statistics(pixels, len(chosen), (-1, 1, 1))


def merge_statistics(episodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Statistics of one column over episodes, from those of each; quantiles are the weighted means of the episodes'."""
    parts = {name: np.array([episode[name] for episode in episodes], dtype=np.float64) for name in episodes[0]}
    mean_parts = parts["mean"]
    weights = parts["count"].reshape(-1, *[1] * (mean_parts.ndim - 1))
    total = weights.sum(axis=0)
    mean = (weights * mean_parts).sum(axis=0) / total
    variance = (weights * (parts["std"] ** 2 + (mean_parts - mean) ** 2)).sum(axis=0) / total
    merged = {"min": parts["min"].min(axis=0), "max": parts["max"].max(axis=0), "mean": mean, "std": np.sqrt(variance)}
    merged |= {name: (weights * parts[name]).sum(axis=0) / total for name in _QUANTILES}
    return {name: value.tolist() for name, value in merged.items()} | {"count": [int(parts["count"].sum())]}


def _statistics(rows: NDArray[np.float64], count: int, shape: tuple[int, ...]) -> dict[str, Any]:
    values = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    values |= dict(zip(_QUANTILES, np.quantile(rows, list(_QUANTILES.values()), axis=0), strict=True))
    return {name: value.reshape(shape).tolist() for name, value in values.items()} | {"count": [count]}


def _vector_feature(names: Sequence[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [len(names)], "names": {"motors": list(names)}}


def _video_feature(size: tuple[int, int], fps: float) -> dict[str, Any]:
    height, width = size
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        },
    }
