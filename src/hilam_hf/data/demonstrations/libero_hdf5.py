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
from collections.abc import Mapping, Sequence
from errno import ENOSPC
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...files import atomic_path, disk_errors
from ...libero_conventions import quaternion_to_axis_angle
from ...optional import require
from .demonstration import RobotDemonstration, RobotEpisode
from .libero_layout import (
    CAMERA_DATASETS,
    SUFFIX,
    as_text,
    check_demo,
    control_rate,
    data_group,
    demo_attributes,
    demo_id,
    demo_number,
    env_kwargs,
    instruction,
    opened,
    read_phases,
    read_vectors,
    source_of,
    stored_transform,
    task_name,
)

_INCOMPLETE = "incomplete"
# Where robomimic keeps lists of demonstrations for training and validation.
_MASKS = "mask"
_PROPRIOCEPTION = {
    "ee_positions": ("obs/ee_pos", 3),
    "ee_axis_angles": ("obs/ee_ori", 3),
    "gripper_positions": ("obs/gripper_states", 2),
    "joint_positions": ("obs/joint_states", 7),
}


class LiberoHdf5Writer:
    """Writes demonstrations one at a time; each is on disk, whole, when `add` returns.

    An interrupted recording is continued by opening the same folder: a demonstration is written aside and takes its
    name when it is whole, and what an interruption left aside is dropped.

    Args:
        folder: Folder of the files; created when absent.
        provenance: What decides how all episodes came out; plain JSON, kept in each file.
        compression: Of the pictures: None as in the official files, or "gzip" or "lzf".

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
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._ids: dict[str, set[str]] = {}

    def __enter__(self) -> LiberoHdf5Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the recording. Every file is closed already; this is here for symmetry with other writers."""

    def has(self, episode_id: str) -> bool:
        """Whether the episode was recorded completely, now or before.

        Raises:
            ValueError: The task's file is damaged.
        """
        return episode_id in self._recorded(episode_id.split("/")[0])

    def add(self, demonstration: RobotDemonstration) -> None:
        """Writes one demonstration into the file of its task.

        Raises:
            ValueError: It was recorded before, or the task's file is damaged or tells another source, instruction or
                rate of its demonstrations.
            OSError: The disk is full; demonstrations added before are complete.
        """
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

    def _check_space(self, file: Path, demonstration: RobotDemonstration) -> None:
        """A disk that fills up while HDF5 writes costs the whole file, so the space must be there before."""
        frames = sum(np.asarray(each).nbytes for each in demonstration.frames.values())
        needed = int(1.05 * (frames + np.asarray(demonstration.states).nbytes)) + (4 << 20)
        if shutil.disk_usage(self.folder).free < needed:
            message = f"the disk is full: {needed >> 20} MiB are needed for the next demonstration; free some space"
            raise OSError(ENOSPC, message, str(file))

    def _create(self, file: Path, demonstration: RobotDemonstration) -> None:
        h5py = require("h5py", extra="libero")
        with atomic_path(file) as temporary, h5py.File(temporary, "w") as hdf5:
            data = hdf5.create_group("data")
            for name, value in _task_attributes(demonstration).items():
                data.attrs[name] = value
            data.attrs["provenance"] = json.dumps(self.provenance)


def read_libero_hdf5(path: str | Path) -> list[RobotEpisode]:
    """Opens a file of demonstrations, official or written here; pictures are read when they are asked for.

    Args:
        path: The file `<task>_demo.hdf5`.

    Returns:
        Its demonstrations in the order of their numbers. Pictures are as stored (`image_transform` is
        `stored_transform`); ids are `<task>/demo_<n>` where the file gives no other.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not such a file, or a dataset is missing or has a wrong shape, type or values; the message
            names file, demonstration and dataset.
        ImportError: h5py is not installed.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file; check the path")
    with opened(file, "r") as hdf5:
        data = data_group(file, hdf5)
        language = instruction(file, data)
        names = sorted(data, key=demo_number)
        return [_read_episode(file, name, data, language) for name in names]


def read_libero_demonstration(path: str | Path, demo: str) -> RobotDemonstration:
    """Reads one demonstration whole, with simulator states and model, for replay.

    Args:
        path: The file `<task>_demo.hdf5`.
        demo: Its group, such as "demo_0"; `RobotEpisode.metadata["demo"]` has it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file or the demonstration is damaged or not there.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file; check the path")
    with opened(file, "r") as hdf5:
        data = data_group(file, hdf5)
        if demo not in data:
            raise ValueError(f"{file}: there is no {demo!r}; there are {len(data)} demonstrations, demo_0 and on")
        group = data[demo]
        check_demo(file, demo, group)
        robot = read_vectors(file, demo, group, "robot_states", 9)
        attributes = demo_attributes(file, demo, group)
        return RobotDemonstration(
            task=task_name(file),
            language=instruction(file, data),
            frames={name: group[key][()] for name, key in CAMERA_DATASETS.items() if key in group},
            actions=group["actions"][()],
            joint_positions=group["obs/joint_states"][()],
            gripper_positions=robot[:, :2],
            ee_positions=robot[:, 2:5],
            ee_quaternions=robot[:, 5:],
            states=read_vectors(file, demo, group, "states", None),
            rewards=group["rewards"][()],
            dones=group["dones"][()],
            phases=read_phases(file, demo, group),
            seed=attributes.get("seed", -1),
            initial_state=attributes.get("initial_state"),
            fps=control_rate(file, data),
            success=attributes.get("success", bool(group["rewards"][-1])),
            source=source_of(data),
            model_xml=as_text(group.attrs.get("model_file", "")),
            bddl_file=as_text(data.attrs.get("bddl_file_name", "")),
            bddl=as_text(data.attrs.get("bddl_file_content", "")),
            env_kwargs=env_kwargs(file, data),
            metadata=attributes.get("metadata", {}),
        )


class Hdf5Frames:
    """Frames of one demonstration; the file is opened for each reading, so a process may be forked or end any time."""

    def __init__(self, file: Path, demo: str) -> None:
        self.file = file
        self.demo = demo

    def read(self, camera: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 (N, H, W, 3) for ascending indices."""
        with opened(self.file, "r") as hdf5:
            frames = hdf5["data"][self.demo][CAMERA_DATASETS[camera]]
            if len(indices) == len(frames):
                return frames[()]
            return frames[list(indices)]


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


def _check_fits(file: Path, data: Any, demonstration: RobotDemonstration) -> None:
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


def _write_demo(group: Any, demonstration: RobotDemonstration, compression: str | None) -> None:
    h5py = require("h5py", extra="libero")
    axis_angles = quaternion_to_axis_angle(demonstration.ee_quaternions)
    gripper, position = demonstration.gripper_positions, demonstration.ee_positions
    columns: dict[str, NDArray[Any]] = {
        "actions": np.asarray(demonstration.actions, np.float64),
        "states": np.asarray(demonstration.states, np.float64),
        "robot_states": np.hstack([gripper, position, demonstration.ee_quaternions]).astype(np.float64),
        "rewards": np.asarray(demonstration.rewards).astype(np.uint8),
        "dones": np.asarray(demonstration.dones).astype(np.uint8),
        "obs/ee_pos": np.asarray(position, np.float64),
        "obs/ee_ori": axis_angles,
        "obs/ee_states": np.hstack([position, axis_angles]),
        "obs/gripper_states": np.asarray(gripper, np.float64),
        "obs/joint_states": np.asarray(demonstration.joint_positions, np.float64),
    }
    for name, values in columns.items():
        group.create_dataset(name, data=values)
    for camera, frames in demonstration.frames.items():
        chunks = (1, *frames.shape[1:]) if compression else None
        group.create_dataset(CAMERA_DATASETS[camera], data=frames, compression=compression, chunks=chunks)
    if demonstration.phases is not None:
        group.create_dataset("phases", data=list(demonstration.phases), dtype=h5py.string_dtype("utf-8"))
    attributes = {
        "num_samples": demonstration.num_frames,
        "init_state": columns["states"][0],
        "model_file": demonstration.model_xml,
        "seed": demonstration.seed,
        "episode_id": demonstration.id,
        "success": demonstration.success,
        "metadata": json.dumps(dict(demonstration.metadata)),
    }
    if demonstration.initial_state is not None:
        attributes["initial_state"] = demonstration.initial_state
    for name, value in attributes.items():
        group.attrs[name] = value


def _task_attributes(demonstration: RobotDemonstration) -> dict[str, Any]:
    problem = re.search(r"\(\s*problem\s+(\S+?)\s*\)", demonstration.bddl)
    domain = re.search(r"\(\s*:domain\s+(\S+?)\s*\)", demonstration.bddl)
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
        "bddl_file": demonstration.bddl_file,
        "env_kwargs": {**demonstration.env_kwargs, "control_freq": demonstration.fps},
    }
    return {
        "problem_info": json.dumps(info),
        "env_name": env_name,
        "env_args": json.dumps(env_args),
        "bddl_file_name": demonstration.bddl_file,
        "bddl_file_content": demonstration.bddl,
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


def _read_episode(file: Path, demo: str, data: Any, language: str) -> RobotEpisode:
    group = data[demo]
    cameras = check_demo(file, demo, group)
    actions = read_vectors(file, demo, group, "actions", 7)
    robot = {
        name: read_vectors(file, demo, group, key, width).astype(np.float32)
        for name, (key, width) in _PROPRIOCEPTION.items()
        if key in group
    }
    transform = stored_transform(file, data)
    return RobotEpisode(
        id=demo_id(file, demo, group),
        task=task_name(file),
        language=language,
        num_frames=len(actions),
        fps=control_rate(file, data),
        actions=actions.astype(np.float32),
        proprioception=robot,
        phases=read_phases(file, demo, group),
        source=source_of(data),
        camera_names=tuple(cameras),
        reader=Hdf5Frames(file, demo),
        stored_transform=transform,
        image_transform=transform,
        metadata={"file": str(file), "demo": demo, **demo_attributes(file, demo, group)},
    )
