"""Demonstrations as one sequence, whichever robot acted and whichever files they lie in.

Shapes: T frames, A numbers in an action, P numbers in `agent_pos`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

from ...video.orientation import ImageTransform
from .actions import GripperConvention, convert_actions, warn_of_gripper
from .demonstration import Demonstration
from .formats import read_demonstrations


class Demonstrations(Sequence[Demonstration]):
    """Demonstrations of one robot; see `load_demonstrations`.

    Args:
        demonstrations: Demonstrations with different ids.
        cameras: Cameras that each of them has, in the order in which a policy takes them; None for the robot's, or for
            those of the first demonstration where the robot has no fixed ones.

    Attributes:
        cameras: As given.
        tasks: The different tasks, in the order of the demonstrations.

    Raises:
        ValueError: Two demonstrations have one id, one lacks a camera, or two differ in the width of actions or
            `agent_pos`.
    """

    def __init__(self, demonstrations: Sequence[Demonstration], cameras: Sequence[str] | None = None) -> None:
        self._demonstrations = list(demonstrations)
        self.cameras = _default_cameras(self._demonstrations) if cameras is None else tuple(cameras)
        self.tasks = list(dict.fromkeys(each.task for each in self._demonstrations))
        if not self.cameras:
            raise ValueError("cameras: got none, expected at least one")
        ids = set()
        for each in self._demonstrations:
            if missing := [camera for camera in self.cameras if camera not in each.cameras]:
                raise ValueError(
                    f"episode {each.id!r} has no camera {', '.join(missing)}; it has {', '.join(each.cameras)} "
                    "(option cameras)"
                )
            if each.id in ids:
                raise ValueError(f"two episodes are called {each.id!r}: load one recording at a time")
            ids.add(each.id)
        _check_same_robot(self._demonstrations)

    def __len__(self) -> int:
        return len(self._demonstrations)

    @overload
    def __getitem__(self, index: int) -> Demonstration: ...
    @overload
    def __getitem__(self, index: slice) -> Demonstrations: ...
    def __getitem__(self, index: int | slice) -> Demonstration | Demonstrations:
        if isinstance(index, slice):
            return Demonstrations(self._demonstrations[index], self.cameras)
        return self._demonstrations[index]

    def __iter__(self) -> Iterator[Demonstration]:
        return iter(self._demonstrations)

    def __repr__(self) -> str:
        frames = sum(each.num_frames for each in self)
        return f"Demonstrations({len(self)} episodes of {len(self.tasks)} tasks, {frames} frames)"


def load_demonstrations(
    path: str | Path,
    *,
    tasks: Sequence[str] | str | None = None,
    per_task: int | None = None,
    cameras: Sequence[str] | None = None,
    image_transform: ImageTransform | None = None,
    proprioception: str | None = None,
    gripper: GripperConvention | None = None,
    action_scale: float | None = None,
) -> Demonstrations:
    """Opens a recording in any of the known formats (`demonstration_formats`).

    Args:
        path: A folder that `hilam record` wrote; one file `<task>_demo.hdf5` of LIBERO, or a folder of such files or
            LeRobot datasets, at any depth; or what a format of another package reads. Of a recording in two formats
            the exact one, HDF5, is read.
        tasks: Tasks to load, by name or instruction; None loads all.
        per_task: Demonstrations of each task, the first by id; None loads all.
        cameras: Cameras that every demonstration must have; None for all of the robot's.
        image_transform: How pictures shall lie, compared with what the renderer gives: that of the protocol under which
            the policy will act. What the files hold is taken into account. None for the robot's usual way.
        proprioception: What `agent_pos` is made of: a layout of the robot, such as LIBERO's `ee_axis_angle_gripper`
            (3 + 3 + 2 numbers), `joints_gripper` (7 + 2) or `gripper_joints` (2 + 7). None for the robot's usual one.
        gripper: For actions whose gripper is 0 to 1 and not as the robot's: "one_opens" (Open X-Embodiment, OpenVLA) or
            "one_closes". Such a gripper without the option is a warning.
        action_scale: Factor of all numbers of an action but the gripper, for actions in other units.

    Returns:
        Demonstrations ordered by task, as given or else by name, and by id.

    Raises:
        FileNotFoundError: There is no recording at `path`, or a file of it is missing.
        ValueError: A file is damaged, a task has fewer demonstrations than `per_task`, a task, a camera or a part of
            the proprioception is not there, the robot has no such layout or way of pictures, or actions are outside the
            robot's range (by 5 % of it).

    Example:
        >>> demonstrations = load_demonstrations("libero_goal", per_task=10)
        >>> demonstrations[0].actions.shape, demonstrations[0].frames("agentview", [0]).shape
        ((112, 7), torch.Size([1, 3, 256, 256]))
    """
    if per_task is not None and per_task < 1:
        raise ValueError(f"per_task: got {per_task}, expected at least 1")
    wanted = [tasks] if isinstance(tasks, str) else tasks
    chosen = _choose(path, read_demonstrations(Path(path)), wanted, per_task)
    converted = [convert_actions(each, gripper=gripper, scale=action_scale) for each in chosen]
    warn_of_gripper(converted)
    return Demonstrations([_as_wanted(each, image_transform, proprioception) for each in converted], cameras)


def _as_wanted(demonstration: Demonstration, transform: ImageTransform | None, layout: str | None) -> Demonstration:
    robot = demonstration.robot
    transform = transform or robot.image_transforms[0]
    robot.check_image_transform(transform)
    return replace(demonstration, image_transform=transform, layout=layout or robot.default_layout)


def _default_cameras(demonstrations: Sequence[Demonstration]) -> tuple[str, ...]:
    return (demonstrations[0].robot.cameras or demonstrations[0].cameras) if demonstrations else ()


def _check_same_robot(demonstrations: Sequence[Demonstration]) -> None:
    for column in ("actions", "agent_pos"):
        widths = [getattr(each, column).shape[1] for each in demonstrations]
        for each, width in zip(demonstrations, widths, strict=True):
            if width != widths[0]:
                raise ValueError(
                    f"{column} of {each.id} are {width} wide and those of {demonstrations[0].id} {widths[0]}: load "
                    "tasks of one robot at a time (option tasks)"
                )


def _choose(
    path: str | Path, demonstrations: Sequence[Demonstration], wanted: Sequence[str] | None, per_task: int | None
) -> list[Demonstration]:
    by_task: dict[str, list[Demonstration]] = {}
    for each in sorted(demonstrations, key=lambda each: (each.task, _natural(each.id))):
        by_task.setdefault(each.task, []).append(each)
    names = list(by_task)
    if wanted is not None:
        # One instruction may be that of several tasks, in different scenes.
        matches = {name: [task for task in by_task if name in (task, by_task[task][0].language)] for name in wanted}
        unknown = [name for name, tasks in matches.items() if not tasks]
        if unknown:
            known = ", ".join(by_task)
            raise ValueError(f"{path}: no demonstrations of {', '.join(unknown)}; there are those of {known}")
        names = list(dict.fromkeys(task for tasks in matches.values() for task in tasks))
    few = next((name for name in names if len(by_task[name]) < (per_task or 0)), None)
    if few is not None:
        raise ValueError(
            f"{path}: task {few!r} has {len(by_task[few])} demonstrations, expected {per_task}: record more, ask for "
            "fewer of each task (option per_task, --per-task), or leave the task out"
        )
    return [each for name in names for each in by_task[name][:per_task]]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts demo_2 before demo_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
