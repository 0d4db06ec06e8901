"""Runs Meta-World's scripted experts for recordings.

Legend: T frames, A numbers in an action, H and W a picture's size.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np

from ...metaworld_conventions import SAWYER
from ...recorded import RecordedDemonstration
from ...robots import EE_POSITIONS
from ..protocols import EpisodeSpec, EvaluationProtocol
from .declaration import METAWORLD
from .environment import MetaWorldEnv
from .expert import ScriptedExpert


class MetaWorldDemonstrator:
    """Lets experts act in one environment at a time.

    Args:
        protocol: Cameras, picture size, step limit.
        quality: Rendering quality.
        noise: Standard deviation of the noise on displacements.
        settle_steps: Steps recorded after success.
        action_labels: Which actions are recorded: `expert`, what the expert meant, or `executed`, with the noise.
    """

    def __init__(
        self, *, protocol: EvaluationProtocol, quality: str, noise: float, settle_steps: int, action_labels: str
    ) -> None:
        self._noise = noise
        self._settle_steps = settle_steps
        self._action_labels = action_labels
        self._max_steps = protocol.steps_of("")
        self._options: dict[str, Any] = {
            "protocol": protocol,
            "quality": quality,
            # The simulator needs room for the steps after a success that came last.
            "max_steps": self._max_steps + settle_steps,
            "terminate_on_success": False,
        }
        self._environment: MetaWorldEnv | None = None

    def record(self, spec: EpisodeSpec) -> RecordedDemonstration:
        """Run one episode until `settle_steps` after success, or to the protocol's limit."""
        environment = self._environment_of(spec.task)
        expert = ScriptedExpert(spec.task, noise=self._noise, seed=spec.seed)
        observation, _ = environment.reset(seed=spec.seed)
        pictures, labels, positions, phases = [], [], [], []
        solved_at: int | None = None
        for step in count():
            state = environment.privileged_state()
            phases.append(expert.phase(state))
            intended = expert.intended_action(state)
            executed = expert.perturb(intended)
            pictures.append(observation["pixels"])
            positions.append(observation["agent_pos"])
            labels.append(intended if self._action_labels == "expert" else executed)
            observation, _, _, _, info = environment.step(executed)
            if info["success"] and solved_at is None:
                solved_at = step
            last = self._max_steps - 1 if solved_at is None else solved_at + self._settle_steps
            if step == last:
                break
        agent_pos = np.stack(positions)
        return RecordedDemonstration(
            id=METAWORLD.episode_id(spec),
            task=spec.task,
            language=environment.instruction,
            frames={camera: np.stack([shown[camera] for shown in pictures]) for camera in pictures[0]},
            actions=np.stack(labels),
            proprioception={EE_POSITIONS: agent_pos[:, :3], "gripper_openings": agent_pos[:, 3:]},
            robot=SAWYER,
            fps=environment.fps,
            success=solved_at is not None,
            source=METAWORLD.name,
            seed=spec.seed,
            phases=phases,
        )

    def close(self) -> None:
        """Close the environment, if there is one."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def _environment_of(self, task: str) -> MetaWorldEnv:
        if self._environment is None or self._environment.task != task:
            self.close()
            self._environment = MetaWorldEnv(task, **self._options)
        return self._environment
