"""What recorders hand to writers: one whole demonstration of any robot.

A recorder's worker may import this module: it loads numpy and nothing heavier.

Shapes: T frames, H height, W width, A numbers in an action.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .robots import RobotDescription
from .video.orientation import ImageTransform, check_image_transform


@dataclass(frozen=True, kw_only=True)
class RecordedDemonstration:
    """One whole episode. Frame t is the observation before action t: T frames and T actions.

    Attributes:
        id: `<task>/<name>` of letters, digits, "-" and "_"; unique in the recording.
        task: Name of the task.
        language: The instruction in words.
        frames: By camera, uint8 (T, H, W, 3) RGB.
        actions: (T, A), in the environment's units.
        proprioception: By part (of `robot.proprioception`), (T, width).
        robot: The robot.
        fps: Control steps, and so frames, a second.
        success: Whether the task was solved.
        source: Who acted, such as "scripted" or "human", or the environment's name where that is not told.
        seed: Seed of the reset, or None where there is none.
        initial_state: Number of the benchmark's initial state, or None where the seed drew it.
        phases: T names, in which phase of the task each action was chosen, as they came (`smooth_phases` cleans them);
            None where that is not known.
        image_transform: What was done to the frames, compared with what the renderer gives.
        details: What only one simulator's own format keeps, such as the simulator's states.
        metadata: Whatever else decides how the episode came out (renderer, versions, protocol, noise); plain JSON.

    Raises:
        ValueError: A shape, a name or a number does not fit; the message names episode and field.
    """

    id: str
    task: str
    language: str
    frames: Mapping[str, NDArray[np.uint8]]
    actions: NDArray[Any]
    proprioception: Mapping[str, NDArray[Any]]
    robot: RobotDescription
    fps: float
    success: bool
    source: str
    seed: int | None = None
    initial_state: int | None = None
    phases: Sequence[str] | None = None
    image_transform: ImageTransform = "none"
    details: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_episode_id(self.id)
        if not re.fullmatch(r"[\w-]+", self.task) or not self.id.startswith(f"{self.task}/"):
            raise ValueError(
                f"task of episode {self.id!r}: got {self.task!r}, expected letters, digits, '-' and '_', as the id's "
                "beginning"
            )
        check_text(f"{self.where}: language", self.language)
        if not self.fps > 0:
            raise ValueError(f"{self.where}: fps: got {self.fps}, expected a number above 0")
        check_image_transform(self.image_transform)
        check_vectors(self.where, "actions", self.actions, self.num_frames, self.robot.action_dim)
        self._check_proprioception()
        self._check_frames()
        check_phases(self.where, self.phases, self.num_frames)

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.actions)

    @property
    def where(self) -> str:
        """How messages name the episode."""
        return f"episode {self.id!r}"

    def _check_proprioception(self) -> None:
        widths = self.robot.proprioception
        for part, values in self.proprioception.items():
            if part not in widths:
                raise ValueError(
                    f"{self.where}: proprioception: got {part!r}, expected some of {', '.join(widths)}, which robot "
                    f"{self.robot.name} has"
                )
            check_vectors(self.where, part, values, self.num_frames, widths[part])

    def _check_frames(self) -> None:
        known = self.robot.cameras
        if not self.frames or (known and not set(known).issuperset(self.frames)):
            expected = f"some of {', '.join(known)}" if known else "at least one"
            raise ValueError(
                f"{self.where}: frames: got cameras {', '.join(self.frames) or 'none'}, expected {expected}"
            )
        for camera, frames in self.frames.items():
            if not re.fullmatch(r"\w[\w-]*", camera):
                raise ValueError(f"{self.where}: frames: got camera {camera!r}, expected letters, digits, '-' and '_'")
            array = np.asarray(frames)
            if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or len(array) != self.num_frames:
                raise ValueError(
                    f"{self.where}: frames of {camera}: got {array.dtype} {array.shape}, "
                    f"expected uint8 ({self.num_frames}, H, W, 3): one frame an action"
                )


class DemonstrationWriter(Protocol):
    """Writes demonstrations one at a time; each is on disk, whole, when `add` returns.

    An interrupted recording is continued by opening the same folder.
    """

    def __enter__(self) -> DemonstrationWriter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def has(self, episode_id: str) -> bool:
        """Whether the episode was recorded completely, now or before."""

    def add(self, demonstration: RecordedDemonstration) -> None:
        """Writes one demonstration.

        Raises:
            ValueError: It was recorded before, or does not fit what is there or what the format can hold.
            OSError: The disk is full; demonstrations added before are complete.
        """


def episode_id(task: str, seed: int, initial_state: int | None = None) -> str:
    """The name of an episode by how it starts: `<task>/init_007_seed_3` or `<task>/seed_3`.

    Recorders ask writers for it before they record an episode (`has`).

    Args:
        task: Name of the task.
        seed: Seed of the reset.
        initial_state: Number of the benchmark's initial state, or None where the seed drew it.
    """
    state = "" if initial_state is None else f"init_{initial_state:03d}_"
    return f"{task}/{state}seed_{seed}"


def check_episode_id(id: str) -> None:
    """Sees that an id can be the path of a file below a folder.

    Raises:
        ValueError: It cannot.
    """
    if not re.fullmatch(r"[\w-]+(/[\w-]+)+", id):
        raise ValueError(
            f"id: got {id!r}, expected <task>/<name> of letters, digits, '-' and '_', such as "
            "'drawer-open/episode_00000'"
        )


def check_vectors(where: str, name: str, values: Any, num_frames: int, width: int | None) -> None:
    """Sees that an array is (num_frames, width), numeric and finite.

    Raises:
        ValueError: It is not; the message begins with `where` and `name`.
    """
    array = np.asarray(values)
    if array.ndim != 2 or len(array) != num_frames or num_frames == 0 or (width or array.shape[1]) != array.shape[1]:
        raise ValueError(
            f"{where}: {name}: got shape {array.shape}, expected ({num_frames or 'T'}, {width or 'width'}): one row a "
            "frame, each frame being seen before its action"
        )
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{where}: {name}: got {array.dtype}, expected numbers")
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: {name}: has NaN or infinite values")


def check_text(where: str, text: str) -> None:
    """Sees that text can be written as UTF-8.

    Raises:
        ValueError: It holds half of a character, as JSON's escapes and names of files may.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])[1:-1]
        raise ValueError(f"{where}: holds {half}, which is half of a character (a lone surrogate)") from error


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
