"""What LIBERO's HDF5 files hold, read and checked: names, shapes and values, never anything outside the file.

Errors name file, demonstration and dataset. h5py objects are `Any` here: it has no types.

Shapes: T frames, H height, W width.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....files import disk_errors
from ....optional import require
from ....recorded import check_phases, check_text, check_vectors
from ....video.orientation import ImageTransform

SUFFIX = "_demo.hdf5"
CAMERA_DATASETS = {"agentview": "obs/agentview_rgb", "robot0_eye_in_hand": "obs/eye_in_hand_rgb"}
"""Where each camera's pictures are, in the group of a demonstration."""

_DEFAULT_FPS = 20.0
# Image conventions are robosuite's: "opencv" reverses the rows of what the renderer gives.
_CONVENTIONS: dict[str, ImageTransform] = {"opengl": "none", "opencv": "flip_vertical"}


@contextmanager
def opened(file: Path, mode: str) -> Iterator[Any]:
    """An open HDF5 file.

    Raises:
        ValueError: HDF5 finds it damaged.
        OSError: Another process writes to it, or the disk is full.
        ImportError: h5py is not installed.
    """
    h5py = require("h5py", extra="libero")
    with disk_errors(file):
        try:
            with h5py.File(file, mode) as hdf5:
                yield hdf5
        except BlockingIOError as error:
            raise OSError(f"{file}: another process has it open; wait until it is done") from error
        except (OSError, KeyError, RuntimeError) as error:
            if isinstance(error, OSError) and (error.errno == ENOSPC or "No space left" in str(error)):
                raise
            raise ValueError(
                f"{file}: cannot be read as HDF5 ({str(error).splitlines()[0]}); it is not such a file, or an "
                "interruption damaged it: move it away, then copy it or record it again"
            ) from error


def data_group(file: Path, hdf5: Any) -> Any:
    """The group that holds the demonstrations, and nothing else.

    Raises:
        ValueError: It is not there, or holds something else.
    """
    h5py = require("h5py", extra="libero")
    if not isinstance(hdf5.get("data", getlink=True), h5py.HardLink) or not isinstance(hdf5["data"], h5py.Group):
        raise ValueError(f"{file}: there is no group 'data': it is not a file of LIBERO demonstrations")
    data = hdf5["data"]
    for name in data:
        if not re.fullmatch(r"demo_\d+", name) or not isinstance(_member(file, name, data, name), h5py.Group):
            raise ValueError(f"{file}: data: got {name!r}, expected groups demo_0, demo_1 and on")
    return data


def check_demo(file: Path, demo: str, group: Any) -> list[str]:
    """Sees that a demonstration is whole, without reading its pictures; returns the names of its cameras.

    Raises:
        ValueError: It is not.
    """
    length = demo_length(file, demo, group)
    if int(group.attrs.get("num_samples", length)) != length:
        raise ValueError(f"{file}: {demo}: num_samples is {group.attrs['num_samples']}, but there are {length} actions")
    for name in ("rewards", "dones"):
        shape = _shape(_member(file, demo, group, name))
        if shape != (length,):
            raise ValueError(f"{file}: {demo}: {name}: got shape {shape}, expected ({length},)")
    cameras = [camera for camera, name in CAMERA_DATASETS.items() if name in group]
    if not cameras:
        raise ValueError(f"{file}: {demo}: has no pictures; expected {' or '.join(CAMERA_DATASETS.values())}")
    for camera in cameras:
        name = CAMERA_DATASETS[camera]
        frames = _member(file, demo, group, name)
        shape, kind = _shape(frames), getattr(frames, "dtype", "no dataset")
        if len(shape) != 4 or shape[0] != length or shape[3] != 3 or kind != np.uint8:
            raise ValueError(f"{file}: {demo}: {name}: got {kind} {shape}, expected uint8 ({length}, H, W, 3)")
    return cameras


def demo_length(file: Path, demo: str, group: Any) -> int:
    """T of a demonstration."""
    shape = _shape(_member(file, demo, group, "actions"))
    if len(shape) != 2 or shape[0] < 1:
        raise ValueError(f"{file}: {demo}: actions: got shape {shape}, expected (T, 7)")
    return int(shape[0])


def read_vectors(file: Path, demo: str, group: Any, name: str, width: int | None) -> NDArray[Any]:
    """A dataset of finite vectors, one a frame, as stored; `width` None takes any."""
    dataset = _member(file, demo, group, name)
    values = np.asarray(dataset[()]) if hasattr(dataset, "dtype") else np.empty(0)
    check_vectors(f"{file}: {demo}", name, values, demo_length(file, demo, group), width)
    return values


def read_phases(file: Path, demo: str, group: Any) -> list[str] | None:
    """Phases of a demonstration, where the file tells them."""
    if "phases" not in group:
        return None
    names = [as_text(value) for value in np.atleast_1d(_member(file, demo, group, "phases")[()])]
    check_phases(f"{file}: {demo}", names, demo_length(file, demo, group))
    return names


def demo_attributes(file: Path, demo: str, group: Any) -> dict[str, Any]:
    """What files written by this library tell of a demonstration besides its datasets."""
    kinds = {"seed": int, "initial_state": int, "success": bool}
    found = {name: kind(group.attrs[name]) for name, kind in kinds.items() if name in group.attrs}
    if "metadata" in group.attrs:
        found["metadata"] = _json_attribute(f"{file}: {demo}", group, "metadata")
    return found


def demo_id(file: Path, name: str, group: Any) -> str:
    """The episode's id: the recorder's own, or task and number."""
    return as_text(group.attrs.get("episode_id", f"{task_name(file)}/{name}"))


def demo_number(name: str) -> int:
    """n of `demo_<n>`."""
    return int(name.removeprefix("demo_"))


def task_name(file: Path) -> str:
    """Files are named after the tasks."""
    return file.name.removesuffix(".hdf5").removesuffix("_demo")


def instruction(file: Path, data: Any) -> str:
    """The instruction in words; some files hold it as a list of words, those without attributes in their name.

    OpenVLA's regenerated files have none, and LIBERO's own names of tasks are the scene, if any, and the instruction.
    """
    if not data.attrs:
        return re.sub(r"^[A-Z_]+_SCENE\d+_", "", task_name(file)).replace("_", " ")
    if "problem_info" not in data.attrs:
        raise ValueError(f"{file}: data lacks the attribute problem_info: it is not a file of LIBERO demonstrations")
    words = _json_attribute(f"{file}: data", data, "problem_info").get("language_instruction", "")
    text = (" ".join(words) if isinstance(words, list) else str(words)).strip()
    check_text(f"{file}: data: the attribute problem_info", text)
    return text


def env_kwargs(file: Path, data: Any) -> dict[str, Any]:
    """What the environment was made with."""
    return _json_attribute(f"{file}: data", data, "env_args").get("env_kwargs", {}) if "env_args" in data.attrs else {}


def control_rate(file: Path, data: Any) -> float:
    """Frames a second; LIBERO's 20 where the file does not say."""
    return float(env_kwargs(file, data).get("control_freq", _DEFAULT_FPS))


def source_of(data: Any) -> str:
    """Who acted: the official files, which people recorded, do not say so but have a tag."""
    if "source" in data.attrs:
        return as_text(data.attrs["source"])
    return "human" if as_text(data.attrs.get("tag", "")) == "libero-v1" else "unknown"


def stored_transform(file: Path, data: Any) -> ImageTransform:
    """What was done to the pictures before they were stored."""
    convention = as_text(data.attrs.get("macros_image_convention", "opengl"))
    if convention not in _CONVENTIONS:
        raise ValueError(f"{file}: macros_image_convention: got {convention!r}, expected {' or '.join(_CONVENTIONS)}")
    return _CONVENTIONS[convention]


def as_text(value: Any) -> str:
    """Text of HDF5, which comes as bytes or str."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _member(file: Path, demo: str, group: Any, name: str) -> Any:
    """A part of the file itself: never what a link in it points to elsewhere on this machine."""
    h5py = require("h5py", extra="libero")
    part = group
    for step in name.split("/"):
        link = part.get(step, getlink=True) if isinstance(part, h5py.Group) else None
        if link is None:
            raise ValueError(f"{file}: {demo}: {name} is missing")
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{file}: {demo}: {name} is a link; expected it in the file itself")
        part = part[step]
    if isinstance(part, h5py.Dataset) and (part.is_virtual or part.external):
        raise ValueError(f"{file}: {demo}: {name} lies in other files; expected it in the file itself")
    return part


def _shape(part: Any) -> tuple[int, ...]:
    """Of a dataset; () of anything else."""
    return tuple(getattr(part, "shape", None) or ())


def _json_attribute(where: str, group: Any, name: str) -> dict[str, Any]:
    try:
        value = json.loads(as_text(group.attrs[name]))
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: the attribute {name} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where}: the attribute {name}: got {type(value).__name__}, expected a JSON object")
    return value
