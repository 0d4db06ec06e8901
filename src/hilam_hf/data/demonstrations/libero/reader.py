"""LIBERO's own files of demonstrations read: official ones and those written here; see `layout`.

Shapes: T frames, N frames asked for, H height, W width.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....files import walk_files
from ....fingerprint import data_fingerprint, file_fingerprint
from ....libero_conventions import ACTION_DIM, PANDA
from ....recorded import RecordedDemonstration
from ..demonstration import Demonstration, DemonstrationFormat
from .layout import (
    CAMERA_DATASETS,
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
from .writer import LiberoHdf5Writer

_READING = threading.Lock()
_PROPRIOCEPTION = {
    "ee_positions": "obs/ee_pos",
    "ee_axis_angles": "obs/ee_ori",
    "gripper_positions": "obs/gripper_states",
    "joint_positions": "obs/joint_states",
}


def read_libero_hdf5(path: str | Path) -> list[Demonstration]:
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
        if not names:
            raise ValueError(f"{file}: holds no demonstration: move it away, or record or copy it again")
        return [_read_episode(file, name, data, language) for name in names]


def read_libero_demonstration(path: str | Path, demo: str) -> RecordedDemonstration:
    """Reads one demonstration whole, with simulator states and model, for replay.

    Args:
        path: The file `<task>_demo.hdf5`.
        demo: Its group, such as "demo_0"; `Demonstration.metadata["demo"]` has it.

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
        return RecordedDemonstration(
            id=demo_id(file, demo, group),
            task=task_name(file),
            language=instruction(file, data),
            frames={name: group[key][()] for name, key in CAMERA_DATASETS.items() if key in group},
            actions=group["actions"][()],
            proprioception={
                "ee_positions": robot[:, 2:5],
                "ee_axis_angles": read_vectors(file, demo, group, "obs/ee_ori", 3),
                "ee_quaternions": robot[:, 5:],
                "gripper_positions": robot[:, :2],
                "joint_positions": read_vectors(file, demo, group, "obs/joint_states", 7),
            },
            robot=PANDA,
            phases=read_phases(file, demo, group),
            seed=attributes.get("seed"),
            initial_state=attributes.get("initial_state"),
            fps=control_rate(file, data),
            success=attributes.get("success", bool(group["rewards"][-1])),
            source=source_of(data),
            image_transform=stored_transform(file, data),
            details={
                "states": read_vectors(file, demo, group, "states", None),
                "rewards": group["rewards"][()],
                "dones": group["dones"][()],
                "model_xml": as_text(group.attrs.get("model_file", "")),
                "bddl_file": as_text(data.attrs.get("bddl_file_name", "")),
                "bddl": as_text(data.attrs.get("bddl_file_content", "")),
                "env_kwargs": env_kwargs(file, data),
            },
            metadata=attributes.get("metadata", {}),
        )


class Hdf5Frames:
    """Frames of one demonstration; the file is opened for each reading, so a process may be forked or end any time."""

    def __init__(self, file: Path, demo: str) -> None:
        self.file = file
        self.demo = demo

    def read(self, camera: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 (N, H, W, 3) for ascending indices."""
        # h5py closes all that is open of a file, for every thread.
        with _READING, opened(self.file, "r") as hdf5:
            frames = hdf5["data"][self.demo][CAMERA_DATASETS[camera]]
            if len(indices) == len(frames):
                return frames[()]
            return frames[list(indices)]

    def fingerprint(self, camera: str) -> str:
        """By both ends of the file, where a file that is written again differs."""
        return data_fingerprint(self.demo, CAMERA_DATASETS[camera], file_fingerprint(self.file))


def _read_episode(file: Path, demo: str, data: Any, language: str) -> Demonstration:
    group = data[demo]
    cameras = check_demo(file, demo, group)
    actions = read_vectors(file, demo, group, "actions", ACTION_DIM)
    robot = {
        name: read_vectors(file, demo, group, key, PANDA.proprioception[name]).astype(np.float32)
        for name, key in _PROPRIOCEPTION.items()
        if key in group
    }
    transform = stored_transform(file, data)
    return Demonstration(
        id=demo_id(file, demo, group),
        task=task_name(file),
        language=language,
        fps=control_rate(file, data),
        actions=actions.astype(np.float32),
        proprioception=robot,
        robot=PANDA,
        phases=read_phases(file, demo, group),
        source=source_of(data),
        cameras=tuple(cameras),
        reader=Hdf5Frames(file, demo),
        stored_transform=transform,
        image_transform=transform,
        metadata={"file": str(file), "demo": demo, **demo_attributes(file, demo, group)},
    )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".hdf5" else []
    return sorted(file for file in walk_files(path) if file.suffix == ".hdf5") if path.is_dir() else []


FORMAT = DemonstrationFormat(
    name="hdf5",
    looks_like="LIBERO's files <task>_demo.hdf5",
    recognises=lambda path: bool(_files(path)),
    read=lambda path: [demonstration for file in _files(path) for demonstration in read_libero_hdf5(file)],
    writer=LiberoHdf5Writer,
    folder="hdf5",
)
