"""One row of a corpus: its columns, its checks, and its Arrow form.

Shapes: T frames, k stride, N latent actions (T - k), D their width; S_s segments of stage s, D_s the width of a skill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from datasets import Features, List, Value, Video
from numpy.typing import NDArray

from ...recorded import check_text
from .info import CorpusInfo

VideoColumn = Literal["path", "embed"]
"""How a corpus refers to a video: by relative path, or with the file itself inside (a `Video` feature)."""

_LATENT_KEYS = frozenset(
    ("id", "source", "language", "fps", "num_frames", "stride", "frame_indices", "latent_actions", "video")
)
_REQUIRED_KEYS = ("id", "fps", "num_frames", "latent_actions")


def corpus_features(info: CorpusInfo, video: VideoColumn = "path") -> Features:
    """The columns of a corpus, all of them plain `datasets` features.

    Args:
        info: Gives `kind`, `latent_dim` and `skill_dims`.
        video: Whether the video column is a path or holds the file.
    """
    columns: dict[str, Any] = {
        "id": Value("string"),
        "source": Value("string"),
        "language": Value("string"),
        "fps": Value("float64"),
        "num_frames": Value("int32"),
        "stride": Value("int32"),
        "frame_indices": List(Value("int32")),
        "latent_actions": List(List(Value("float32" if info.codebook is None else "int32"), length=info.latent_dim)),
        "video": Video() if video == "embed" else Value("string"),
    }
    if info.kind == "latent-skills":
        columns["num_latents"] = Value("int32")
        for stage, dim in info.skill_dims.items():
            columns[f"stage{stage}_boundaries"] = Value("binary")
            columns[f"stage{stage}_skills"] = List(List(Value("float32"), length=dim))
    return Features(columns)


def check_row(row: Mapping[str, Any], info: CorpusInfo) -> dict[str, Any]:
    """A row with every column present, arrays as numpy, and all shapes checked.

    Args:
        row: `id`, `fps`, `num_frames` and `latent_actions` (N, D); optionally `source`, `language`, `video`, `stride`
            (default `info.stride`) and `frame_indices` (default 0..T-k-1). For skills also, for each stage s of
            `info.skill_dims`, `stage{s}_boundaries` bool (N,) at the resolution of latent actions and
            `stage{s}_skills` (S_s, D_s). Arrays may be numpy, torch or lists.
        info: What the corpus holds.

    Returns:
        The complete row; boundaries are still one bool a latent action.

    Raises:
        ValueError: A key is missing or unknown, or a shape or value does not fit; the message names the episode.
    """
    name = f"episode {row.get('id', '(without id)')!r}"
    for key in ("id", "source", "language", "video"):
        check_text(f"{name}: {key}", str(row.get(key)))
    _check_keys(row, info, name)
    latents: NDArray[Any] = _vectors(row["latent_actions"], info.latent_dim, f"{name}: latent_actions")
    if info.codebook is not None:
        latents = _codes(latents, len(info.codebook), f"{name}: latent_actions")
    stride = row.get("stride", info.stride)
    num_frames = int(row["num_frames"])
    if stride is None or not 1 <= int(stride) < num_frames:
        raise ValueError(f"{name}: stride: got {stride}, expected frames from 1 to num_frames - 1 = {num_frames - 1}")
    fps = float(row["fps"])
    if not 0 < fps < math.inf:
        raise ValueError(f"{name}: fps: got {fps}, expected frames a second, above 0")
    checked = {
        "id": str(row["id"]),
        "source": row.get("source"),
        "language": row.get("language"),
        "fps": fps,
        "num_frames": num_frames,
        "stride": int(stride),
        "frame_indices": _frame_indices(row.get("frame_indices"), len(latents), num_frames - int(stride), name),
        "latent_actions": latents,
        "video": None if row.get("video") is None else str(row["video"]),
    }
    if info.kind == "latent-skills":
        checked["num_latents"] = len(latents)
        for stage, dim in info.skill_dims.items():
            checked |= _check_stage(row, stage, dim, len(latents), name)
    return checked


def rows_to_table(rows: Sequence[Mapping[str, Any]], info: CorpusInfo, video: VideoColumn) -> pa.Table:
    """Checked rows as an Arrow table with the schema of `corpus_features`, metadata included.

    Raises:
        FileNotFoundError: With `video="embed"`, a video is missing.
    """
    schema = corpus_features(info, video).arrow_schema
    builders: dict[str, Callable[[list[Any]], pa.Array]] = {
        "frame_indices": _index_lists,
        "latent_actions": _vector_lists,
    }
    for stage in info.skill_dims:
        builders[f"stage{stage}_boundaries"] = lambda column: pa.array([pack_boundaries(b) for b in column])
        builders[f"stage{stage}_skills"] = _vector_lists
    if video == "embed":
        builders["video"] = _embedded_videos
    columns = []
    for column in schema:
        values = [row[column.name] for row in rows]
        array = builders[column.name](values) if column.name in builders else pa.array(values, type=column.type)
        columns.append(array.cast(column.type))
    return pa.Table.from_arrays(columns, schema=schema)


def pack_boundaries(boundaries: NDArray[np.bool_]) -> bytes:
    """One bit a latent action, least significant bit of each byte first."""
    return np.packbits(boundaries, bitorder="little").tobytes()


def to_numpy(values: Any) -> NDArray[Any]:
    """numpy array from numpy, torch (any device) or nested lists."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point():
            # numpy has no bfloat16.
            values = values.float()
        return values.numpy()
    return np.asarray(values)


def _check_keys(row: Mapping[str, Any], info: CorpusInfo, name: str) -> None:
    stage_keys = {f"stage{s}_{part}" for s in info.skill_dims for part in ("boundaries", "skills")}
    missing = [key for key in (*_REQUIRED_KEYS, *sorted(stage_keys)) if row.get(key) is None]
    if missing:
        raise ValueError(f"{name}: the row lacks {', '.join(missing)}")
    unknown = sorted(set(row) - _LATENT_KEYS - stage_keys - {"num_latents"})
    if unknown:
        known = ", ".join(sorted(_LATENT_KEYS | stage_keys))
        raise ValueError(f"{name}: unknown columns {', '.join(unknown)}; expected any of {known}")


def _vectors(values: Any, dim: int, where: str) -> NDArray[np.float32]:
    array = to_numpy(values)
    if array.ndim != 2 or array.shape[1] != dim or len(array) == 0:
        raise ValueError(f"{where}: got shape {array.shape}, expected (at least 1, {dim})")
    array = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: has NaN or infinite values")
    return array


def _codes(values: NDArray[np.float32], size: int, where: str) -> NDArray[np.int32]:
    codes = values.astype(np.int32)
    if (codes != values).any() or codes.min() < 0 or codes.max() >= size:
        raise ValueError(
            f"{where}: got values from {values.min():g} to {values.max():g}, expected codes from 0 to {size - 1}"
        )
    return codes


def _frame_indices(values: Any, num_latents: int, limit: int, name: str) -> NDArray[np.int32]:
    if values is None:
        if num_latents != limit:
            raise ValueError(
                f"{name}: got {num_latents} latent actions for {limit} frames that have one (num_frames - stride): "
                "give frame_indices to say which frames they belong to"
            )
        return np.arange(num_latents, dtype=np.int32)
    indices = to_numpy(values).astype(np.int32)
    if indices.shape != (num_latents,):
        raise ValueError(f"{name}: frame_indices: got shape {indices.shape}, expected ({num_latents},)")
    if indices[0] < 0 or indices[-1] >= limit or (np.diff(indices) <= 0).any():
        raise ValueError(f"{name}: frame_indices: expected increasing indices in [0, {limit}) (num_frames - stride)")
    return indices


def _check_stage(row: Mapping[str, Any], stage: int, dim: int, num_latents: int, name: str) -> dict[str, Any]:
    boundaries = to_numpy(row[f"stage{stage}_boundaries"])
    where = f"{name}: stage{stage}_boundaries"
    if boundaries.shape != (num_latents,) or not np.isin(boundaries, (0, 1)).all():
        raise ValueError(f"{where}: got shape {boundaries.shape}, expected ({num_latents},) of booleans")
    boundaries = boundaries.astype(bool)
    if not boundaries[0]:
        raise ValueError(f"{where}: the first latent action must start a segment")
    skills = _vectors(row[f"stage{stage}_skills"], dim, f"{name}: stage{stage}_skills")
    if len(skills) != boundaries.sum():
        raise ValueError(
            f"{name}: stage {stage} has {int(boundaries.sum())} boundaries but {len(skills)} skills: "
            "expected one skill a segment, not repeated for each frame"
        )
    return {f"stage{stage}_boundaries": boundaries, f"stage{stage}_skills": skills}


def _offsets(arrays: Sequence[NDArray[Any]]) -> pa.Array:
    return pa.array(np.cumsum([0, *(len(array) for array in arrays)]), type=pa.int32())


def _index_lists(arrays: list[NDArray[np.int32]]) -> pa.Array:
    return pa.ListArray.from_arrays(_offsets(arrays), pa.array(np.concatenate(arrays)))


def _vector_lists(arrays: list[NDArray[Any]]) -> pa.Array:
    flat = pa.array(np.concatenate(arrays).reshape(-1))
    return pa.ListArray.from_arrays(_offsets(arrays), pa.FixedSizeListArray.from_arrays(flat, arrays[0].shape[1]))


def _embedded_videos(paths: list[str | None]) -> pa.Array:
    structs = [None if path is None else {"bytes": Path(path).read_bytes(), "path": Path(path).name} for path in paths]
    return pa.array(structs, type=Video().pa_type)
