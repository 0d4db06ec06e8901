"""Rollouts of a policy in parallel environments, with success rates, videos and a provenance record.

Legend: B is the number of environments (the policy's batch), H and W a picture's size, A the action's size.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..envs.metaworld_tasks import INSTRUCTIONS, normalize_task
from ..envs.rendering import renderer_provenance
from ..envs.seeds import evaluation_seed
from ..envs.workers import Worker
from ..optional import require
from .policies import EXTRA_OBSERVATIONS, Policy
from .provenance import machine, package_versions, policy_record
from .statistics import SuccessRate

_WORKER = "hilam_hf.envs.host:EnvironmentHost"
PROTOCOL = "metaworld"
"""Name of the protocol in records: initial states by seed, success at any step ends the episode."""


@dataclass(frozen=True)
class EpisodeResult:
    """One finished episode.

    Attributes:
        task: Task without version suffix.
        seed: Seed that determines the initial state.
        success: Whether the task was solved within the allowed steps.
        steps: Control steps taken.
        total_reward: Sum of the environment's rewards.
        video: Path of its video relative to the results, or None.
    """

    task: str
    seed: int
    success: bool
    steps: int
    total_reward: float
    video: str | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """Outcome of an evaluation.

    Attributes:
        episodes: The episodes in the order of tasks and seeds.
        provenance: What has to be known to repeat it.
    """

    episodes: tuple[EpisodeResult, ...]
    provenance: dict[str, Any]

    @property
    def overall(self) -> SuccessRate:
        """Success over all episodes."""
        return _success_rate(self.episodes)

    @property
    def tasks(self) -> dict[str, SuccessRate]:
        """Success of each task."""
        names = dict.fromkeys(episode.task for episode in self.episodes)
        return {name: _success_rate([episode for episode in self.episodes if episode.task == name]) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return what `results.json` holds: `success_rate` overall and per task (0 to 1), episodes, provenance."""
        return {
            "protocol": PROTOCOL,
            **self.overall.to_dict(),
            "tasks": {task: rate.to_dict() for task, rate in self.tasks.items()},
            "episode_results": [asdict(episode) for episode in self.episodes],
            "provenance": self.provenance,
        }

    def save(self, path: str | Path) -> None:
        """Write `to_dict()` as JSON, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        os.replace(partial, path)


def evaluate(
    policy: Policy,
    tasks: str | Sequence[str],
    *,
    episodes_per_task: int = 20,
    num_envs: int = 2,
    seed: int = 0,
    max_steps: int = 200,
    camera: str | Sequence[str] = "corner2",
    image_size: int = 128,
    quality: str = "fast",
    out_dir: str | Path | None = None,
    videos_per_task: int = 1,
    render: bool = True,
    policy_name: str | None = None,
    progress: bool = True,
) -> EvaluationResult:
    """Roll a policy out in Meta-World and count successes.

    Environments run in processes of their own and keep a fixed row of the policy's batch; one that finishes takes the
    next episode at once. The batch always has `num_envs` rows (fewer where there are fewer episodes); a row without
    an episode left keeps its last observation and its action is ignored. Episode i of every task starts from the seed
    `evaluation_seed(seed, i)`, so the same seed gives the same initial states whatever the number of environments, and
    the same results as long as the policy treats rows independently.

    Args:
        policy: The policy; see `Policy`.
        tasks: One or several tasks, with or without `-v3`.
        episodes_per_task: Episodes of each task.
        num_envs: Environments run in parallel.
        seed: Chooses the episodes' seeds, at least 0; no demonstration has one of them.
        max_steps: Control steps after which an episode has failed.
        camera: View or views that the policy sees; videos show the first.
        image_size: Height and width of pictures in pixels.
        quality: Rendering quality, see `MetaWorldEnv`.
        out_dir: Folder for `results.json` and `videos/`; None writes nothing.
        videos_per_task: How many episodes of each task, the first ones, become videos. Needs `out_dir`.
        render: Whether there are pictures at all; without them a policy acts on state alone and there are no videos.
        policy_name: Name or path of the policy for the record.
        progress: Whether to show a progress bar.

    Returns:
        Episodes, success rates with Wilson 95 % intervals, provenance.

    Raises:
        ValueError: A task or option is not valid, or the policy returned NaN or a wrong shape; the message names the
            task, the seed and the step.
        WorkerError: An environment's process died or failed.

    Example:
        >>> result = evaluate(ExpertPolicy(), ["drawer-open", "door-open"], episodes_per_task=5)
        >>> print(result.tasks["drawer-open"])
        100 % (5/5, 95 % interval 57-100 %)
    """
    names = list(dict.fromkeys(map(normalize_task, [tasks] if isinstance(tasks, str) else tasks)))
    _check_numbers(names, episodes_per_task=episodes_per_task, num_envs=num_envs)
    options = {
        "camera": camera,
        "image_size": image_size,
        "quality": quality,
        "max_steps": max_steps,
        "render": render,
        "privileged": "privileged" in _extra_observations(policy),
    }
    out = None if out_dir is None else Path(out_dir)
    plan = [
        _Episode(name, evaluation_seed(seed, index), filmed=out is not None and render and index < videos_per_task)
        for name in names
        for index in range(episodes_per_task)
    ]
    require("gymnasium", extra="metaworld")
    # Before the workers start, which inherit the choice of a graphics library.
    renderer = renderer_provenance(quality) if render else None
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(_WORKER, name=f"environment {row}", **options))
            for row in range(min(num_envs, len(plan)))
        ]
        bar = stack.enter_context(tqdm(total=len(plan), desc="rollouts", unit="episode", disable=not progress))
        _Rollout(policy, workers, plan, out, bar).run()
    del options["privileged"]
    provenance = {
        "protocol": PROTOCOL,
        "policy": policy_record(policy, policy_name),
        "environment": {"tasks": names, **options},
        "image_transform": "corner cameras turned by 180 degrees, as they are mounted upside down; nothing else",
        "episodes_per_task": episodes_per_task,
        "num_envs": len(workers),
        "seeds": sorted({episode.seed for episode in plan}),
        "settle_steps": 0,
        "renderer": renderer,
        "packages": package_versions(),
        "machine": machine(),
    }
    result = EvaluationResult(tuple(episode.result() for episode in plan), provenance)
    if out is not None:
        result.save(out / "results.json")
    return result


@dataclass
class _Episode:
    """An episode that is planned, running or finished."""

    task: str
    seed: int
    filmed: bool = False
    steps: int = 0
    total_reward: float = 0.0
    success: bool = False
    video: str | None = None
    frames: list[NDArray[np.uint8]] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        return f"{self.task}, seed {self.seed}, step {self.steps}"

    def result(self) -> EpisodeResult:
        return EpisodeResult(self.task, self.seed, self.success, self.steps, self.total_reward, self.video)


class _Rollout:
    """Runs planned episodes: row i of the batch is worker i."""

    def __init__(
        self, policy: Policy, workers: list[Worker], plan: list[_Episode], out: Path | None, bar: tqdm[Any]
    ) -> None:
        self.policy = policy
        self.workers = workers
        self.waiting = deque(plan)
        self.out = out
        self.bar = bar
        self.extras = _extra_observations(policy)
        self.finished = 0
        self.successes = 0
        # What each row is doing, and what it did last where nothing is left to do.
        self.live: dict[int, _Episode] = {}
        self.last: dict[int, _Episode] = {}
        self.observations: dict[int, dict[str, Any]] = {}

    def run(self) -> None:
        """Run all episodes."""
        self.policy.reset(None)
        self._start(range(len(self.workers)))
        while self.live:
            actions = self._actions()
            for row, episode in self.live.items():
                self.workers[row].send("step", actions[row], doing=str(episode))
            done = [row for row in self.live if self._receive_step(row)]
            for row in done:
                self._finish(row)
            self._start(done)

    def _start(self, rows: Sequence[int]) -> None:
        started = list(rows)[: len(self.waiting)]
        for row in started:
            episode = self.live[row] = self.last[row] = self.waiting.popleft()
            self.workers[row].send("reset", episode.task, episode.seed, doing=f"{episode.task}, seed {episode.seed}")
        for row in started:
            observation, _ = self.workers[row].receive()
            self._observe(row, observation)
        if started:
            self.policy.reset(started)

    def _actions(self) -> NDArray[np.float32]:
        actions = np.asarray(self.policy.select_action(self._batch()), dtype=np.float32)
        if actions.ndim != 2 or len(actions) != len(self.workers):
            raise ValueError(
                f"{type(self.policy).__name__}.select_action returned shape {actions.shape} for a batch of "
                f"{len(self.workers)}; expected ({len(self.workers)}, action size)"
            )
        for row, episode in self.live.items():
            if not np.isfinite(actions[row]).all():
                raise ValueError(f"{episode}: the policy's action is not finite: {actions[row].tolist()}")
        return actions

    def _batch(self) -> dict[str, Any]:
        rows = [self.observations[row] for row in range(len(self.workers))]
        episodes = [self.last[row] for row in range(len(self.workers))]
        batch: dict[str, Any] = {
            "agent_pos": np.stack([row["agent_pos"] for row in rows]),
            "task": [INSTRUCTIONS[episode.task] for episode in episodes],
        }
        cameras = rows[0].get("pixels", {})
        if cameras:
            batch["pixels"] = {camera: np.stack([row["pixels"][camera] for row in rows]) for camera in cameras}
        if "privileged" in self.extras:
            batch["privileged"] = np.stack([row["privileged"] for row in rows])
        if "task_name" in self.extras:
            batch["task_name"] = [episode.task for episode in episodes]
        if "episode_seed" in self.extras:
            batch["episode_seed"] = np.array([episode.seed for episode in episodes])
        return batch

    def _receive_step(self, row: int) -> bool:
        """Take in the answer to a step and return whether the episode is over."""
        observation, reward, terminated, truncated, info = self.workers[row].receive()
        episode = self.live[row]
        episode.steps += 1
        episode.total_reward += reward
        episode.success |= info["success"]
        self._observe(row, observation)
        return terminated or truncated

    def _observe(self, row: int, observation: dict[str, Any]) -> None:
        self.observations[row] = observation
        if self.live[row].filmed:
            self.live[row].frames.append(next(iter(observation["pixels"].values())))

    def _finish(self, row: int) -> None:
        episode = self.live.pop(row)
        if episode.filmed and self.out is not None:
            self.workers[row].send("fps")
            episode.video = _write_video(self.out, episode, fps=self.workers[row].receive())
        self.finished += 1
        self.successes += episode.success
        self.bar.update()
        self.bar.set_postfix_str(f"success {self.successes}/{self.finished}, {episode.task}")


def _write_video(out: Path, episode: _Episode, fps: float) -> str:
    import torch

    from ..video import write_video

    outcome = "success" if episode.success else "failure"
    path = Path("videos") / f"{episode.task}-{episode.seed}-{outcome}.mp4"
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    frames = torch.from_numpy(np.stack(episode.frames)).permute(0, 3, 1, 2)
    write_video(out / path, frames, fps)
    episode.frames.clear()
    return path.as_posix()


def _success_rate(episodes: Sequence[EpisodeResult]) -> SuccessRate:
    return SuccessRate(sum(episode.success for episode in episodes), len(episodes))


def _extra_observations(policy: Policy) -> tuple[str, ...]:
    extras = tuple(getattr(policy, "extra_observations", ()))
    unknown = sorted(set(extras) - set(EXTRA_OBSERVATIONS))
    if unknown:
        raise ValueError(
            f"{type(policy).__name__}.extra_observations asks for {', '.join(unknown)}; "
            f"there are {', '.join(EXTRA_OBSERVATIONS)}"
        )
    return extras


def _check_numbers(tasks: Sequence[str], *, episodes_per_task: int, num_envs: int) -> None:
    if not tasks:
        raise ValueError("tasks: got none, expected at least one task")
    for option, value in (("episodes_per_task", episodes_per_task), ("num_envs", num_envs)):
        if value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}")
