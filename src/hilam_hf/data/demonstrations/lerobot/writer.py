"""LeRobot datasets of version 3.0, written and read without lerobot.

```
meta/info.json  meta/stats.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
data/chunk-000/file-000.parquet                                         actions, state, phase: a row a frame
videos/observation.images.image/chunk-000/file-000.mp4                  the camera on the table
videos/observation.images.image2/chunk-000/file-000.mp4                 the camera on the wrist
```

Each episode has its own data and video files here, which the format allows; `read_lerobot` takes files of many
episodes, too.

Shapes: T frames, H height, W width, C = 3 channels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from ....files import atomic_path, write_text
from ....locks import FolderLock
from ....recorded import RecordedDemonstration
from ....video import write_video
from ....video.orientation import orient_frames
from .info import (
    CHUNK_SIZE,
    DATA_PATH,
    EPISODES_FILE,
    INFO_FILE,
    OURS,
    PHASE_KEY,
    STATS_FILE,
    TASKS_FILE,
    VIDEO_PATH,
    data_features,
    file_in,
    merge_statistics,
    new_info,
    picture_statistics,
    read_info,
    vector_statistics,
)
from .layout import LeRobotLayout
from .libero import LIBERO


class LeRobotWriter:
    """Writes demonstrations one at a time; each is on disk, whole, when `add` returns.

    Until it is closed (`close`, or the end of a `with` block), no other writer writes into the folder.

    Its row in the table of episodes makes an episode complete. An interrupted recording is continued by opening the
    same folder, which removes what an unfinished episode left and brings the descriptions up to date.

    Args:
        root: Folder of the dataset; created when absent.
        provenance: What decides how all episodes came out; plain JSON, kept in `info.json`.
        layout: The columns of the robot's datasets.
        crf: Quality of the videos, see `write_video`.

    Raises:
        ValueError: The folder holds a dataset that was not written here.
        FolderInUseError: Another writer writes into the folder.

    Example:
        >>> with LeRobotWriter("libero_goal_lerobot") as writer:
        ...     if not writer.has(episode_id("open_the_drawer", seed=0)):
        ...         writer.add(demonstration)
    """

    def __init__(
        self,
        root: str | Path,
        *,
        provenance: Mapping[str, Any] | None = None,
        layout: LeRobotLayout = LIBERO,
        crf: int = 18,
    ) -> None:
        self.root = Path(root)
        self.provenance = dict(provenance or {})
        self.layout = layout
        self.crf = crf
        self._info: dict[str, Any] | None = None
        self._table: pa.Table | None = None
        # The table's rows without their statistics, which are merged as episodes come.
        self._rows: list[dict[str, Any]] = []
        self._statistics: dict[str, dict[str, Any]] = {}
        self._lock = FolderLock(self.root, "a recording")
        self._lock.acquire()
        try:
            self._recover()
        except BaseException:
            self._lock.release()
            raise
        self._ids = {row[f"{OURS}/id"] for row in self._rows}

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the recording, so that another writer may go on. Every episode is on disk already."""
        self._lock.release()

    def has(self, episode_id: str) -> bool:
        """Whether the episode was recorded completely, now or before."""
        return episode_id in self._ids

    def add(self, demonstration: RecordedDemonstration) -> None:
        """Writes one demonstration as the next episode.

        Raises:
            ValueError: It was recorded before, is of another robot, lacks a part of the proprioception, or its cameras,
                picture sizes, rate or source differ from the dataset's; or the writer was closed.
            OSError: The disk is full; episodes added before are complete.
        """
        self._lock.check_held()
        if self.has(demonstration.id):
            raise ValueError(
                f"episode {demonstration.id!r} was already recorded in {self.root}: skip it (see has) "
                "or use another seed"
            )
        self._check_fits(demonstration)
        episode = len(self._rows)
        languages = self._languages(demonstration)
        columns = self._columns(demonstration, self._next_index(), episode, languages.index(demonstration.language))
        pictures = self._write_videos(episode, demonstration)
        with atomic_path(self._data_file(episode)) as temporary:
            pq.write_table(self._table_of(columns, demonstration.phases), temporary)
        statistics = {name: vector_statistics(values) for name, values in columns.items()} | pictures
        row = self._row(episode, demonstration)
        new = pa.Table.from_pylist([row | _flattened(statistics)])
        episodes = new if self._table is None else pa.concat_tables([self._table, new], promote_options="permissive")
        episodes = episodes.combine_chunks()
        with atomic_path(self.root / EPISODES_FILE) as temporary:
            pq.write_table(episodes, temporary)
        self._table = episodes
        self._rows.append(row)
        self._ids.add(demonstration.id)
        self._statistics = {
            name: merge_statistics([self._statistics[name], values] if self._statistics else [values])
            for name, values in statistics.items()
        }
        self._describe()

    def _recover(self) -> None:
        if not (self.root / INFO_FILE).exists():
            return
        self._info = read_info(self.root)
        if OURS not in self._info:
            raise ValueError(
                f"{self.root}: holds a LeRobot dataset that was not recorded here: record into another folder"
            )
        if (self.root / EPISODES_FILE).exists():
            self._table = pq.read_table(self.root / EPISODES_FILE)
            names = self._table.column_names
            self._rows = self._table.select([name for name in names if not name.startswith("stats/")]).to_pylist()
            self._statistics = _merged_statistics(self._table)
            self._describe()
        unfinished = [self._data_file(len(self._rows))]
        unfinished += [self._video_file(key, len(self._rows)) for key in self._video_keys()]
        for file in unfinished:
            file.unlink(missing_ok=True)

    def _check_fits(self, demonstration: RecordedDemonstration) -> None:
        robot = demonstration.robot
        if robot != self.layout.robot:
            raise ValueError(
                f"{demonstration.where}: got robot {robot.name} of {robot.environment}, but the dataset's columns are "
                f"those of {self.layout.robot.name} of {self.layout.robot.environment}: record in another format"
            )
        parts = [part for state in self.layout.states for part in state.parts]
        if missing := [part for part in parts if part not in demonstration.proprioception]:
            raise ValueError(f"{demonstration.where}: lacks proprioception {', '.join(missing)}, which datasets hold")
        sizes = {camera: np.shape(frames)[1:3] for camera, frames in demonstration.frames.items()}
        info = new_info(
            self.layout,
            sizes,
            fps=demonstration.fps,
            source=demonstration.source,
            provenance=self.provenance,
        )
        if self._info is None:
            self._info = info
            write_text(self.root / INFO_FILE, json.dumps(info, indent=4))
        for name in ("fps", "features"):
            if info[name] != self._info[name]:
                raise ValueError(
                    f"episode {demonstration.id!r}: got {sizes} at {demonstration.fps} frames/s, which differs in "
                    f"{name} from the dataset {self.root}: record into another folder"
                )
        if (source := self._info[OURS].get("source")) != demonstration.source:
            raise ValueError(
                f"{self.root}: its demonstrations are {source} ones, but episode {demonstration.id!r} is a "
                f"{demonstration.source} one: record into another folder"
            )

    def _write_videos(self, episode: int, demonstration: RecordedDemonstration) -> dict[str, Any]:
        """Writes a video a camera; the statistics of its pictures."""
        statistics = {}
        for camera, frames in demonstration.frames.items():
            key = self.layout.cameras[camera][0]
            turned = orient_frames(np.asarray(frames), demonstration.image_transform, self.layout.image_transform)
            pixels = torch.from_numpy(np.ascontiguousarray(turned.transpose(0, 3, 1, 2)))
            write_video(self._video_file(key, episode), pixels, demonstration.fps, crf=self.crf)
            statistics[key] = picture_statistics(turned)
        return statistics

    def _columns(
        self, demonstration: RecordedDemonstration, start: int, episode: int, task: int
    ) -> dict[str, NDArray[Any]]:
        """The numeric columns of an episode's frames."""
        frames = np.arange(demonstration.num_frames)
        robot = demonstration.proprioception
        states = {state.keys[0]: np.hstack([robot[part] for part in state.parts]) for state in self.layout.states}
        vectors = states | {self.layout.action_keys[0]: np.asarray(demonstration.actions)}
        return {
            **{name: values.astype(np.float32) for name, values in vectors.items()},
            "timestamp": (frames / demonstration.fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full_like(frames, episode),
            "index": start + frames,
            "task_index": np.full_like(frames, task),
        }

    def _table_of(self, columns: Mapping[str, NDArray[Any]], phases: Sequence[str] | None) -> pa.Table:
        schema = data_features(self.layout).arrow_schema.remove_metadata()
        names = phases or [""] * len(columns["frame_index"])
        values = {name: column.tolist() for name, column in columns.items()} | {PHASE_KEY: list(names)}
        return pa.table({name: values[name] for name in schema.names}, schema=schema)

    def _row(self, episode: int, demonstration: RecordedDemonstration) -> dict[str, Any]:
        chunk, file = divmod(episode, CHUNK_SIZE)
        start, length = self._next_index(), demonstration.num_frames
        row: dict[str, Any] = {
            "episode_index": episode,
            "tasks": [demonstration.language],
            "length": length,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": start,
            "dataset_to_index": start + length,
        }
        for key in self._video_keys():
            row |= {f"videos/{key}/chunk_index": chunk, f"videos/{key}/file_index": file}
            row |= {f"videos/{key}/from_timestamp": 0.0, f"videos/{key}/to_timestamp": length / demonstration.fps}
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        ours = {
            "id": demonstration.id,
            "task": demonstration.task,
            "seed": demonstration.seed,
            "initial_state": demonstration.initial_state,
            "success": demonstration.success,
            "metadata": json.dumps(dict(demonstration.metadata)),
        }
        return row | {f"{OURS}/{key}": value for key, value in ours.items()}

    def _describe(self) -> None:
        """Brings tasks, statistics and totals up to date with the table of episodes."""
        assert self._info is not None
        languages = self._languages()
        tasks = pa.table({"task_index": pa.array(range(len(languages)), pa.int64()), "task": languages})
        with atomic_path(self.root / TASKS_FILE) as temporary:
            pq.write_table(tasks.replace_schema_metadata({"pandas": _pandas_index("task")}), temporary)
        write_text(self.root / STATS_FILE, json.dumps(self._statistics, indent=4))
        self._info |= {
            "total_episodes": len(self._rows),
            "total_frames": self._next_index(),
            "total_tasks": len(languages),
            "splits": {"train": f"0:{len(self._rows)}"},
        }
        write_text(self.root / INFO_FILE, json.dumps(self._info, indent=4))

    def _languages(self, new: RecordedDemonstration | None = None) -> list[str]:
        """Instructions in the order in which they first came, which numbers them."""
        found = [row["tasks"][0] for row in self._rows] + ([] if new is None else [new.language])
        return list(dict.fromkeys(found))

    def _next_index(self) -> int:
        return self._rows[-1]["dataset_to_index"] if self._rows else 0

    def _video_keys(self) -> list[str]:
        features = {} if self._info is None else self._info["features"]
        return [key for key, feature in features.items() if feature["dtype"] == "video"]

    def _data_file(self, episode: int) -> Path:
        chunk, file = divmod(episode, CHUNK_SIZE)
        return file_in(self.root, DATA_PATH, chunk_index=chunk, file_index=file)

    def _video_file(self, key: str, episode: int) -> Path:
        chunk, file = divmod(episode, CHUNK_SIZE)
        return file_in(self.root, VIDEO_PATH, video_key=key, chunk_index=chunk, file_index=file)


def _flattened(statistics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"stats/{name}/{key}": value for name, values in statistics.items() for key, value in values.items()}


def _merged_statistics(table: pa.Table) -> dict[str, dict[str, Any]]:
    """Statistics of each column over all episodes of a table."""
    merged = {}
    for prefix in [name.removesuffix("/mean") for name in table.column_names if re.fullmatch("stats/.*/mean", name)]:
        names = [name for name in table.column_names if name.startswith(f"{prefix}/")]
        columns = {name.removeprefix(f"{prefix}/"): table.column(name).to_pylist() for name in names}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        merged[prefix.removeprefix("stats/")] = merge_statistics(rows)
    return merged


def _pandas_index(name: str) -> str:
    """Schema metadata with which pandas, and so lerobot, takes a column as the table's index."""
    column = {"name": name, "field_name": name, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    return json.dumps({"index_columns": [name], "column_indexes": [], "columns": [column], "pandas_version": "2.0.0"})
