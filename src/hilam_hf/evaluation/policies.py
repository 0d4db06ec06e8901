"""What a policy has to offer to be evaluated, and two that need no training: the scripted expert and chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..envs.experts import ScriptedExpert

EXTRA_OBSERVATIONS = ("privileged", "task_name", "episode_seed")
"""What a policy may ask for besides pictures, `agent_pos` and the instruction, in `extra_observations`."""


@runtime_checkable
class Policy(Protocol):
    """Anything that turns observations into actions.

    A batch of B observations is `{"pixels": {camera: uint8 (B, H, W, 3)}, "agent_pos": float32 (B, P),
    "task": list[str]}`, where `task` is the instruction in words. A policy that has an attribute
    `extra_observations` also gets what it lists there: `privileged` (float64 (B, 39), the simulator's state),
    `task_name` (list[str]) and `episode_seed` (int64 (B,)).

    Optional attributes that the provenance record quotes: `executed_chunk_length` (how many actions of a predicted
    chunk are executed), `image_transform` (what is done to pictures), `name_or_path`.
    """

    def reset(self, indices: Sequence[int] | None = None) -> None:
        """Forget the episode of these rows of the batch; None forgets everything."""

    def select_action(self, observation: dict[str, Any]) -> NDArray[np.float32]:
        """Return float32 (B, A) in the environment's units for a batch, (A,) for one observation."""


class ExpertPolicy:
    """Meta-World's scripted experts as a policy; each row's task is read from the observation.

    Args:
        noise: Standard deviation of Gaussian noise on displacements (see `ScriptedExpert`). The noise depends on the
            episode's seed alone.
    """

    name_or_path = "expert"
    extra_observations = ("privileged", "task_name", "episode_seed")

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise
        self._experts: dict[int, ScriptedExpert] = {}

    def reset(self, indices: Sequence[int] | None = None) -> None:
        """Forget the experts of these rows."""
        for row in list(self._experts) if indices is None else indices:
            self._experts.pop(row, None)

    def select_action(self, observation: dict[str, Any]) -> NDArray[np.float32]:
        """Return the experts' actions, float32 (B, 4)."""
        states = np.asarray(observation["privileged"])
        return np.stack([self._expert(observation, row).act(state) for row, state in enumerate(states)])

    def _expert(self, observation: dict[str, Any], row: int) -> ScriptedExpert:
        if row not in self._experts:
            seed = int(observation["episode_seed"][row])
            self._experts[row] = ScriptedExpert(observation["task_name"][row], noise=self.noise, seed=seed)
        return self._experts[row]


class RandomPolicy:
    """Actions drawn uniformly from [-1, 1]; the draws depend on the policy's and the episode's seed alone.

    Args:
        action_dim: Numbers in an action.
        seed: The policy's own seed.
    """

    name_or_path = "random"
    extra_observations = ("episode_seed",)

    def __init__(self, action_dim: int = 4, seed: int = 0) -> None:
        self.action_dim = action_dim
        self.seed = seed
        self._generators: dict[int, np.random.Generator] = {}

    def reset(self, indices: Sequence[int] | None = None) -> None:
        """Start the draws of these rows anew."""
        for row in list(self._generators) if indices is None else indices:
            self._generators.pop(row, None)

    def select_action(self, observation: dict[str, Any]) -> NDArray[np.float32]:
        """Return random actions, float32 (B, action_dim)."""
        seeds = observation["episode_seed"]
        return np.stack([self._draw(row, int(seed)) for row, seed in enumerate(seeds)])

    def _draw(self, row: int, episode_seed: int) -> NDArray[np.float32]:
        if row not in self._generators:
            self._generators[row] = np.random.default_rng((self.seed, episode_seed))
        return self._generators[row].uniform(-1.0, 1.0, self.action_dim).astype(np.float32)
