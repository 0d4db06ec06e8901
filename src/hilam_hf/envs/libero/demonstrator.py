"""Runs LIBERO's scripted experts for recordings.

They are labelled `scripted`: they are not LIBERO's human demonstrations.
"""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...libero_conventions import PANDA
from ...recorded import RecordedDemonstration
from ..protocols import EpisodeSpec, EvaluationProtocol
from .declaration import LIBERO
from .environment import LiberoEnv
from .expert.expert import LiberoExpert
from .simulator import CONTROL_FREQUENCY
from .suites import LiberoTask


class LiberoDemonstrator:
    """Lets experts act in one environment at a time.

    Args:
        protocol: Settling, step limits, cameras, picture size.
        quality: Rendering quality.
        assets: Folder of LIBERO's assets, see `find_assets`.
        noise: Standard deviation of the noise on actions.
        speed_variation: How far the expert's speed may be from 1.
        hold_steps: Steps after the expert has finished.
        action_labels: Which actions are recorded: `executed`, with the noise, or `expert`, what the expert meant.
    """

    def __init__(
        self,
        *,
        protocol: EvaluationProtocol,
        quality: str,
        assets: str | None,
        noise: float,
        speed_variation: float,
        hold_steps: int,
        action_labels: str,
    ) -> None:
        self._options: dict[str, Any] = {"protocol": protocol, "quality": quality, "assets": assets}
        self._noise, self._speed_variation = noise, speed_variation
        self._hold_steps, self._action_labels = hold_steps, action_labels
        self._environment: LiberoEnv | None = None

    def record(self, spec: EpisodeSpec) -> RecordedDemonstration:
        """Run one episode until `hold_steps` after the expert has finished, or to the protocol's limit.

        It is solved where the goal still holds at the end, after the expert has withdrawn its hand.
        """
        environment = self._environment_of(spec.task)
        observation, _ = environment.reset(seed=spec.seed, options={"initial_state": spec.initial_state})
        simulator = environment.simulator
        speed = 1.0 + self._speed_variation * float(np.random.default_rng(spec.seed).uniform(-1.0, 1.0))
        expert = LiberoExpert(simulator.environment, noise=self._noise, speed=speed, seed=spec.seed)
        pictures, labels, robot, states, phases = [], [], [], [], []
        # The scene, with fixtures where they stand in this episode.
        model_xml = simulator.environment.sim.model.get_xml()
        held = 0
        for _ in range(environment.max_steps):
            intended = expert.act()
            executed = intended if expert.finished else expert.perturb(intended)
            held += expert.finished
            pictures.append(observation["pixels"])
            labels.append(intended if self._action_labels == "expert" else executed)
            robot.append(environment.robot_state().parts())
            states.append(simulator.state())
            phases.append(expert.phase)
            observation, *_ = environment.step(executed)
            if held == self._hold_steps:
                break
        success = expert.finished and simulator.success()
        return RecordedDemonstration(
            id=LIBERO.episode_id(spec),
            task=environment.task.name,
            language=environment.task.instruction,
            frames={camera: np.stack([shown[camera] for shown in pictures]) for camera in pictures[0]},
            actions=np.stack(labels),
            proprioception={part: np.stack([state[part] for state in robot]) for part in robot[0]},
            robot=PANDA,
            fps=environment.fps,
            success=success,
            source="scripted",
            seed=spec.seed,
            initial_state=spec.initial_state,
            phases=phases,
            details=_details(environment.task, np.stack(states), model_xml, success=success),
            metadata={"suite": environment.task.suite, "task_index": environment.task.index, "speed": speed},
        )

    def close(self) -> None:
        """Close the environment, if there is one."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None
            # As in `LiberoHost`: large models in circles of references.
            gc.collect()

    def _environment_of(self, task: str) -> LiberoEnv:
        if self._environment is None or self._environment.task.id != task:
            self.close()
            self._environment = LiberoEnv(task, terminate_on_success=False, **self._options)
        return self._environment


def _details(task: LiberoTask, states: NDArray[np.float64], model_xml: str, *, success: bool) -> dict[str, Any]:
    """What LIBERO's own files hold besides, see `hilam_hf.data.demonstrations.libero`."""
    last = np.zeros(len(states), dtype=np.uint8)
    last[-1] = 1
    return {
        "states": states,
        "rewards": last * success,
        "dones": last,
        "model_xml": model_xml,
        "bddl_file": f"{task.suite}/{task.bddl_file.name}",
        "bddl": task.bddl_file.read_text(encoding="utf-8"),
        "env_kwargs": {"robots": ["Panda"], "controller": "OSC_POSE", "control_freq": CONTROL_FREQUENCY},
    }
