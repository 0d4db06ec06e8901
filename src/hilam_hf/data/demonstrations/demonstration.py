"""Episodes of robot demonstrations: whole ones, which recorders hand to writers, and lazily read ones, for policies.

Cameras and quaternions are LIBERO's: pictures come with the bottom row first (OpenGL), quaternions as (x, y, z, w).
Frame t is the observation before action t: T frames and T actions.

Shapes: T frames, N frames asked for, H height, W width, C = 3 channels; S numbers in a simulator state, P in
`agent_pos`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...libero_conventions import ACTION_DIM, CAMERAS, ProprioceptionLayout, layout_parts, proprioception
from ...video.orientation import ImageTransform, orient_frames

_WIDTHS = {
    "actions": ACTION_DIM,
    "joint_positions": 7,
    "gripper_positions": 2,
    "ee_positions": 3,
    "ee_quaternions": 4,
}


@dataclass(frozen=True, kw_only=True)
class RobotDemonstration:
    """One whole episode.

    Attributes:
        task: Name of the task's BDDL file, such as "put_the_bowl_on_the_stove".
        language: The instruction in words.
        frames: By camera, uint8 (T, H, W, 3), rows as the renderer gives them: the bottom one first.
        actions: (T, 7) in [-1, 1]; the last number is the gripper's, -1 opening it.
        joint_positions: (T, 7) in radians.
        gripper_positions: (T, 2) in metres, one a finger.
        ee_positions: (T, 3) of the end effector, in metres.
        ee_quaternions: (T, 4) of the end effector, (x, y, z, w).
        states: (T, S) simulator states, each before its action.
        rewards: (T,), 0 or 1.
        dones: (T,), whether the episode ended with that action.
        phases: T names, in which phase of the task each action was chosen; None where that is not known.
        seed: Seed of the reset.
        initial_state: Number of the benchmark's initial state, or None where the seed drew it.
        fps: Control steps, and so frames, a second.
        success: Whether the task was solved.
        source: Who acted: "scripted" or "human".
        model_xml: The MuJoCo model of the scene.
        bddl_file: Path of the task's BDDL file, such as "libero_goal/put_the_bowl_on_the_stove.bddl".
        bddl: What that file says.
        env_kwargs: What the environment was made with, for robomimic.
        metadata: Whatever else decides how the episode came out (renderer, versions, protocol, noise); plain JSON.

    Raises:
        ValueError: A shape, a name or a number does not fit; the message names task and field.
    """

    task: str
    language: str
    frames: Mapping[str, NDArray[np.uint8]]
    actions: NDArray[np.floating]
    joint_positions: NDArray[np.floating]
    gripper_positions: NDArray[np.floating]
    ee_positions: NDArray[np.floating]
    ee_quaternions: NDArray[np.floating]
    states: NDArray[np.floating]
    rewards: NDArray[Any]
    dones: NDArray[Any]
    seed: int
    success: bool
    phases: Sequence[str] | None = None
    initial_state: int | None = None
    fps: float = 20.0
    source: str = "scripted"
    model_xml: str = ""
    bddl_file: str = ""
    bddl: str = ""
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+", self.task):
            raise ValueError(f"task: got {self.task!r}, expected letters, digits, '-' and '_'")
        if not self.fps > 0:
            raise ValueError(f"{self.task}: fps: got {self.fps}, expected a number above 0")
        for name, width in _WIDTHS.items():
            check_vectors(self.task, name, getattr(self, name), self.num_frames, width)
        check_vectors(self.task, "states", self.states, self.num_frames, None)
        for name in ("rewards", "dones"):
            values = np.asarray(getattr(self, name))
            if values.shape != (self.num_frames,) or not np.isin(values, (0, 1)).all():
                raise ValueError(f"{self.task}: {name}: expected {self.num_frames} values of 0 or 1, one a frame")
        self._check_frames()
        check_phases(self.task, self.phases, self.num_frames)

    @property
    def num_frames(self) -> int:
        return len(self.actions)

    @property
    def id(self) -> str:
        """`episode_id` of the episode."""
        return episode_id(self.task, self.seed, self.initial_state)

    def _check_frames(self) -> None:
        unknown = [camera for camera in self.frames if camera not in CAMERAS]
        if unknown or not self.frames:
            raise ValueError(f"{self.task}: frames: got cameras {list(self.frames)}, expected some of {list(CAMERAS)}")
        for camera, frames in self.frames.items():
            array = np.asarray(frames)
            if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or len(array) != self.num_frames:
                raise ValueError(
                    f"{self.task}: frames of {camera}: got {array.dtype} {array.shape}, "
                    f"expected uint8 ({self.num_frames}, H, W, 3): one frame an action"
                )


class FrameReader(Protocol):
    """Where an episode's frames come from; can be pickled, so that DataLoader workers read for themselves."""

    def read(self, camera: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 (N, H, W, 3), as stored."""


@dataclass(frozen=True, kw_only=True)
class RobotEpisode:
    """An episode of a recording whose frames are read when they are asked for.

    Attributes:
        id: `<task>/<name>`, unique in the recording.
        task: Name of the task.
        language: The instruction in words.
        num_frames: T.
        fps: Control steps, and so frames, a second.
        actions: float32 (T, 7).
        proprioception: By name (as in `RobotDemonstration`, and "ee_axis_angles"), float32 (T, width): what the
            recording tells of the robot.
        phases: T names, or None where the recording does not tell them.
        source: Who acted: "scripted", "human" or "unknown".
        camera_names: Cameras of the recording.
        reader: Where frames come from.
        stored_transform: What was done to the pictures before they were stored.
        image_transform: What `frames` gives.
        layout: What `agent_pos` is made of.
        metadata: What else the recording tells of the episode.
    """

    id: str
    task: str
    language: str
    num_frames: int
    fps: float
    actions: NDArray[np.float32]
    proprioception: Mapping[str, NDArray[np.float32]]
    phases: list[str] | None
    source: str
    camera_names: tuple[str, ...]
    reader: FrameReader
    stored_transform: ImageTransform
    image_transform: ImageTransform = "none"
    layout: ProprioceptionLayout = "ee_axis_angle_gripper"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def agent_pos(self) -> NDArray[np.float32]:
        """float32 (T, P) in the order of `layout`.

        Raises:
            ValueError: The recording lacks a part of it.
        """
        parts = layout_parts(self.layout)
        missing = [part for part in parts if part not in self.proprioception]
        if missing:
            raise ValueError(
                f"episode {self.id!r}: proprioception {self.layout} needs {', '.join(missing)}, but the recording has "
                f"{', '.join(self.proprioception)} only: choose another layout"
            )
        return proprioception(self.proprioception, self.layout)

    def frames(self, camera: str, indices: Iterable[int] | None = None) -> Tensor:
        """Frames of one camera, turned as `image_transform` says.

        Args:
            camera: One of `camera_names`.
            indices: Frame indices in [0, T), in any order, repeats allowed; None reads all.

        Returns:
            uint8 (N, C, H, W), contiguous.

        Raises:
            ValueError: There is no such camera, or the stored frames are damaged.
            IndexError: An index is outside [0, T).
        """
        if camera not in self.camera_names:
            raise ValueError(f"episode {self.id!r} has no camera {camera!r}; it has {', '.join(self.camera_names)}")
        wanted = list(range(self.num_frames)) if indices is None else [int(index) for index in indices]
        wrong = next((index for index in wanted if not 0 <= index < self.num_frames), None)
        if wrong is not None:
            raise IndexError(f"episode {self.id!r}: frame index {wrong} is outside 0..{self.num_frames - 1}")
        unique, positions = np.unique(np.array(wanted, dtype=np.int64), return_inverse=True)
        stored = self.reader.read(camera, unique.tolist())
        turned = orient_frames(stored, self.stored_transform, self.image_transform)
        return torch.from_numpy(np.ascontiguousarray(turned[positions].transpose(0, 3, 1, 2)))


def episode_id(task: str, seed: int, initial_state: int | None = None) -> str:
    """The name of an episode in every file of a recording: `<task>/init_007_seed_3` or `<task>/seed_3`.

    Recorders ask writers for it before they record an episode (`has`).

    Args:
        task: Name of the task.
        seed: Seed of the reset.
        initial_state: Number of the benchmark's initial state, or None where the seed drew it.
    """
    state = "" if initial_state is None else f"init_{initial_state:03d}_"
    return f"{task}/{state}seed_{seed}"


def check_vectors(where: str, name: str, values: Any, num_frames: int, width: int | None) -> None:
    """Sees that an array is (num_frames, width), numeric and finite.

    Raises:
        ValueError: It is not; the message begins with `where` and `name`.
    """
    array = np.asarray(values)
    if array.ndim != 2 or len(array) != num_frames or num_frames == 0 or (width or array.shape[1]) != array.shape[1]:
        raise ValueError(f"{where}: {name}: got shape {array.shape}, expected ({num_frames or 'T'}, {width or 'S'})")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{where}: {name}: got {array.dtype}, expected numbers")
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: {name}: has NaN or infinite values")


def check_phases(where: str, phases: Sequence[str] | None, num_frames: int) -> None:
    """Sees that phases are names, one a frame.

    Raises:
        ValueError: They are not; the message begins with `where`.
    """
    if phases is None:
        return
    if len(phases) != num_frames or not all(isinstance(name, str) and name for name in phases):
        raise ValueError(
            f"{where}: phases: got {len(phases)} values such as {list(phases[:3])!r}, expected {num_frames} names, "
            "one a frame"
        )
