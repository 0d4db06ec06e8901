"""Demonstrations of any robot, read lazily, and what a format of files has to say of itself.

Frame t is the observation before action t: T frames and T actions.

Shapes: T frames, N frames asked for, H height, W width, C = 3 channels; A numbers in an action, P in `agent_pos`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...fingerprint import data_fingerprint
from ...recorded import DemonstrationWriter
from ...robots import RobotDescription
from ...video.orientation import ImageTransform, orient_frames


class FrameReader(Protocol):
    """Where an episode's frames come from; can be pickled, so that DataLoader workers read for themselves."""

    def read(self, camera: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 (N, H, W, C) of different, ascending indices, as stored."""

    def fingerprint(self, camera: str) -> str:
        """Says which pictures `read` gives, the same for a copy in another folder and without decoding them."""


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """An episode of a recording, whose frames are read when they are asked for.

    Attributes:
        id: `<task>/<name>`, unique in the recording.
        task: Name of the task.
        language: The instruction in words.
        fps: Control steps, and so frames, a second.
        actions: float32 (T, A).
        proprioception: By part, float32 (T, width): what the recording tells of the robot.
        robot: The robot.
        phases: T names, in which phase of the task each action was chosen, or None where the recording does not tell.
        source: Who acted, such as "scripted" or "human", or the environment's name where that is not told.
        cameras: Cameras of the recording.
        reader: Where frames come from.
        stored_transform: What was done to the pictures before they were stored, compared with what the renderer gives.
        image_transform: What `frames` gives, likewise.
        layout: What `agent_pos` is made of; None for the robot's usual layout.
        metadata: What else the recording tells of the episode.
    """

    id: str
    task: str
    language: str
    fps: float
    actions: NDArray[np.float32]
    proprioception: Mapping[str, NDArray[np.float32]]
    robot: RobotDescription
    phases: list[str] | None
    source: str
    cameras: tuple[str, ...]
    reader: FrameReader
    stored_transform: ImageTransform
    image_transform: ImageTransform
    layout: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.actions)

    @property
    def agent_pos(self) -> NDArray[np.float32]:
        """float32 (T, P) in the order of `layout`.

        Raises:
            ValueError: The robot has no such layout, or the recording lacks a part of it.
        """
        layout = self.layout or self.robot.default_layout
        missing = [part for part in self.robot.layout_parts(layout) if part not in self.proprioception]
        if missing:
            raise ValueError(
                f"episode {self.id!r}: proprioception {layout} needs {', '.join(missing)}, but the recording has "
                f"{', '.join(self.proprioception)} only: choose another layout of {', '.join(self.robot.layouts)}"
            )
        return self.robot.agent_pos(self.proprioception, layout)

    def frames_fingerprint(self, camera: str) -> str:
        """Says which pictures `frames` gives, the same on every machine and in any folder.

        Raises:
            OSError: A file cannot be read.
        """
        how = [self.id, self.num_frames, camera, self.stored_transform, self.image_transform]
        return data_fingerprint(how, self.reader.fingerprint(camera))

    def frames(self, camera: str, indices: Iterable[int] | None = None) -> Tensor:
        """Frames of one camera, turned as `image_transform` says.

        Args:
            camera: One of `cameras`.
            indices: Frame indices in [0, T), in any order, repeats allowed; None reads all.

        Returns:
            uint8 (N, C, H, W), contiguous.

        Raises:
            ValueError: There is no such camera, or the stored frames are damaged.
            IndexError: An index is outside [0, T).
        """
        if camera not in self.cameras:
            raise ValueError(f"episode {self.id!r} has no camera {camera!r}; it has {', '.join(self.cameras)}")
        wanted = list(range(self.num_frames)) if indices is None else [int(index) for index in indices]
        wrong = next((index for index in wanted if not 0 <= index < self.num_frames), None)
        if wrong is not None:
            raise IndexError(f"episode {self.id!r}: frame index {wrong} is outside 0..{self.num_frames - 1}")
        unique, positions = np.unique(np.array(wanted, dtype=np.int64), return_inverse=True)
        stored = self.reader.read(camera, unique.tolist())
        turned = orient_frames(stored, self.stored_transform, self.image_transform)
        return torch.from_numpy(np.ascontiguousarray(turned[positions].transpose(0, 3, 1, 2)))


@dataclass(frozen=True, kw_only=True)
class DemonstrationFormat:
    """A format of files, as it declares itself.

    Attributes:
        name: Its name, such as "lerobot".
        looks_like: What its files look like, for messages.
        recognises: Whether the format has its files at a path. A path that is recognised but where something is missing
            is for `read` to complain of.
        read: The demonstrations at a path, as stored: `image_transform` is `stored_transform`.
        writer: Makes a writer of a folder, with `provenance=`, plain JSON of what decides how all episodes come out;
            None for a format that is not written. While it is open no other may write there (`hilam_hf.locks`).
        folder: Where recordings have it, below their own folder, whose lock their recorder holds.
    """

    name: str
    looks_like: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], list[Demonstration]]
    writer: Callable[..., DemonstrationWriter] | None = None
    folder: str = "."
