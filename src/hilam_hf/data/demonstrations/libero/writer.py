"""LIBERO's own files of demonstrations: one HDF5 file a task, laid out for robomimic.

```
<task>_demo.hdf5
  data                      attributes: problem_info, env_name, env_args, bddl_file_name, bddl_file_content, num_demos,
    demo_0                      total, macros_image_convention, tag; and ours: source, provenance
      actions (T, 7)  states (T, S)  robot_states (T, 9: gripper, position, quaternion)  rewards (T,)  dones (T,)
      obs/agentview_rgb (T, H, W, 3)  obs/eye_in_hand_rgb (T, H, W, 3)  obs/ee_pos (T, 3)  obs/ee_ori (T, 3)
      obs/ee_states (T, 6)  obs/gripper_states (T, 2)  obs/joint_states (T, 7)
      phases (T,)           ours
```

The layout is that of LIBERO's `scripts/create_dataset.py`. In the official files the observation in row t was made
after action t; in files written here (they have a `source`) before it. Readers give rows as they are.

Shapes: T frames, H height, W width, S numbers in a simulator state.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from errno import ENOSPC
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....files import atomic_path
from ....libero_conventions import PANDA
from ....locks import FolderLock
from ....optional import require
from ....recorded import RecordedDemonstration, check_vectors
from ....video.orientation import orient_frames
from .layout import (
    CAMERA_DATASETS,
    SUFFIX,
    check_demo,
    control_rate,
    data_group,
    demo_id,
    demo_number,
    instruction,
    opened,
    source_of,
)

_INCOMPLETE = "incomplete"
# Where robomimic keeps lists of demonstrations for training and validation.
_MASKS = "mask"
_REQUIRED_DETAILS = ("states", "rewards", "dones")


class LiberoHdf5Writer:
    """Writes demonstrations one at a time; each is on disk, whole, when `add` returns.

    Until it is closed (`close`, or the end of a `with` block), no other writer writes into the folder.

    An interrupted recording is continued by opening the same folder: a demonstration is written aside and takes its
    name when it is whole, and what an interruption left aside is dropped.

    Args:
        folder: Folder of the files; created when absent.
        provenance: What decides how all episodes came out; plain JSON, kept in each file.
        compression: Of the pictures: None as in the official files, or "gzip" or "lzf".

    Raises:
        FolderInUseError: Another writer writes into the folder.

    Example:
        >>> with LiberoHdf5Writer("libero_goal") as writer:
        ...     if not writer.has(episode_id("open_the_drawer", seed=0)):
        ...         writer.add(demonstration)
    """

    def __init__(
        self, folder: str | Path, *, provenance: Mapping[str, Any] | None = None, compression: str | None = None
    ) -> None:
        if compression not in (None, "gzip", "lzf"):
            raise ValueError(f"compression: got {compression!r}, expected None, 'gzip' or 'lzf'")
        require("h5py", extra="libero")
        self.folder = Path(folder)
        self.provenance = dict(provenance or {})
        self.compression = compression
        self._ids: dict[str, set[str]] = {}
        self._lock = FolderLock(self.folder, "a recording")
        self._lock.acquire()

    def __enter__(self) -> LiberoHdf5Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the recording, so that another writer may go on. Every file is closed already."""
        self._lock.release()

    def has(self, episode_id: str) -> bool:
        """Whether the episode was recorded completely, now or before.

        Raises:
            ValueError: The task's file is damaged.
        """
        return episode_id in self._recorded(episode_id.split("/")[0])

    def add(self, demonstration: RecordedDemonstration) -> None:
        """Writes one demonstration into the file of its task.

        Args:
            demonstration: Of `PANDA`, with all parts of its proprioception, and with these `details`: `states` (T, S),
                the simulator's before each action; `rewards` and `dones` (T,), 0 or 1; and where they are known
                `model_xml`, the MuJoCo model of the scene, `bddl_file` and `bddl`, the task's file and what it says,
                and `env_kwargs`, what the environment was made with.

        Raises:
            ValueError: It was recorded before, lacks something, or the task's file is damaged or tells another source,
                instruction or rate of its demonstrations; or the writer was closed.
            OSError: The disk is full; demonstrations added before are complete.
        """
        self._lock.check_held()
        _check_complete(demonstration)
        task = demonstration.task
        if self.has(demonstration.id):
            raise ValueError(
                f"episode {demonstration.id!r} was already recorded in {self.folder}: skip it (see has) "
                "or use another seed"
            )
        file = self._file(task)
        self._check_space(file, demonstration)
        if not file.exists():
            self._create(file, demonstration)
        # Forgotten until it is whole: after an error the file is looked through again.
        recorded = self._ids.pop(task)
        with opened(file, "r+") as hdf5:
            _check_fits(file, hdf5["data"], demonstration)
            _write_demo(hdf5.create_group(_INCOMPLETE), demonstration, self.compression)
            # On disk before it takes its name: an interruption can then only leave it aside.
            hdf5.flush()
            hdf5.move(_INCOMPLETE, f"data/{_next_name(hdf5['data'])}")
            _count(hdf5["data"])
        self._ids[task] = recorded | {demonstration.id}

    def _file(self, task: str) -> Path:
        return self.folder / f"{task}{SUFFIX}"

    def _recorded(self, task: str) -> set[str]:
        """Ids of the demonstrations of a task, after dropping what an interruption left."""
        if task not in self._ids:
            self._ids[task] = self._recover(self._file(task)) if self._file(task).exists() else set()
        return self._ids[task]

    def _recover(self, file: Path) -> set[str]:
        with opened(file, "r") as hdf5:
            interrupted = not {"data", _MASKS}.issuperset(hdf5)
        if interrupted:
            _rebuild(file)
        with opened(file, "r+") as hdf5:
            data = data_group(file, hdf5)
            for name in data:
                check_demo(file, name, data[name])
            _count(data)
            return {demo_id(file, name, data[name]) for name in data}

    def _check_space(self, file: Path, demonstration: RecordedDemonstration) -> None:
        """A disk that fills up while HDF5 writes costs the whole file, so the space must be there before."""
        frames = sum(np.asarray(each).nbytes for each in demonstration.frames.values())
        needed = int(1.05 * (frames + np.asarray(demonstration.details["states"]).nbytes)) + (4 << 20)
        if shutil.disk_usage(self.folder).free < needed:
            message = f"the disk is full: {needed >> 20} MiB are needed for the next demonstration; free some space"
            raise OSError(ENOSPC, message, str(file))

    def _create(self, file: Path, demonstration: RecordedDemonstration) -> None:
        h5py = require("h5py", extra="libero")
        with atomic_path(file) as temporary, h5py.File(temporary, "w") as hdf5:
            data = hdf5.create_group("data")
            for name, value in _task_attributes(demonstration).items():
                data.attrs[name] = value
            data.attrs["provenance"] = json.dumps(self.provenance)


def _rebuild(file: Path) -> None:
    """Copies the whole demonstrations into a new file.

    What an interruption left aside is not deleted in place: it may share its parts with a demonstration that was just
    about to take its name, or refer to parts that never reached the disk.
    """
    h5py = require("h5py", extra="libero")
    with atomic_path(file) as temporary, opened(file, "r") as old, h5py.File(temporary, "w") as new:
        source, target = data_group(file, old), new.create_group("data")
        for name, value in source.attrs.items():
            target.attrs[name] = value
        for name in sorted(source, key=demo_number):
            check_demo(file, name, source[name])
            old.copy(source[name], target, name=name)
        _count(target)
        if _MASKS in old:
            old.copy(_MASKS, new)


def _check_complete(demonstration: RecordedDemonstration) -> None:
    where, robot, details = demonstration.where, demonstration.robot, demonstration.details
    if robot != PANDA:
        raise ValueError(
            f"{where}: got robot {robot.name} of {robot.environment}, but LIBERO's HDF5 files are for its own: record "
            "in another format"
        )
    missing = [f"proprioception {part}" for part in PANDA.proprioception if part not in demonstration.proprioception]
    missing += [f"details {name}" for name in _REQUIRED_DETAILS if name not in details]
    if missing:
        raise ValueError(f"{where}: lacks {', '.join(missing)}, which LIBERO's HDF5 files hold")
    check_vectors(where, "states", details["states"], demonstration.num_frames, None)
    for name in ("rewards", "dones"):
        values = np.asarray(details[name])
        if values.shape != (demonstration.num_frames,) or not np.isin(values, (0, 1)).all():
            raise ValueError(f"{where}: {name}: expected {demonstration.num_frames} values of 0 or 1, one a frame")


def _check_fits(file: Path, data: Any, demonstration: RecordedDemonstration) -> None:
    """Sees that what the file says once, of all its demonstrations, holds for another one."""
    for name, found, got in (
        ("source", source_of(data), demonstration.source),
        ("instruction", instruction(file, data), demonstration.language.strip()),
        ("control rate", control_rate(file, data), float(demonstration.fps)),
    ):
        if found != got:
            raise ValueError(
                f"{file}: the {name} of its demonstrations is {found!r}, that of episode {demonstration.id!r} {got!r}: "
                "record into another folder"
            )


def _write_demo(group: Any, demonstration: RecordedDemonstration, compression: str | None) -> None:
    h5py = require("h5py", extra="libero")
    robot, details = demonstration.proprioception, demonstration.details
    gripper, position, axis_angles = robot["gripper_positions"], robot["ee_positions"], robot["ee_axis_angles"]
    columns: dict[str, NDArray[Any]] = {
        "actions": np.asarray(demonstration.actions, np.float64),
        "states": np.asarray(details["states"], np.float64),
        "robot_states": np.hstack([gripper, position, robot["ee_quaternions"]]).astype(np.float64),
        "rewards": np.asarray(details["rewards"]).astype(np.uint8),
        "dones": np.asarray(details["dones"]).astype(np.uint8),
        "obs/ee_pos": np.asarray(position, np.float64),
        "obs/ee_ori": np.asarray(axis_angles, np.float64),
        "obs/ee_states": np.hstack([position, axis_angles]).astype(np.float64),
        "obs/gripper_states": np.asarray(gripper, np.float64),
        "obs/joint_states": np.asarray(robot["joint_positions"], np.float64),
    }
    for name, values in columns.items():
        group.create_dataset(name, data=values)
    for camera, frames in demonstration.frames.items():
        drawn = orient_frames(np.asarray(frames), demonstration.image_transform, "none")
        chunks = (1, *drawn.shape[1:]) if compression else None
        group.create_dataset(CAMERA_DATASETS[camera], data=drawn, compression=compression, chunks=chunks)
    if demonstration.phases is not None:
        group.create_dataset("phases", data=list(demonstration.phases), dtype=h5py.string_dtype("utf-8"))
    attributes = {
        "num_samples": demonstration.num_frames,
        "init_state": columns["states"][0],
        "model_file": details.get("model_xml", ""),
        "episode_id": demonstration.id,
        "success": demonstration.success,
        "metadata": json.dumps(dict(demonstration.metadata)),
    }
    numbers = {"seed": demonstration.seed, "initial_state": demonstration.initial_state}
    attributes |= {name: value for name, value in numbers.items() if value is not None}
    for name, value in attributes.items():
        group.attrs[name] = value


def _task_attributes(demonstration: RecordedDemonstration) -> dict[str, Any]:
    details = demonstration.details
    bddl, bddl_file = details.get("bddl", ""), details.get("bddl_file", "")
    problem = re.search(r"\(\s*problem\s+(\S+?)\s*\)", bddl)
    domain = re.search(r"\(\s*:domain\s+(\S+?)\s*\)", bddl)
    name = problem.group(1) if problem else ""
    info = {
        "problem_name": name.lower(),
        "domain_name": domain.group(1) if domain else "robosuite",
        "language_instruction": demonstration.language,
    }
    # LIBERO's classes are named after the problems: LIBERO_Floor_Manipulation is Libero_Floor_Manipulation.
    env_name = name.replace("LIBERO", "Libero", 1)
    env_args = {
        "type": 1,
        "env_name": env_name,
        "problem_name": info["problem_name"],
        "bddl_file": bddl_file,
        "env_kwargs": {**details.get("env_kwargs", {}), "control_freq": demonstration.fps},
    }
    return {
        "problem_info": json.dumps(info),
        "env_name": env_name,
        "env_args": json.dumps(env_args),
        "bddl_file_name": bddl_file,
        "bddl_file_content": bddl,
        "macros_image_convention": "opengl",
        "tag": "libero-v1",
        "source": demonstration.source,
        "num_demos": 0,
        "total": 0,
    }


def _count(data: Any) -> None:
    totals = {"num_demos": len(data), "total": sum(int(data[name].attrs["num_samples"]) for name in data)}
    for name, value in totals.items():
        if data.attrs.get(name) != value:
            data.attrs[name] = value


def _next_name(data: Any) -> str:
    return f"demo_{max((demo_number(name) for name in data), default=-1) + 1}"
