"""A stand-in for a simulator's host: dynamics that depend on actions and seed, at random speeds, with faults on demand.

It imports little, as worker processes load it. What it does is set by the environment variable `FAKE_HOST`, in JSON:
`slowness` (seconds that a call takes at most, drawn anew for each), `faults` ({"task/index": {"kind", "step",
"times"}}, where step -1 is the reset), `attempts` (folder in which attempts at episodes are counted), `agent_pos_dim`,
`provenance`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 16


class FakeHost:
    """A random walk that actions push; success is where its first coordinate has passed 1.5."""

    def __init__(
        self,
        *,
        protocol: Any,
        quality: str,
        render: bool,
        extras: tuple[str, ...] = (),
        noise: float = 0.0,
        assets: str | None = None,
    ) -> None:
        if quality == "unheard-of":
            raise ValueError("quality must be fast, got unheard-of")
        self.settings = json.loads(os.environ.get("FAKE_HOST", "{}"))
        self.protocol, self.render, self.extras, self.noise = protocol, render, extras, noise
        self.random = random.Random()

    def reset(self, spec: Any, draw: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        if spec.task == "door-lock":
            raise FileNotFoundError("there are no assets of door-lock")
        self.spec, self.steps = spec, 0
        self.generator = np.random.default_rng([spec.seed, len(spec.task)])
        self.state = 0.1 * self.generator.normal(size=self.settings.get("agent_pos_dim", 4))
        self.state = self.state.astype(np.float32)
        self._begin_attempt()
        self._misbehave(-1)
        return self._observation(draw), {"instruction": f"do {spec.task}", "success": False}

    def step(self, action: Any, draw: bool) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self._misbehave(self.steps)
        self.steps += 1
        push = np.resize(action, self.state.shape) + self.generator.normal(size=self.state.shape)
        self.state = (0.8 * self.state + 0.6 * push).astype(np.float32)
        success = bool(self.state[0] > 1.5)
        limit = self.protocol.steps_of("") - self.spec.seed % 3
        reward = float("nan") if self._fault(self.steps - 1) == "nan reward" else float(self.state.sum())
        return self._observation(draw), reward, success, self.steps >= limit, {"success": success}

    def fps(self) -> float:
        return 10.0

    def provenance(self) -> dict[str, Any]:
        return {"mujoco": "3.3.0", **self.settings.get("provenance", {})}

    def memory(self) -> int:
        return 12345

    def _observation(self, draw: bool) -> dict[str, Any]:
        time.sleep(self.random.random() * self.settings.get("slowness", 0.0))
        state = self.state.copy()
        if self._fault(self.steps - 1) == "nan":
            state[1] = np.nan
        observation: dict[str, Any] = {"agent_pos": state}
        if self.render and draw:
            waves = np.sin(np.arange(SIZE)[:, None] * state[0] + np.arange(SIZE) * state[1 % len(state)])
            picture = (127 + 120 * np.nan_to_num(waves)).astype(np.uint8)
            observation["pixels"] = {
                camera: np.stack([np.roll(picture, number, axis=0)] * 3, axis=-1)
                for number, camera in enumerate(self.protocol.cameras)
            }
        if "expert_action" in self.extras:
            observation["expert_action"] = np.full(4, self.noise or 1.0, np.float32)
        return observation

    def _begin_attempt(self) -> None:
        folder = self.settings.get("attempts")
        self.attempt = 1
        if folder:
            file = Path(folder) / f"{self.spec.task.replace('/', '-')}-{self.spec.index}"
            self.attempt = 1 + (file.stat().st_size if file.exists() else 0)
            file.write_bytes(b"x" * self.attempt)

    def _fault(self, step: int) -> str | None:
        fault = self.settings.get("faults", {}).get(f"{self.spec.task}/{self.spec.index}")
        wanted = fault is not None and fault.get("step", -1) == step and self.attempt <= fault.get("times", 99)
        return fault["kind"] if wanted else None

    def _misbehave(self, step: int) -> None:
        kind = self._fault(step)
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":
            time.sleep(1000)
        if kind == "error":
            raise ZeroDivisionError("the simulator divided by zero")


class Variables:
    """Tells its process' environment variables."""

    def gpu(self):
        return os.environ.get("MUJOCO_EGL_DEVICE_ID")

    def process(self):
        return os.getpid()
