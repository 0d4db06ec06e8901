"""Meta-World's scripted experts behind one interface, with optional noise so that demonstrations differ."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..imports import require_simulator
from .phases import metaworld_phase
from .tasks import normalize_task


class ScriptedExpert:
    """The expert of one Meta-World task.

    Gaussian noise of standard deviation `noise` perturbs the three displacements; the gripper's effort is left alone so
    that grasps hold. The sequence of perturbations depends on the seed alone.

    Args:
        task: Task of MT50, with or without `-v3`.
        noise: Standard deviation of the noise, in the action's units (1 is a displacement of one centimetre).
        seed: Seed of the noise.

    Raises:
        ValueError: The task is unknown or the noise negative.
        ImportError: Meta-World is not installed.

    Example:
        >>> expert = ScriptedExpert("drawer-open", noise=0.1, seed=3)
        >>> action = expert.act(env.privileged_state())
    """

    def __init__(self, task: str, noise: float = 0.0, seed: int | None = None) -> None:
        self.task = normalize_task(task)
        if not noise >= 0.0:
            raise ValueError(f"noise must be at least 0, got {noise}")
        self.noise = noise
        self._policy = require_simulator("metaworld.policies").ENV_POLICY_MAP[f"{self.task}-v3"]()
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Start the sequence of perturbations that belongs to a seed."""
        self._generator = np.random.default_rng(seed)

    def act(self, raw_observation: NDArray[np.float64]) -> NDArray[np.float32]:
        """Choose an action and perturb it.

        Args:
            raw_observation: (39,), `MetaWorldEnv.privileged_state()`.

        Returns:
            float32 (4,) in [-1, 1].
        """
        return self.perturb(self.intended_action(raw_observation))

    def intended_action(self, raw_observation: NDArray[np.float64]) -> NDArray[np.float32]:
        """Choose an action without noise.

        Args:
            raw_observation: (39,), `MetaWorldEnv.privileged_state()`.

        Returns:
            float32 (4,) in [-1, 1].
        """
        with warnings.catch_warnings():
            # The experts' gains ask for more than one centimetre a step on purpose and rely on clipping.
            warnings.filterwarnings("ignore", message="Constant")
            # A copy, since some experts move the positions that they are given.
            action = self._policy.get_action(raw_observation.copy())
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def phase(self, raw_observation: NDArray[np.float64]) -> str:
        """Name the phase of the task in which the action in a state is chosen.

        Args:
            raw_observation: (39,), `MetaWorldEnv.privileged_state()`.

        Returns:
            A word of `hilam_hf.envs.metaworld.phases.PHASES`, one of `task_phases(task)`.

        Raises:
            ValueError: The installed Meta-World has another expert than the one whose phases are known.

        Example:
            >>> ScriptedExpert("drawer-open").phase(env.privileged_state())
            'approach'
        """
        return self._phase(raw_observation)

    @cached_property
    def _phase(self) -> Callable[[NDArray[np.float64]], str]:
        return metaworld_phase(self.task, self._policy)

    def perturb(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add the next perturbation of the sequence to an action.

        Args:
            action: (4,) in [-1, 1].

        Returns:
            float32 (4,) in [-1, 1].
        """
        if self.noise == 0.0:
            return action
        noisy = action.copy()
        noisy[:3] += self._generator.normal(0.0, self.noise, 3).astype(np.float32)
        return np.clip(noisy, -1.0, 1.0)
