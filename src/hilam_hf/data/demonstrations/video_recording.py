"""Recordings as videos, with the actions in another folder, so that pretraining cannot see them.

```
root/videos/<task>/episode_00000.mp4                what `scan_videos` reads: the first camera
root/videos/metadata.jsonl                          instruction, task, rate and camera of each video
root/videos_<camera>/...                            the same of each other camera, under the same names
root/demonstrations/<task>/episode_00000.parquet    actions, proprioception, phases: one row a file
```

Videos lie as policies usually take the robot's pictures (`RobotDescription.image_transforms`).

Shapes: T frames, A numbers in an action.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, List, Value
from numpy.typing import NDArray

from ...files import atomic_path, path_inside, read_json
from ...locks import FolderLock
from ...metaworld_conventions import SAWYER
from ...recorded import RecordedDemonstration, check_episode_id, check_vectors
from ...robots import EE_POSITIONS, RobotDescription
from ...video.orientation import orient_frames
from .demonstration import Demonstration, DemonstrationFormat
from .video_frames import CameraFrames, VideoFrames
from .videos import VIDEOS, VideoFolderWriter, describe_video

DEMONSTRATIONS = "demonstrations"
_PART = "proprioception."
_BEFORE_ROBOTS = ("agent_pos", "ee_position", "video")
_SINCE_ROBOTS = ("cameras", "videos", "image_transform", "robot", "metadata")
_ALWAYS_THERE = ("id", "task", "language", "seed", "fps", "num_frames", "success", "actions")
# Where `hilam record` tells the camera's name, which rows did not tell before.
_RECORDING_FILE = "recording.json"
_UNNAMED_CAMERA = "pixels"


def recording_features(robot: RobotDescription, parts: tuple[str, ...]) -> Features:
    """The columns of a demonstration.

    Args:
        robot: The robot.
        parts: Parts of its proprioception that are recorded.
    """
    return Features(
        {
            "id": Value("string"),
            "task": Value("string"),
            "language": Value("string"),
            "source": Value("string"),
            "seed": Value("int64"),
            "initial_state": Value("int64"),
            "fps": Value("float64"),
            "num_frames": Value("int32"),
            "success": Value("bool"),
            "cameras": List(Value("string")),
            "videos": List(Value("string")),
            "image_transform": Value("string"),
            "actions": _vectors(robot.action_dim),
            **{_PART + part: _vectors(robot.proprioception[part]) for part in parts},
            "phases": List(Value("string")),
            "robot": Value("string"),
            "metadata": Value("string"),
        }
    )


class VideoRecordingWriter:
    """Records demonstrations one episode at a time; each is on disk, whole, when `add` returns.

    An interrupted recording is continued by opening the same folder: `has(id)` says which episodes are complete.
    Until it is closed (`close`, or the end of a `with` block), no other writer writes into it.

    Args:
        root: Folder of the demonstrations; created when absent.
        provenance: What decides how all episodes came out; plain JSON, kept with each of them.

    Raises:
        ValueError: A line of the videos' metadata is damaged.
        FolderInUseError: Another writer writes demonstrations there.

    Example:
        >>> with VideoRecordingWriter("recording") as writer:
        ...     if not writer.has(demonstration.id):
        ...         writer.add(demonstration)
    """

    def __init__(self, root: str | Path, *, provenance: Mapping[str, Any] | None = None) -> None:
        self.root = Path(root)
        self.provenance = dict(provenance or {})
        # Not of the folder itself, which belongs to a recording in several formats: its recorder holds that lock.
        self._lock = FolderLock(self.root / DEMONSTRATIONS, "a recording")
        self._lock.acquire()
        try:
            self._folders = {VIDEOS: VideoFolderWriter(self.root / VIDEOS)}
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> VideoRecordingWriter:
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
        return self._row_file(episode_id).is_file()

    def add(self, demonstration: RecordedDemonstration) -> None:
        """Writes one episode: its videos, their lines of metadata.jsonl, then its actions, which make it complete.

        Args:
            demonstration: Pictures of even height and width.

        Raises:
            ValueError: The id was recorded before, a picture's size is odd, or the first camera is another one than
                that of the episodes recorded before; or the writer was closed.
            OSError: The disk is full; episodes added before are complete.
        """
        self._lock.check_held()
        if self.has(demonstration.id):
            raise ValueError(
                f"episode {demonstration.id!r} was already recorded in {self.root}: skip it (see has) or use another id"
            )
        folders = _video_folders(demonstration.frames)
        self._check_first_camera(demonstration, next(iter(folders)))
        row = _row(demonstration, folders, self.provenance)
        features = recording_features(demonstration.robot, tuple(demonstration.proprioception))
        table = pa.Table.from_pylist([row], schema=features.arrow_schema)
        stored = row["image_transform"]
        for camera, folder in folders.items():
            frames = orient_frames(np.asarray(demonstration.frames[camera]), demonstration.image_transform, stored)
            self._folder(folder).add(frames, describe_video(demonstration, camera, stored))
        with atomic_path(self._row_file(demonstration.id)) as temporary:
            pq.write_table(table, temporary)

    def _check_first_camera(self, demonstration: RecordedDemonstration, camera: str) -> None:
        # Recordings from before cameras were named do not say.
        shown = {entry.get("camera", camera) for entry in self._folders[VIDEOS].entries.values()}
        if shown - {camera}:
            raise ValueError(
                f"{demonstration.where}: its first camera is {camera}, but {self.root / VIDEOS} shows "
                f"{', '.join(sorted(shown))}: record into another folder"
            )

    def _folder(self, name: str) -> VideoFolderWriter:
        if name not in self._folders:
            self._folders[name] = VideoFolderWriter(self.root / name)
        return self._folders[name]

    def _row_file(self, episode_id: str) -> Path:
        # All files are named after the id: it must stay below the folder.
        check_episode_id(episode_id)
        return self.root / DEMONSTRATIONS / f"{episode_id}.parquet"


def read_video_recording(root: str | Path) -> list[Demonstration]:
    """Opens a recording; it may have been interrupted.

    Args:
        root: The folder that `VideoRecordingWriter` wrote.

    Returns:
        Its demonstrations by the names of their files. Pictures are as stored.

    Raises:
        FileNotFoundError: There are no demonstrations, or a video is missing.
        ValueError: A file is damaged.
    """
    folder = Path(root)
    files = sorted((folder / DEMONSTRATIONS).rglob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder / DEMONSTRATIONS}: there are no demonstrations here: record some first")
    return [_read_row(folder, file) for file in files]


def _row(
    demonstration: RecordedDemonstration, folders: Mapping[str, str], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    vectors = {_PART + part: values for part, values in demonstration.proprioception.items()}
    vectors["actions"] = demonstration.actions
    copied = ("id", "task", "language", "source", "seed", "initial_state", "num_frames", "success")
    return {
        **{name: getattr(demonstration, name) for name in copied},
        "fps": float(demonstration.fps),
        "cameras": list(folders),
        "videos": [f"{folder}/{demonstration.id}.mp4" for folder in folders.values()],
        "image_transform": demonstration.robot.image_transforms[0],
        **{name: np.asarray(values, np.float32).tolist() for name, values in vectors.items()},
        "phases": None if demonstration.phases is None else list(demonstration.phases),
        "robot": json.dumps(demonstration.robot.to_dict()),
        "metadata": json.dumps({**provenance, **demonstration.metadata}),
    }


def _video_folders(cameras: Mapping[str, Any]) -> dict[str, str]:
    """Folder of each camera's videos."""
    return {camera: VIDEOS if number == 0 else f"{VIDEOS}_{camera}" for number, camera in enumerate(cameras)}


def _read_table(file: Path) -> pa.Table:
    try:
        table = pq.read_table(file)
    except (pa.ArrowInvalid, IsADirectoryError) as error:
        raise ValueError(f"{file}: not a Parquet file ({error}): delete it and record the episode again") from error
    if missing := [name for name in _ALWAYS_THERE if name not in table.column_names]:
        raise ValueError(f"{file}: lacks the columns {', '.join(missing)}: it is no demonstration of `hilam record`")
    if len(table) != 1:
        raise ValueError(f"{file}: got {len(table)} rows, expected one: delete it and record the episode again")
    needed = (*_ALWAYS_THERE, *(_SINCE_ROBOTS if "robot" in table.column_names else _BEFORE_ROBOTS))
    if missing := [name for name in needed if name not in table.column_names or table.column(name).null_count]:
        raise ValueError(f"{file}: lacks {', '.join(missing)}: delete it and record the episode again")
    return table


def _is_vectors(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and pa.types.is_fixed_size_list(kind.value_type)


def _array(table: pa.Table, column: str) -> NDArray[np.float32]:
    """(T, width) of a table's only row."""
    vectors = table.column(column).combine_chunks().flatten()
    return vectors.flatten().to_numpy().reshape(-1, vectors.type.list_size).astype(np.float32)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file: copy it, or record the episode again")
    return path


def _vectors(width: int) -> List:
    return List(List(Value("float32"), length=width))


def _read_row(root: Path, file: Path) -> Demonstration:
    table = _read_table(file)
    vectors = [field.name for field in table.schema if _is_vectors(field.type)]
    (row,) = table.drop_columns(vectors).to_pylist()
    row |= {name: _array(table, name) for name in vectors}
    row |= _decoded(row) if "robot" in row else _described(root, row)
    length = row["num_frames"]
    parts = {name.removeprefix(_PART): row[name] for name in row if name.startswith(_PART)}
    for name, values in {"actions": row["actions"], **parts}.items():
        check_vectors(str(file), name, values, length, None)
    videos = {
        camera: VideoFrames(_existing(path_inside(root, path, where=str(file))), 0, length, row["fps"], is_whole=True)
        for camera, path in zip(row["cameras"], row["videos"], strict=True)
    }
    return Demonstration(
        **{name: row[name] for name in ("id", "task", "language", "source", "fps", "robot", "actions", "phases")},
        proprioception=parts,
        cameras=tuple(videos),
        reader=CameraFrames(videos),
        stored_transform=row["image_transform"],
        image_transform=row["image_transform"],
        metadata={name: row[name] for name in ("seed", "initial_state", "success", "metadata")},
    )


def _decoded(row: Mapping[str, Any]) -> dict[str, Any]:
    where = f"episode {row['id']!r}"
    return {
        "robot": RobotDescription.from_dict(read_json(f"{where}: robot", row["robot"])),
        "metadata": read_json(f"{where}: metadata", row["metadata"]),
    }


def _described(root: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row lacks from before robots were described, when there was Meta-World's alone, with one camera."""
    recording = root / _RECORDING_FILE
    settings = read_json(recording).get("settings", {}) if recording.is_file() else {}
    vectors = {"agent_pos": row["agent_pos"], EE_POSITIONS: row["ee_position"]}
    robot = replace(
        SAWYER,
        action_dim=row["actions"].shape[1],
        action_names=(),
        proprioception={part: values.shape[1] for part, values in vectors.items()},
        layouts={SAWYER.default_layout: ("agent_pos",)},
    )
    return {
        **{_PART + part: values for part, values in vectors.items()},
        "phases": row.get("phases"),
        "source": SAWYER.environment,
        "initial_state": None,
        "cameras": [settings.get("camera", _UNNAMED_CAMERA)],
        "videos": [row["video"]],
        "image_transform": "none",
        "robot": robot,
        "metadata": {},
    }


FORMAT = DemonstrationFormat(
    name="videos",
    looks_like=f"what `hilam record` writes, folders {VIDEOS} and {DEMONSTRATIONS}",
    recognises=lambda path: (path / DEMONSTRATIONS).is_dir() and (path / VIDEOS).is_dir(),
    read=read_video_recording,
    writer=VideoRecordingWriter,
)
