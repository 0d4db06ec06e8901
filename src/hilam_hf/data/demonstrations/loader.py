"""Recordings of robots as one sequence of episodes, whichever files they lie in.

Shapes: T frames, A = 7 numbers in an action, P numbers in `agent_pos`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

from tqdm import tqdm

from ...files import disk_errors, write_text
from ...libero_conventions import CAMERAS, ProprioceptionLayout, layout_parts
from ...video import write_video
from ...video.orientation import ImageTransform, check_image_transform
from ..episodes import METADATA_FILE
from .demonstration import RobotEpisode
from .lerobot_info import INFO_FILE
from .lerobot_reader import read_lerobot
from .libero_hdf5 import read_libero_hdf5
from .phases import smooth_phases


class RobotDemonstrations(Sequence[RobotEpisode]):
    """Episodes whose frames are read when they are asked for; see `load_robot_demonstrations`.

    Args:
        episodes: Episodes with different ids.
        cameras: Cameras that each of them has, in the order in which a policy takes them.

    Attributes:
        cameras: As given.
        tasks: The different tasks, in the order of the episodes.

    Raises:
        ValueError: Two episodes have one id, or an episode lacks a camera.
    """

    def __init__(self, episodes: Sequence[RobotEpisode], cameras: Sequence[str] = CAMERAS) -> None:
        self._episodes = list(episodes)
        self.cameras = tuple(cameras)
        self.tasks = list(dict.fromkeys(episode.task for episode in self._episodes))
        if not self.cameras:
            raise ValueError("cameras: got none, expected at least one")
        ids = set()
        for episode in self._episodes:
            missing = [camera for camera in self.cameras if camera not in episode.camera_names]
            if missing:
                raise ValueError(
                    f"episode {episode.id!r} has no camera {', '.join(missing)}; it has "
                    f"{', '.join(episode.camera_names)} (option cameras)"
                )
            if episode.id in ids:
                raise ValueError(f"two episodes are called {episode.id!r}: load one recording at a time")
            ids.add(episode.id)

    def __len__(self) -> int:
        return len(self._episodes)

    @overload
    def __getitem__(self, index: int) -> RobotEpisode: ...
    @overload
    def __getitem__(self, index: slice) -> RobotDemonstrations: ...
    def __getitem__(self, index: int | slice) -> RobotEpisode | RobotDemonstrations:
        if isinstance(index, slice):
            return RobotDemonstrations(self._episodes[index], self.cameras)
        return self._episodes[index]

    def __iter__(self) -> Iterator[RobotEpisode]:
        return iter(self._episodes)

    def __repr__(self) -> str:
        frames = sum(episode.num_frames for episode in self)
        return f"RobotDemonstrations({len(self)} episodes of {len(self.tasks)} tasks, {frames} frames)"


def load_robot_demonstrations(
    path: str | Path,
    *,
    tasks: Sequence[str] | str | None = None,
    max_per_task: int | None = None,
    cameras: Sequence[str] = CAMERAS,
    image_transform: ImageTransform = "rotate_180",
    proprioception: ProprioceptionLayout = "ee_axis_angle_gripper",
) -> RobotDemonstrations:
    """Opens a recording: LIBERO's HDF5 files (official or recorded here), or a LeRobot dataset of version 3.0.

    Args:
        path: One file `<task>_demo.hdf5`, or a folder of such files or LeRobot datasets, at any depth. Of a recording
            in both formats the HDF5 files are read, whose pictures are exact.
        tasks: Tasks to load, by name or instruction; None loads all.
        max_per_task: Episodes a task, the first by id; None loads all.
        cameras: Cameras that every episode must have.
        image_transform: How pictures shall lie, compared with what the renderer gives: that of the protocol under which
            the policy will act. What the files hold is taken into account.
        proprioception: What `agent_pos` is made of: `ee_axis_angle_gripper` (3 + 3 + 2), `joints_gripper` (7 + 2) or
            `gripper_joints` (2 + 7).

    Returns:
        Episodes ordered by task, as given or else by name, and by id.

    Raises:
        FileNotFoundError: There is no recording at `path`.
        ValueError: A file is damaged, or a task, a camera or a part of the proprioception is not there.

    Example:
        >>> demonstrations = load_robot_demonstrations("libero_goal", max_per_task=10)
        >>> demonstrations[0].actions.shape, demonstrations[0].frames("agentview", [0]).shape
        ((112, 7), torch.Size([1, 3, 256, 256]))
    """
    layout_parts(proprioception)
    check_image_transform(image_transform)
    if max_per_task is not None and max_per_task < 1:
        raise ValueError(f"max_per_task: got {max_per_task}, expected at least 1")
    chosen = _choose(path, _read(Path(path)), [tasks] if isinstance(tasks, str) else tasks, max_per_task)
    episodes = [replace(episode, image_transform=image_transform, layout=proprioception) for episode in chosen]
    demonstrations = RobotDemonstrations(episodes, cameras)
    for episode in demonstrations:
        # Raises where the recording lacks a part of the layout.
        _ = episode.agent_pos
    return demonstrations


def write_videos(
    demonstrations: Sequence[RobotEpisode], out: str | Path, *, camera: str = CAMERAS[0], progress: bool = True
) -> None:
    """Writes one camera's pictures as a folder of videos without actions, for `scan_videos` and so for pretraining.

    Args:
        demonstrations: The episodes; pictures lie as their `image_transform` says.
        out: The folder: `<id>.mp4` and `metadata.jsonl` with instruction, task, rate and source. Videos that are
            there under these names are replaced.
        camera: The camera.
        progress: Show a progress bar.

    Raises:
        ValueError: An id is no `<task>/<name>`, or an episode has no such camera.
        OSError: The disk is full.
    """
    root = Path(out)
    for episode in demonstrations:
        if not re.fullmatch(r"[\w-]+(/[\w-]+)+", episode.id):
            raise ValueError(f"id: got {episode.id!r}, expected <task>/<name> of letters, digits, '-' and '_'")
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    lines = []
    for episode in tqdm(demonstrations, desc="Writing videos", disable=not progress):
        write_video(root / f"{episode.id}.mp4", episode.frames(camera), episode.fps)
        entry = {
            "file_name": f"{episode.id}.mp4",
            "source": f"libero-{episode.source}",
            "language": episode.language,
            "fps": episode.fps,
            "task": episode.task,
            "camera": camera,
            "image_transform": episode.image_transform,
        }
        lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
    write_text(root / METADATA_FILE, "".join(lines))


def robot_phases(demonstrations: Sequence[RobotEpisode], *, min_length: int = 1) -> dict[str, list[str]]:
    """The phases of a recording, the ground truth of segmentation (for `latent_phases`).

    Args:
        demonstrations: The episodes.
        min_length: Shortest segment that stays, see `smooth_phases`; 1 gives the phases as recorded.

    Returns:
        By the episode's id, which is that of its video (`write_videos`) and of its row in a corpus, one name a frame.

    Raises:
        ValueError: An episode was recorded without phases.
    """
    unknown = [episode.id for episode in demonstrations if episode.phases is None]
    if unknown:
        raise ValueError(f"{len(unknown)} demonstrations tell no phases, such as {unknown[0]}: record them again")
    return {episode.id: smooth_phases(episode.phases or [], min_length) for episode in demonstrations}


def _read(path: Path) -> list[RobotEpisode]:
    if path.is_file():
        return read_libero_hdf5(path)
    if (path / INFO_FILE).is_file():
        return read_lerobot(path)
    if files := sorted(path.rglob("*.hdf5")):
        return [episode for file in files for episode in read_libero_hdf5(file)]
    if datasets := sorted(path.rglob(INFO_FILE)):
        return [episode for file in datasets for episode in read_lerobot(file.parent.parent)]
    raise FileNotFoundError(
        f"{path}: there are no robot demonstrations here; expected files <task>_demo.hdf5, or the folder of a "
        f"LeRobot dataset with {INFO_FILE}: record some first"
    )


def _choose(
    path: str | Path, episodes: Sequence[RobotEpisode], wanted: Sequence[str] | None, max_per_task: int | None
) -> list[RobotEpisode]:
    by_task: dict[str, list[RobotEpisode]] = {}
    for episode in sorted(episodes, key=lambda episode: (episode.task, _natural(episode.id))):
        by_task.setdefault(episode.task, []).append(episode)
    names = list(by_task)
    if wanted is not None:
        # One instruction may be that of several tasks, in different scenes.
        matches = {name: [task for task in by_task if name in (task, by_task[task][0].language)] for name in wanted}
        unknown = [name for name, tasks in matches.items() if not tasks]
        if unknown:
            known = ", ".join(by_task)
            raise ValueError(f"{path}: no demonstrations of {', '.join(unknown)}; there are those of {known}")
        names = list(dict.fromkeys(task for tasks in matches.values() for task in tasks))
    return [episode for name in names for episode in by_task[name][:max_per_task]]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts demo_2 before demo_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
