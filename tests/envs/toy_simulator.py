"""A whole simulator behind the contract: a point in a square that shall reach a goal, drawn with numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

from hilam_hf.envs import EpisodeSpec, EvaluationProtocol, Recording, Simulator
from hilam_hf.recorded import RecordedDemonstration
from hilam_hf.robots import EE_POSITIONS, RobotDescription

POINT = RobotDescription(
    name="point", environment="toy", action_dim=2, proprioception={EE_POSITIONS: 3}, layouts={"place": (EE_POSITIONS,)}
)
GOALS = {"left": (-0.5, 0.0), "right": (0.5, 0.0)}


class ToyHost:
    """The point moves by a tenth of each action; the goal is reached within 0.1 of it."""

    def __init__(self, *, protocol, quality="fast", render=True, extras=(), noise=0.0):
        self.protocol, self.render, self.extras, self.noise = protocol, render, extras, noise

    def reset(self, spec: EpisodeSpec, draw: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        self.random, self.goal, self.steps = np.random.default_rng(spec.seed), np.array(GOALS[spec.task]), 0
        self.place = self.random.uniform(-0.3, 0.3, 2)
        return self.observation(draw), {"success": False, "instruction": TOY.instruction(spec.task)}

    def step(self, action, draw):
        self.place = np.clip(self.place + 0.1 * np.clip(action, -1, 1), -1, 1)
        self.steps += 1
        success = bool(np.linalg.norm(self.goal - self.place) < 0.1)
        return self.observation(draw), float(success), success, self.steps >= 30, {"success": success}

    def expert(self) -> np.ndarray:
        wanted = 10 * (self.goal - self.place) + self.noise * self.random.normal(size=2)
        return np.clip(wanted, -1, 1).astype(np.float32)

    def observation(self, draw: bool) -> dict[str, Any]:
        seen: dict[str, Any] = {"agent_pos": np.array([*self.place, 0.0], np.float32)}
        if draw and self.render:
            axis = np.linspace(-1, 1, self.protocol.image_size)
            near = [np.hypot(axis - x, axis[:, None] - y) < 0.2 for x, y in (self.place, self.goal)]
            seen["pixels"] = {"above": 255 * np.stack([near[0], near[1], near[0]], axis=-1).astype(np.uint8)}
        return seen | ({"expert_action": self.expert()} if "expert_action" in self.extras else {})

    def fps(self) -> float:
        return 10.0

    def provenance(self) -> dict[str, Any]:
        return {"toy": "1.0"}

    def memory(self) -> int:
        return 2**20

    def close(self) -> None:
        pass


class ToyDemonstrator:
    """Records the host's own expert."""

    def __init__(self, *, protocol, quality, noise):
        self.host = ToyHost(protocol=protocol, noise=noise)

    def record(self, spec: EpisodeSpec) -> RecordedDemonstration:
        (seen, info), rows, over = self.host.reset(spec, True), [], False
        while not over:
            action = self.host.expert()
            rows.append((seen["pixels"]["above"], seen["agent_pos"], action))
            seen, _, success, truncated, _ = self.host.step(action, True)
            over = success or truncated
        pictures, places, actions = map(np.stack, zip(*rows, strict=True))
        who = {"task": spec.task, "language": info["instruction"], "seed": spec.seed, "source": "scripted"}
        what = {"frames": {"above": pictures}, "actions": actions, "proprioception": {EE_POSITIONS: places}}
        return RecordedDemonstration(
            id=TOY.episode_id(spec), robot=POINT, fps=self.host.fps(), success=success, **who, **what
        )

    def close(self) -> None:
        pass


class ToySimulator(Simulator):
    """Two tasks: the goal is on the left or on the right."""

    name = title = "toy"
    robot = POINT
    host = f"{__name__}:ToyHost"
    cameras = ("above",)
    recording = Recording(demonstrator=f"{__name__}:ToyDemonstrator", options={"noise": 0.1})
    protocols = (
        EvaluationProtocol(
            name="toy",
            simulator="toy",
            source="this file",
            episodes_per_task=3,
            initial_states="random",
            settle_steps=0,
            settle_action=(0.0, 0.0),
            max_steps={"": 30},
            image_size=32,
            image_transform="none",
            cameras=("above",),
            proprioception="place",
        ),
    )

    def find_tasks(self, tasks, suite=None):
        if unknown := [task for task in tasks or () if task not in GOALS]:
            raise ValueError(f"unknown toy task {unknown[0]!r}; there are {', '.join(GOALS)}")
        return list(tasks or ())

    def instruction(self, task: str) -> str:
        return f"go {task}"


TOY = ToySimulator()
