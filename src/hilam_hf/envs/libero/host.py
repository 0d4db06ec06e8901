"""What a worker process of a LIBERO evaluation holds: one environment at a time, of whichever task comes next."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contract import StepOutcome
from ..protocols import EpisodeSpec, EvaluationProtocol
from ..rendering import renderer_provenance
from ..workers import resident_memory
from .assets import assets_fingerprint, find_assets
from .declaration import LIBERO
from .environment import LiberoEnv
from .expert.expert import LiberoExpert
from .simulator import CONTROL_FREQUENCY

EXTRAS = ("expert_action",)
_PACKAGES = ("hf-libero", "robosuite", "bddl", "mujoco")


class LiberoHost:
    """Keeps the environment of the current task and replaces it when an episode of another begins.

    Args:
        protocol: How episodes start, what is seen, when an episode has failed.
        quality: Rendering quality, see `RenderQuality`.
        render: Whether there are pictures at all.
        assets: Folder of LIBERO's assets, see `find_assets`.
        extras: What observations hold besides: `expert_action` (float32 (7,), what the scripted expert does next).
        noise: Standard deviation of the noise on the expert's actions; it depends on the episode's seed alone.

    Raises:
        ValueError: The protocol is not for LIBERO, or there is no such extra.
        FileNotFoundError: There are no assets.
    """

    def __init__(
        self,
        *,
        protocol: EvaluationProtocol,
        quality: str = "exact",
        render: bool = True,
        assets: str | None = None,
        extras: Sequence[str] = (),
        noise: float = 0.0,
    ) -> None:
        if unknown := sorted(set(extras) - set(EXTRAS)):
            raise ValueError(f"LIBERO's observations have no {', '.join(unknown)}; extras are {', '.join(EXTRAS)}")
        self._protocol, self._quality, self._render = LIBERO.protocol(protocol), quality, render
        self._assets = find_assets(assets)
        self._noise = noise if "expert_action" in extras else None
        self._environment: LiberoEnv | None = None
        self._expert: LiberoExpert | None = None

    def reset(self, spec: EpisodeSpec, draw: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode; see `LiberoEnv.reset`.

        Args:
            spec: Which episode.
            draw: Whether the observation holds pictures.
        """
        if self._environment is None or self._environment.task.id != spec.task:
            self.close()
            self._environment = LiberoEnv(
                spec.task,
                protocol=self._protocol,
                quality=self._quality,
                render=self._render,
                assets=self._assets,
            )
        options = {"initial_state": spec.initial_state}
        observation, info = self._environment.reset(seed=spec.seed, options=options, draw=draw)
        if self._noise is not None:
            # Without noise always the grasp that the expert thinks best.
            seed = spec.seed if self._noise else None
            self._expert = LiberoExpert(self._environment.simulator.environment, noise=self._noise, seed=seed)
        return self._with_expert(observation), info

    def step(self, action: NDArray[np.float32], draw: bool) -> StepOutcome:
        """Act in the current episode; see `LiberoEnv.step`.

        Args:
            action: (7,).
            draw: Whether the observation holds pictures.
        """
        if self._environment is None:
            raise RuntimeError("step() called before reset()")
        observation, *outcome = self._environment.step(action, draw=draw)
        return self._with_expert(observation), *outcome  # type: ignore[return-value]

    def fps(self) -> float:
        """Return the control steps in a second of simulated time."""
        return float(CONTROL_FREQUENCY)

    def provenance(self) -> dict[str, Any]:
        """Return the versions of simulator, renderer and assets; no episode need have begun."""
        return {
            **{package: metadata.version(package) for package in _PACKAGES},
            "assets_fingerprint": assets_fingerprint(self._assets),
            "renderer": renderer_provenance(self._quality) if self._render else None,
        }

    def memory(self) -> int:
        """Return the bytes of memory that this process takes."""
        return resident_memory()

    def close(self) -> None:
        """Close the environment, if there is one."""
        if self._environment is not None:
            self._environment.close()
            self._environment = self._expert = None
            # LIBERO's objects refer to each other in circles, and hold large models that Python does not count.
            gc.collect()

    def _with_expert(self, observation: dict[str, Any]) -> dict[str, Any]:
        if self._expert is not None:
            observation["expert_action"] = self._expert.perturb(self._expert.act())
        return observation
