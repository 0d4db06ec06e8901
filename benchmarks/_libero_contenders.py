"""Ways to run the same LIBERO episodes: LIBERO's own, one after the other and with its SubprocVectorEnv, and ours.

Each runs in a process of its own, `python _libero_contenders.py CONTENDER JOB`, which prints one JSON line. A job is a
JSON file: tasks, numbers of initial states, seed, picture size, workers, chunk length, and for every episode the
actions, so that all do the same work and come to the same ends.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hilam_hf.acting_spec import ActingSpec
from hilam_hf.envs.libero import find_assets, parse_task, read_initial_states
from hilam_hf.envs.libero.package import import_libero
from hilam_hf.envs.registry import get_protocol
from hilam_hf.evaluation import evaluate

SETTLE_ACTION = [0.0] * 6 + [-1.0]
SETTLE_STEPS = 10


class Replay:
    """Plays recorded actions; looks at every `chunk_length`-th pictures, as a policy that predicts chunks does."""

    acting_spec = ActingSpec(
        cameras=get_protocol("openvla").cameras, extra_observations=("task_name", "episode_seed"), has_chunks=False
    )

    def __init__(self, actions: dict[str, list[list[float]]], seed: int, chunk_length: int) -> None:
        self._actions, self._seed, self._chunk_length = actions, seed, chunk_length
        self._steps: dict[int, int] = {}
        self._num_rows = 0

    def reset(self, indices: Sequence[int] | None = None) -> None:
        """Begin anew in some rows, or all."""
        for row in list(self._steps) if indices is None else indices:
            self._steps[row] = 0

    def reads_next(self) -> list[bool]:
        """Which rows look at their next pictures."""
        return [self._steps.get(row, 0) % self._chunk_length == 0 for row in range(self._num_rows)]

    def select_action(self, observation: dict[str, Any], active: Sequence[int] | None = None) -> np.ndarray:
        """Return the actions of the active rows."""
        self._num_rows = len(observation["task_name"])
        actions = np.zeros((self._num_rows, 7), np.float32)
        for row in range(self._num_rows) if active is None else active:
            key = f"{observation['task_name'][row]} {int(observation['episode_seed'][row]) - self._seed}"
            episode = self._actions[key]
            actions[row] = episode[min(self._steps[row], len(episode) - 1)]
            self._steps[row] += 1
        return actions


def sequential(job: dict[str, Any]) -> dict[str, Any]:
    """LIBERO's own environment, a task and an episode at a time, as its users' evaluation scripts have it."""
    steps, successes = 0, {}
    for task in job["tasks"]:
        environment = libero_environment(task, job["image_size"], find_assets())
        states = read_initial_states(parse_task(task).initial_states_file)
        for number in job["states"]:
            environment.seed(job["seed"] + number)
            environment.reset()
            environment.set_init_state(states[number])
            for _ in range(SETTLE_STEPS):
                environment.step(SETTLE_ACTION)
            done = False
            for action in job["actions"][f"{task} {number}"]:
                _, _, done, _ = environment.step(action)
                steps += 1
                if done:
                    break
            successes[f"{task} {number}"] = bool(done)
        environment.close()
    return {"steps": steps, "successes": successes}


def subproc(job: dict[str, Any]) -> dict[str, Any]:
    """LIBERO's SubprocVectorEnv as its own evaluation uses it: a task at a time, in waves of episodes."""
    envs = import_libero(find_assets(), drawing=True)
    steps, successes = 0, {}
    for task in job["tasks"]:
        make = partial(libero_environment, task, job["image_size"], find_assets())
        vector = envs.SubprocVectorEnv([make for _ in range(job["workers"])])
        states = read_initial_states(parse_task(task).initial_states_file)
        for start in range(0, len(job["states"]), job["workers"]):
            wave = job["states"][start : start + job["workers"]]
            rows = list(range(len(wave)))
            vector.seed([job["seed"] + number for number in wave] + [0] * (job["workers"] - len(wave)))
            vector.reset(id=rows)
            vector.set_init_state(states[wave], id=rows)
            for _ in range(SETTLE_STEPS):
                vector.step(np.array([SETTLE_ACTION] * len(wave)), id=rows)
            steps += _play_wave(vector, task, wave, job["actions"], successes)
        vector.close()
    return {"steps": steps, "successes": successes}


def _play_wave(vector: Any, task: str, wave: list[int], actions: dict[str, Any], successes: dict[str, bool]) -> int:
    """Play one episode in each environment until all are over; returns the steps that counted."""
    episodes = [actions[f"{task} {number}"] for number in wave]
    done, steps = [False] * len(wave), 0
    for step in range(max(map(len, episodes))):
        chosen = np.array([episode[min(step, len(episode) - 1)] for episode in episodes])
        _, _, now, _ = vector.step(chosen, id=list(range(len(wave))))
        steps += sum(not over and step < len(episode) for over, episode in zip(done, episodes, strict=True))
        done = [before or bool(after) for before, after in zip(done, now, strict=True)]
        if all(done):
            break
    successes |= {f"{task} {number}": over for number, over in zip(wave, done, strict=True)}
    return steps


def ours(job: dict[str, Any], quality: str) -> dict[str, Any]:
    """`hilam_hf.evaluation.evaluate`."""
    policy = Replay(job["actions"], job["seed"], job["chunk_length"])
    protocol = get_protocol("openvla").with_options(image_size=job["image_size"], max_steps={"": job["max_steps"]})
    result = evaluate(
        policy,
        job["tasks"],
        protocol=protocol,
        episodes=job["states"],
        seed=job["seed"],
        num_envs=job["workers"],
        quality=quality,
        progress=False,
    )
    successes = {f"{episode.task} {episode.index}": episode.success for episode in result.episodes}
    run = result.provenance["run"]
    return {"steps": run["environment_steps"], "successes": successes, "memory": run["worker_memory_bytes"]}


def libero_environment(task: str, size: int, assets: Path) -> Any:
    """LIBERO's environment with pictures, whose resets draw what a fresh one's do."""
    envs = import_libero(assets, drawing=True)
    return envs.OffScreenRenderEnv(
        bddl_file_name=str(parse_task(task).bddl_file), camera_heights=size, camera_widths=size
    )


CONTENDERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "sequential": sequential,
    "subproc": subproc,
    "exact": partial(ours, quality="exact"),
    "fast": partial(ours, quality="fast"),
}


def main() -> None:
    """Run one contender on a job and print what came of it."""
    job = json.loads(Path(sys.argv[2]).read_text())
    start = time.perf_counter()
    outcome = CONTENDERS[sys.argv[1]](job)
    print(json.dumps(outcome | {"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
