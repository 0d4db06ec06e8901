"""Observations as a policy takes them: checked, as a batch, with pictures at the size of its trunks.

Shapes: B rows, H and W a camera's pixels, S side of a trunk's square frames, P length of proprioception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...video import resize_frames
from .configuration_acting import TrunkConfig


@dataclass
class PolicyInputs:
    """One observation of B rows.

    Args:
        pixels: (B, 3, H, W) uint8 frames of each camera, at the camera's size, on the CPU, which resizes 8-bit frames.
        agent_pos: (B, P) proprioception, or None where the policy takes none.
        tasks: B instructions; empty where the policy takes none.
        rows: B numbers of rows, whose histories these observations continue.
        batched: Whether the observation came with a batch dimension.
        device: Where the policy is; everything but `pixels` lies there.
    """

    pixels: dict[str, Tensor]
    agent_pos: Tensor | None
    tasks: list[str]
    rows: list[int]
    batched: bool
    device: torch.device

    def take(self, rows: list[int], device: torch.device) -> PolicyInputs:
        """The inputs of some rows, for a policy on `device`; a row may come more than once."""
        return replace(
            self,
            device=device,
            pixels={camera: frames[rows] for camera, frames in self.pixels.items()},
            agent_pos=None if self.agent_pos is None else self.agent_pos[rows].to(device),
            tasks=[self.tasks[row] for row in rows] if self.tasks else [],
            rows=[self.rows[row] for row in rows],
        )

    def check_finite(self, rows: list[int]) -> None:
        """Raises a ValueError where the proprioception of one of these rows is NaN or infinite."""
        if self.agent_pos is None:
            return
        wrong = [row for row in rows if not bool(torch.isfinite(self.agent_pos[row]).all())]
        if wrong:
            raise ValueError(
                f"'agent_pos' must be finite, got {self.agent_pos[wrong[0]].tolist()} in row {wrong[0]}; check the "
                "robot's sensors. Nothing of this observation was taken in."
            )

    def frames(self, trunk: TrunkConfig) -> dict[str, Tensor]:
        """uint8 (B, 1, 3, S, S) of each camera of `trunk`, at its image size, on the policy's device."""
        return {
            camera: resize_frames(self.pixels[camera], trunk.image_size)[:, None].to(self.device)
            for camera in trunk.cameras
        }


def read_observation(observation: Mapping[str, Any], trunks: Sequence[TrunkConfig]) -> PolicyInputs:
    """What the trunks need of an observation, checked and as a batch, on the CPU.

    Raises:
        ValueError: A camera, agent_pos or the task is missing, or a size is wrong.
    """
    cameras = dict.fromkeys(camera for trunk in trunks for camera in trunk.cameras)
    frames = {camera: _camera_frames(observation, camera) for camera in cameras}
    sizes = {trunk.proprioception_dim for trunk in trunks} - {None}
    agent_pos = _agent_pos(observation, sizes.pop()) if sizes else None
    batched = _is_batch(frames, agent_pos)
    if not batched:
        frames = {camera: array[None] for camera, array in frames.items()}
        agent_pos = None if agent_pos is None else agent_pos[None]
    num_rows = _num_rows(frames, agent_pos)
    needs_task = any(trunk.language_dim is not None for trunk in trunks)
    return PolicyInputs(
        pixels={
            camera: torch.from_numpy(np.ascontiguousarray(array)).permute(0, 3, 1, 2)
            for camera, array in frames.items()
        },
        agent_pos=None if agent_pos is None else torch.from_numpy(agent_pos),
        tasks=_tasks(observation, num_rows) if needs_task else [],
        rows=list(range(num_rows)),
        batched=batched,
        device=torch.device("cpu"),
    )


def _is_batch(frames: Mapping[str, np.ndarray], agent_pos: np.ndarray | None) -> bool:
    have_rows = [array.ndim == 4 for array in frames.values()] + ([] if agent_pos is None else [agent_pos.ndim == 2])
    if any(have_rows) and not all(have_rows):
        raise ValueError("Some of the observation's cameras and agent_pos have a batch dimension and some have not.")
    return all(have_rows)


def _num_rows(frames: Mapping[str, np.ndarray], agent_pos: np.ndarray | None) -> int:
    rows = {len(array) for array in (*frames.values(), *([] if agent_pos is None else [agent_pos]))}
    if len(rows) != 1:
        raise ValueError(f"The observation's cameras and agent_pos must have the same number of rows, got {rows}.")
    return rows.pop()


def _camera_frames(observation: Mapping[str, Any], camera: str) -> np.ndarray:
    pixels = observation.get("pixels", {})
    if camera not in pixels:
        raise ValueError(f"The observation lacks camera {camera!r} in 'pixels'; given: {sorted(pixels)}.")
    array = np.asarray(pixels[camera])
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3:
        raise ValueError(
            f"Camera {camera!r} must be uint8 of shape (H, W, 3) or (B, H, W, 3), got {array.dtype} {array.shape}."
        )
    return array


def _agent_pos(observation: Mapping[str, Any], size: int) -> np.ndarray:
    if observation.get("agent_pos") is None:
        raise ValueError(f"The observation lacks 'agent_pos' (float, length {size}).")
    array = np.asarray(observation["agent_pos"], dtype=np.float32)
    if array.ndim not in (1, 2) or array.shape[-1] != size:
        raise ValueError(f"'agent_pos' must have shape ({size},) or (B, {size}), got {array.shape}.")
    return array


def _tasks(observation: Mapping[str, Any], rows: int) -> list[str]:
    task = observation.get("task")
    if task is None:
        raise ValueError("The observation lacks 'task' (the instruction in words).")
    tasks = [task] * rows if isinstance(task, str) else list(task)
    if len(tasks) != rows or not all(isinstance(text, str) for text in tasks):
        raise ValueError(f"'task' must be a string or {rows} strings, got {tasks!r}.")
    return tasks


def add_step(values: Tensor | None, ndim: int) -> Tensor | None:
    """Inserts T = 1 after the batch dimension of values that come without it, `ndim` counting dimensions with it."""
    return values[:, None] if values is not None and values.ndim == ndim - 1 else values
