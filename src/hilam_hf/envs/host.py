"""What a worker process of the evaluation holds: one environment at a time, of whichever task comes next."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metaworld import MetaWorldEnv, make_env


class EnvironmentHost:
    """Keeps the environment of the current task and replaces it when an episode of another begins.

    Args:
        options: Options of `MetaWorldEnv` that all tasks share.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._environment: MetaWorldEnv | None = None

    def reset(self, task: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode of a task; see `MetaWorldEnv.reset`."""
        if self._environment is None or self._environment.task != task:
            self.close()
            self._environment = make_env(task, **self._options)
        return self._environment.reset(seed=seed)

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Act in the current episode; see `MetaWorldEnv.step`."""
        if self._environment is None:
            raise RuntimeError("step() called before reset()")
        return self._environment.step(action)

    def fps(self) -> float:
        """Return the control steps in a second of simulated time."""
        if self._environment is None:
            raise RuntimeError("fps() called before reset()")
        return self._environment.fps

    def close(self) -> None:
        """Close the environment, if there is one."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None
