"""What a worker process of a Meta-World evaluation holds: one environment at a time, of whichever task comes next."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contract import StepOutcome
from ..protocols import EpisodeSpec, EvaluationProtocol
from ..rendering import renderer_provenance
from ..workers import resident_memory
from .declaration import METAWORLD
from .environment import MetaWorldEnv
from .expert import ScriptedExpert

EXTRAS = ("privileged", "expert_action")


class MetaWorldHost:
    """Keeps the environment of the current task and replaces it when an episode of another begins.

    Args:
        protocol: How episodes start, what is seen, when an episode has failed.
        quality: Rendering quality, see `RenderQuality`.
        render: Whether there are pictures at all.
        extras: What observations hold besides: `privileged` (float64 (39,), the simulator's state), `expert_action`
            (float32 (4,), what the scripted expert does next).
        noise: Standard deviation of the noise on the expert's displacements; it depends on the episode's seed alone.

    Raises:
        ValueError: The protocol is not for Meta-World, or there is no such extra.
    """

    def __init__(
        self,
        *,
        protocol: EvaluationProtocol,
        quality: str = "fast",
        render: bool = True,
        extras: Sequence[str] = (),
        noise: float = 0.0,
    ) -> None:
        if unknown := sorted(set(extras) - set(EXTRAS)):
            raise ValueError(f"Meta-World's observations have no {', '.join(unknown)}; extras are {', '.join(EXTRAS)}")
        self._options: dict[str, Any] = {
            "protocol": METAWORLD.protocol(protocol),
            "quality": quality,
            "render": render,
            "privileged": "privileged" in extras,
        }
        self._noise = noise if "expert_action" in extras else None
        self._environment: MetaWorldEnv | None = None
        self._expert: ScriptedExpert | None = None

    def reset(self, spec: EpisodeSpec, draw: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode; see `MetaWorldEnv.reset`.

        Args:
            spec: Which episode.
            draw: Whether the observation holds pictures.
        """
        if self._environment is None or self._environment.task != spec.task:
            self.close()
            self._environment = MetaWorldEnv(spec.task, **self._options)
        if self._noise is not None:
            self._expert = ScriptedExpert(spec.task, noise=self._noise, seed=spec.seed)
        observation, info = self._environment.reset(seed=spec.seed, draw=draw)
        return self._with_expert(observation), info

    def step(self, action: NDArray[np.float32], draw: bool) -> StepOutcome:
        """Act in the current episode; see `MetaWorldEnv.step`.

        Args:
            action: (4,).
            draw: Whether the observation holds pictures.
        """
        observation, *outcome = self._started("step").step(action, draw=draw)
        return self._with_expert(observation), *outcome  # type: ignore[return-value]

    def fps(self) -> float:
        """Return the control steps in a second of simulated time."""
        return self._started("fps").fps

    def provenance(self) -> dict[str, Any]:
        """Return the versions of simulator and renderer; no episode need have begun."""
        versions = {package: metadata.version(package) for package in ("metaworld", "mujoco")}
        quality, render = self._options["quality"], self._options["render"]
        return {**versions, "renderer": renderer_provenance(quality) if render else None}

    def memory(self) -> int:
        """Return the bytes of memory that this process takes."""
        return resident_memory()

    def close(self) -> None:
        """Close the environment, if there is one."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def _with_expert(self, observation: dict[str, Any]) -> dict[str, Any]:
        if self._expert is not None:
            state = self._started("expert").privileged_state()
            observation["expert_action"] = self._expert.act(state)
        return observation

    def _started(self, method: str) -> MetaWorldEnv:
        if self._environment is None:
            raise RuntimeError(f"{method}() called before reset()")
        return self._environment
