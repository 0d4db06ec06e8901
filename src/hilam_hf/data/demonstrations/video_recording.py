"""Labelled demonstrations: the videos in one folder, the actions in another, so that pretraining cannot see them.

```
root/videos/<task>/episode_00000.mp4            what `scan_videos` reads
root/videos/metadata.jsonl                      instruction, task and rate of each video
root/demonstrations/<task>/episode_00000.parquet    actions, proprioception, phases: one row a file
```

Frame t is the observation before action t: T frames and T actions. Shapes: A width of an action, P of `agent_pos`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, List, Value
from numpy.typing import NDArray
from torch import Tensor

from ...files import atomic_path, disk_errors, write_text
from ...video import write_video
from ..corpora.rows import to_numpy
from ..episodes import METADATA_FILE

VIDEOS = "videos"
DEMONSTRATIONS = "demonstrations"
_VECTORS = ("actions", "agent_pos")


def demonstration_features(action_dim: int, agent_pos_dim: int) -> Features:
    """The columns of a demonstration.

    Args:
        action_dim: A.
        agent_pos_dim: P.
    """
    return Features(
        {
            "id": Value("string"),
            "task": Value("string"),
            "language": Value("string"),
            "seed": Value("int64"),
            "fps": Value("float64"),
            "num_frames": Value("int32"),
            "video": Value("string"),
            "actions": List(List(Value("float32"), length=action_dim)),
            "agent_pos": List(List(Value("float32"), length=agent_pos_dim)),
            "ee_position": List(List(Value("float32"), length=3)),
            "success": Value("bool"),
            "phases": List(Value("string")),
        }
    )


class DemonstrationWriter:
    """Records demonstrations one episode at a time; each is on disk, whole, when `add` returns.

    An interrupted recording is continued by opening the same folder: `has(id)` says which episodes are complete.

    Args:
        root: Folder of the demonstrations; created when absent.

    Example:
        >>> with DemonstrationWriter("demonstrations") as writer:
        ...     if not writer.has("drawer-open/episode_00000"):
        ...         writer.add("drawer-open/episode_00000", task="drawer-open", language="open the drawer", ...)
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.videos = self.root / VIDEOS
        with disk_errors(self.root):
            self.videos.mkdir(parents=True, exist_ok=True)
            (self.root / DEMONSTRATIONS).mkdir(exist_ok=True)
        self._metadata = self._recover_metadata()

    def __enter__(self) -> DemonstrationWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the recording. Every episode is on disk already; this is here for symmetry with other writers."""

    def has(self, episode_id: str) -> bool:
        """Whether the episode was recorded completely, now or before."""
        return self._row_file(episode_id).is_file()

    def add(
        self,
        id: str,
        *,
        task: str,
        language: str,
        fps: float,
        frames: Tensor | NDArray[np.uint8],
        actions: Any,
        agent_pos: Any,
        ee_position: Any,
        success: bool,
        phases: Sequence[str] | None = None,
        seed: int | None = None,
        source: str | None = None,
    ) -> None:
        """Writes one episode: its video, its line of metadata.jsonl, then its actions, which make it complete.

        Args:
            id: `<task>/<name>`; also the path of the video below `videos`, without suffix.
            task: Name of the task.
            language: The instruction in words.
            fps: Control steps, and so frames, a second.
            frames: uint8 (T, 3, H, W) RGB, H and W even.
            actions: (T, A), in the environment's units.
            agent_pos: (T, P), proprioception.
            ee_position: (T, 3), end effector in metres; the ground truth of probes, not for policies.
            success: Whether the task was solved.
            phases: T names, in which phase of the task each action was chosen: the ground truth of segmentation, as it
                came (`smooth_phases` cleans it); None where that is not known.
            seed: Seed of the reset.
            source: Name of the data set or simulator, for metadata.jsonl.

        Raises:
            ValueError: The id was recorded before or is no `<task>/<name>`, or shapes do not fit.
            OSError: The disk is full; episodes added before are complete.
        """
        if self.has(id):
            raise ValueError(f"episode {id!r} was already recorded in {self.root}: skip it (see has) or use another id")
        frames = _as_tensor(frames)
        arrays = _check_arrays(id, len(frames), actions=actions, agent_pos=agent_pos, ee_position=ee_position)
        file_name = f"{id}.mp4"
        row = {
            "id": id,
            "task": task,
            "language": language,
            "seed": seed,
            "fps": float(fps),
            "num_frames": len(frames),
            "video": f"{VIDEOS}/{file_name}",
            **{name: array.tolist() for name, array in arrays.items()},
            "success": bool(success),
            "phases": _check_phases(id, len(frames), phases),
        }
        features = demonstration_features(arrays["actions"].shape[1], arrays["agent_pos"].shape[1])
        table = pa.Table.from_pylist([row], schema=features.arrow_schema)
        write_video(self.videos / file_name, frames, fps)
        entry = {"file_name": file_name, "source": source, "language": language, "fps": float(fps), "task": task}
        self._describe({key: value for key, value in entry.items() if value is not None})
        with atomic_path(self._row_file(id)) as temporary:
            pq.write_table(table, temporary)

    def _row_file(self, episode_id: str) -> Path:
        # Both files are named after the id: it must stay below the folder and keep its suffix-free form.
        if not re.fullmatch(r"[\w-]+(/[\w-]+)+", episode_id):
            raise ValueError(
                f"id: got {episode_id!r}, expected <task>/<name> of letters, digits, '-' and '_', "
                "such as 'drawer-open/episode_00000'"
            )
        return self.root / DEMONSTRATIONS / f"{episode_id}.parquet"

    def _describe(self, entry: dict[str, Any]) -> None:
        """Adds the video's line to metadata.jsonl; a line that an interrupted episode left is replaced."""
        file = self.videos / METADATA_FILE
        name = entry["file_name"]
        if name in self._metadata:
            if self._metadata[name] != entry:
                self._metadata[name] = entry
                write_text(file, "".join(_line(row) for row in self._metadata.values()))
            return
        with disk_errors(file):
            _append(file, _line(entry))
        self._metadata[name] = entry

    def _recover_metadata(self) -> dict[str, dict[str, Any]]:
        """Lines of metadata.jsonl by file name, after cutting off a last line that a crash left unfinished."""
        file = self.videos / METADATA_FILE
        if not file.exists():
            return {}
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
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


def load_demonstrations(
    root: str | Path, tasks: Sequence[str] | str | None = None, max_per_task: int | None = None
) -> Dataset:
    """Loads demonstrations, ordered by task and id.

    Args:
        root: The folder that `DemonstrationWriter` wrote; the recording may have been interrupted.
        tasks: Tasks to load; None loads all.
        max_per_task: Demonstrations a task, the first by id; None loads all.

    Returns:
        One row an episode, columns as in `demonstration_features`; `video` is a path relative to `root`, `phases` is
        None where the recording does not tell them.

    Raises:
        FileNotFoundError: There are no demonstrations at `root`.
        ValueError: A task has none, or tasks differ in the width of actions or proprioception.
    """
    folder = Path(root) / DEMONSTRATIONS
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder}: there are no demonstrations here: record some first")
    wanted = [tasks] if isinstance(tasks, str) else tasks
    taken: dict[str, list[pa.Table]] = {}
    for table in _tables(files):
        task = table.column("task")[0].as_py()
        rows = taken.setdefault(task, [])
        if (wanted is None or task in wanted) and (max_per_task is None or len(rows) < max_per_task):
            rows.append(table)
    unknown = [task for task in wanted or () if task not in taken]
    if unknown:
        raise ValueError(f"{root}: no demonstrations of {', '.join(unknown)}; there are those of {', '.join(taken)}")
    names = sorted(taken) if wanted is None else list(dict.fromkeys(wanted))
    tables = [table for name in names for table in taken[name]]
    if not tables:
        raise ValueError(f"max_per_task: got {max_per_task}, expected at least 1")
    _check_same_schema(tables)
    schema = demonstration_features(*(_width(tables[0], column) for column in _VECTORS)).arrow_schema
    return Dataset(pa.concat_tables([_with_phases(table, schema) for table in tables]))


def _tables(files: Sequence[Path]) -> Iterator[pa.Table]:
    for file in files:
        try:
            yield pq.read_table(file)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{file}: not a Parquet file ({error}): delete it and record the episode again") from error


def _check_same_schema(tables: Sequence[pa.Table]) -> None:
    first = tables[0]
    for table in tables[1:]:
        for column in _VECTORS:
            got, expected = (_width(t, column) for t in (table, first))
            if got != expected:
                raise ValueError(
                    f"{column} of {table.column('id')[0]} are {got} wide and those of {first.column('id')[0]} "
                    f"{expected}: load tasks of one robot at a time (option tasks)"
                )


def _width(table: pa.Table, column: str) -> int:
    return int(table.schema.field(column).type.value_type.list_size)


def _with_phases(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Gives the demonstrations of a recording from before phases were recorded their column, empty."""
    if "phases" in table.column_names:
        return table
    missing = pa.nulls(len(table), schema.field("phases").type)
    return pa.Table.from_arrays([*table.columns, missing], schema=schema)


def _as_tensor(frames: Tensor | NDArray[np.uint8]) -> Tensor:
    import torch

    return frames if isinstance(frames, Tensor) else torch.from_numpy(np.ascontiguousarray(frames))


def _check_arrays(id: str, num_frames: int, **arrays: Any) -> Mapping[str, NDArray[np.float32]]:
    checked: dict[str, NDArray[np.float32]] = {}
    for name, values in arrays.items():
        array = to_numpy(values).astype(np.float32)
        if array.ndim != 2 or len(array) != num_frames or (name == "ee_position" and array.shape[1] != 3):
            width = "3" if name == "ee_position" else "width"
            raise ValueError(
                f"episode {id!r}: {name}: got shape {array.shape}, expected ({num_frames}, {width}): "
                "one row a frame, each frame being seen before its action"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"episode {id!r}: {name}: has NaN or infinite values")
        checked[name] = array
    return checked


def _check_phases(id: str, num_frames: int, phases: Sequence[str] | None) -> list[str] | None:
    if phases is None:
        return None
    if len(phases) != num_frames or not all(isinstance(name, str) and name for name in phases):
        raise ValueError(
            f"episode {id!r}: phases: got {len(phases)} values such as {list(phases[:3])!r}, expected {num_frames} "
            "names, one a frame"
        )
    return list(map(str, phases))


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
