"""Small robot demonstrations whose frames and rows can be told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from hilam_hf.data import LeRobotWriter, LiberoHdf5Writer, RecordedDemonstration, VideoRecordingWriter, episode_id
from hilam_hf.libero_conventions import PANDA, quaternion_to_axis_angle
from hilam_hf.metaworld_conventions import SAWYER
from tests.numbered_videos import numbered_frames

HEIGHT, WIDTH = 32, 48
BDDL = (
    "(define (problem LIBERO_Tabletop_Manipulation)\n  (:domain robosuite)\n  (:language Put the bowl on the stove)\n)"
)

# Of a picture as the renderer gives it: top left, top right, bottom left, bottom right.
CORNERS = ((250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 250))


def pictures(num_frames: int, start: int = 0, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """(T, H, W, 3): grey that tells the frame's number, `start` and on, with a corner of each colour."""
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    frames[:] = (10 + 6 * (start + np.arange(num_frames)))[:, None, None, None]
    h, w = height // 4, width // 4
    for (rows, columns), colour in zip(
        (
            (slice(h), slice(w)),
            (slice(h), slice(-w, None)),
            (slice(-h, None), slice(w)),
            (slice(-h, None), slice(-w, None)),
        ),
        CORNERS,
        strict=True,
    ):
        frames[:, rows, columns] = colour
    return frames


def read_pictures(frames: NDArray[np.uint8]) -> tuple[list[int], list[int]]:
    """Numbers of (N, H, W, 3) frames, and which of `CORNERS` lies in the first frame's four corners."""
    height, width = frames.shape[1:3]
    middle = frames[:, height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2].astype(float)
    numbers = ((middle.mean(axis=(1, 2, 3)) - 10) / 6).round().astype(int).tolist()
    found = [frames[0, row, column].astype(int) for row in (2, -3) for column in (2, -3)]
    distances = [[np.abs(pixel - np.array(colour)).sum() for colour in CORNERS] for pixel in found]
    return numbers, [int(np.argmin(row)) for row in distances]


def demonstration(num_frames: int = 5, seed: int = 0, **changes: Any) -> RecordedDemonstration:
    """A valid demonstration of LIBERO of random numbers, each different.

    Args:
        num_frames: T.
        seed: Of the numbers, and of the id.
        changes: Other values of fields, of parts of the proprioception, or of details.
    """
    rng = np.random.default_rng(seed)
    quaternions = rng.normal(size=(num_frames, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    fields: dict[str, Any] = {
        "task": "put_the_bowl_on_the_stove",
        "language": "put the bowl on the stove",
        "frames": {"agentview": pictures(num_frames), "robot0_eye_in_hand": pictures(num_frames, start=20)},
        "actions": rng.uniform(-1, 1, (num_frames, 7)),
        "robot": PANDA,
        "fps": 20.0,
        "phases": ["approach"] * (num_frames - 2) + ["grasp"] * 2,
        "seed": seed,
        "initial_state": 7,
        "success": True,
        "source": "scripted",
        "metadata": {"renderer": "egl", "noise": 0.1},
    }
    parts: dict[str, Any] = {
        "ee_positions": rng.normal(size=(num_frames, 3)),
        "ee_axis_angles": quaternion_to_axis_angle(quaternions),
        "ee_quaternions": quaternions,
        "gripper_positions": rng.normal(size=(num_frames, 2)),
        "joint_positions": rng.normal(size=(num_frames, 7)),
    }
    details: dict[str, Any] = {
        "states": rng.normal(size=(num_frames, 11)),
        "rewards": np.arange(num_frames) == num_frames - 1,
        "dones": np.arange(num_frames) == num_frames - 1,
        "model_xml": "<mujoco>äö</mujoco>",
        "bddl_file": "libero_goal/put_the_bowl_on_the_stove.bddl",
        "bddl": BDDL,
        "env_kwargs": {"controller": "OSC_POSE", "control_freq": 20.0},
    }
    for name, value in changes.items():
        next((group for group in (parts, details) if name in group), fields)[name] = value
    fields.setdefault("id", episode_id(fields["task"], fields["seed"], fields["initial_state"]))
    return RecordedDemonstration(**{"proprioception": parts, "details": details} | fields)


def small_demonstration(id: str, num_frames: int = 6, *, seed: int = 0, **changes: Any) -> RecordedDemonstration:
    """A valid demonstration of Meta-World of random numbers; its frames tell their numbers (`frame_numbers`).

    Args:
        id: `<task>/<name>`.
        num_frames: T.
        seed: Of the numbers.
        changes: Other values of fields; `ee_positions` (T, 3).
    """
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {
        "task": id.partition("/")[0],
        "language": "open the drawer",
        "fps": 20.0,
        "frames": {"corner2": numbered_frames(num_frames).permute(0, 2, 3, 1).numpy()},
        "actions": rng.uniform(-1, 1, (num_frames, 4)),
        "robot": SAWYER,
        "proprioception": {
            "ee_positions": changes.pop("ee_positions", rng.normal(size=(num_frames, 3))),
            "gripper_openings": rng.normal(size=(num_frames, 1)),
        },
        "success": True,
        "seed": seed,
        "source": "metaworld",
    }
    return RecordedDemonstration(id=id, **(values | changes))


WRITERS = {"hdf5": LiberoHdf5Writer, "lerobot": LeRobotWriter, "videos": VideoRecordingWriter}
EVERY_FORMAT = pytest.mark.parametrize("kind", WRITERS)


def record_two_tasks(root: Path, kind: str, **changes: Any) -> Path:
    """Two tasks of LIBERO, of three and two episodes, recorded in no order."""
    with WRITERS[kind](root) as writer:
        for task, seed in (("open", 11), ("close", 1), ("open", 2), ("close", 0), ("open", 1)):
            options = {"task": task, "language": f"{task} it", "initial_state": None} | changes
            writer.add(demonstration(4 + seed % 3, seed, **options))
    return root


def corners(frames: Tensor) -> list[int]:
    """Which of `CORNERS` lies in the four corners of the first of (N, C, H, W) frames."""
    return read_pictures(frames.permute(0, 2, 3, 1).numpy())[1]
