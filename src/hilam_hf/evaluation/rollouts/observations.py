"""The batch of observations that a policy sees, kept from step to step.

Legend: B rows, H and W a picture's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.protocols import EpisodeSpec
from .policies import HOST_EXTRAS


class ObservationBatch:
    """What each row saw last. A row that was not drawn keeps its last pictures, one that saw nothing yet has zeros.

    Args:
        num_rows: B.
        extras: What the policy sees besides, of `EXTRA_OBSERVATIONS`.
        action_dim: Numbers in an action of the environment.
    """

    def __init__(self, num_rows: int, extras: Sequence[str], action_dim: int) -> None:
        self._extras = extras
        self._arrays: dict[str, NDArray[Any]] = {}
        self._pixels: dict[str, NDArray[np.uint8]] = {}
        self._instructions = [""] * num_rows
        self._task_names = [""] * num_rows
        self._seeds = np.zeros(num_rows, dtype=np.int64)
        self._action_dim = action_dim

    def put(self, row: int, spec: EpisodeSpec, instruction: str, observation: dict[str, Any]) -> None:
        """Take in what a row sees.

        Args:
            row: Number of the row.
            spec: Its episode.
            instruction: What the task asks for in words.
            observation: What its environment gave, with or without `pixels`.
        """
        self._instructions[row], self._task_names[row], self._seeds[row] = instruction, spec.task, spec.seed
        for camera, picture in observation.get("pixels", {}).items():
            self._put(self._pixels, camera, row, picture)
        for name in ("agent_pos", *HOST_EXTRAS):
            if name in observation:
                self._put(self._arrays, name, row, np.asarray(observation[name]))

    def observation(self) -> dict[str, Any]:
        """Return the batch as a policy takes it; its arrays are the batch's own."""
        made = {"task_name": self._task_names, "episode_seed": self._seeds, "action_dim": self._action_dim}
        batch = {"task": list(self._instructions), **self._arrays}
        batch |= {name: made[name] for name in self._extras if name in made}
        if self._pixels:
            batch["pixels"] = dict(self._pixels)
        return batch

    def _put(self, arrays: dict[str, NDArray[Any]], name: str, row: int, values: NDArray[Any]) -> None:
        if name not in arrays:
            arrays[name] = np.zeros((len(self._seeds), *values.shape), dtype=values.dtype)
        arrays[name][row] = values
