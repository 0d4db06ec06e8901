"""Records scripted experts: their episodes as videos, the actions kept apart.

Legend: T frames, A numbers in an action, P numbers in `agent_pos`, H and W a picture's size.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from .experts import ScriptedExpert
from .metaworld import camera_names, make_env
from .metaworld_tasks import INSTRUCTIONS, normalize_task
from .rendering import renderer_provenance
from .seeds import demonstration_seed
from .workers import Worker, ready_workers

if TYPE_CHECKING:
    from ..data.demonstrations import DemonstrationWriter

RECORDING_FILE = "recording.json"
SIMULATOR = "metaworld"
_WORKER = f"{__name__}:Demonstrator"
ActionLabels = Literal["expert", "executed"]


@dataclass(frozen=True)
class RecordedEpisode:
    """What a worker hands back of one episode; frame t is what was seen before action t.

    Attributes:
        success: Whether the expert solved the task.
        frames: uint8 (T, 3, H, W).
        actions: float32 (T, A), labels as chosen by `action_labels`.
        agent_pos: float32 (T, P).
        phases: T words of `PHASES`: in which phase of the task the expert chose action t.
        fps: Control steps, and so frames, in a second of simulated time.
    """

    success: bool
    frames: NDArray[np.uint8]
    actions: NDArray[np.float32]
    agent_pos: NDArray[np.float32]
    phases: list[str]
    fps: float


@dataclass(frozen=True)
class RecordingSummary:
    """Outcome of a recording.

    Attributes:
        root: The folder.
        recorded: Episodes recorded now.
        kept: Episodes that were there before.
        frames: Frames recorded now.
        seconds: Time it took.
        failures: Episodes that the expert did not solve: task, episode number, seed and steps.
    """

    root: Path
    recorded: int
    kept: int
    frames: int
    seconds: float
    failures: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        rate = self.frames / max(self.seconds, 1e-9)
        return (
            f"{self.recorded} episodes ({self.frames} frames) recorded in {self.seconds:.0f} s ({rate:.0f} frames/s), "
            f"{self.kept} kept from before, {len(self.failures)} not solved by the expert: {self.root}"
        )


def record_demonstrations(
    root: str | Path,
    tasks: str | Sequence[str],
    episodes_per_task: int,
    *,
    seed: int = 0,
    image_size: int = 128,
    camera: str = "corner2",
    quality: str = "fast",
    noise: float = 0.1,
    num_workers: int = 2,
    max_steps: int = 200,
    settle_steps: int = 5,
    action_labels: ActionLabels = "expert",
    only_successful: bool = True,
    progress: bool = True,
) -> RecordingSummary:
    """Record demonstrations of Meta-World tasks by their scripted experts.

    Episodes are written by `DemonstrationWriter` as they come; a recording that was interrupted goes on where it
    stopped when it is called again. Which episodes there are depends on the options alone, not on the number of
    workers: number i of a task starts from `demonstration_seed(seed, i)`, and with `only_successful` the numbers that
    the expert does not solve are left out and listed in `recording.json`, beside everything needed to repeat it.

    Each frame comes with the phase of the task in which its action was chosen (`hilam_hf.envs.experts.PHASES`), the
    ground truth of segmentation.

    An episode goes on for `settle_steps` after success, so that its last frames show the solved task.

    Args:
        root: Folder of the recording; may hold an unfinished one.
        tasks: One or several tasks of MT50, with or without `-v3`.
        episodes_per_task: Episodes wanted of each task.
        seed: Chooses the initial states, 0 to 99; no evaluation has one of them.
        image_size: Height and width of pictures in pixels; even.
        camera: A view of `CAMERAS`.
        quality: Rendering quality, see `RenderQuality`.
        noise: Standard deviation of Gaussian noise on the executed displacements (1 is one centimetre a step).
        num_workers: Environments run in parallel, each in a process of its own.
        max_steps: Steps after which the expert has failed.
        settle_steps: Steps recorded after success.
        action_labels: Which actions are recorded: `"expert"`, what the expert meant to do in the state that noise
            brought it to (the labels that imitation learns most from: Laskey et al. 2017, DART), or `"executed"`, with
            the noise.
        only_successful: Whether episodes that the expert does not solve are left out and replaced by others.
        progress: Whether to show a progress bar.

    Returns:
        Counts, time, failures.

    Raises:
        ValueError: A task or option is not valid; the folder holds a recording with other options; or the expert
            fails too often.
        OSError: The disk is full or the folder not writable; finished episodes stay.
        WorkerError: A worker died; the message names the task and the seed.

    Example:
        >>> print(record_demonstrations("recording", ["drawer-open", "door-open"], 30, camera="workspace"))
    """
    from ..data.demonstrations import DemonstrationWriter

    started = time.monotonic()
    names = list(dict.fromkeys(map(normalize_task, [tasks] if isinstance(tasks, str) else tasks)))
    options = {"camera": camera, "image_size": image_size, "quality": quality, "max_steps": max_steps}
    how = {"noise": noise, "settle_steps": settle_steps, "action_labels": action_labels}
    _check_options(names, episodes_per_task, num_workers, options, how)
    # Before the workers start, which inherit the choice of a graphics library.
    renderer = renderer_provenance(quality)
    with ExitStack() as stack:
        writer = stack.enter_context(DemonstrationWriter(root))
        settings = {"seed": seed, **options, **how, "only_successful": only_successful}
        log = _RecordingLog(Path(root) / RECORDING_FILE, settings, renderer)
        plan = _Plan(names, episodes_per_task, seed, writer, log, replace_failures=only_successful)
        kept = plan.kept
        log.save()
        workers = [
            stack.enter_context(Worker(_WORKER, name=f"recorder {number}", **options, **how))
            for number in range(min(num_workers, len(plan)))
        ]
        bar = stack.enter_context(tqdm(total=len(plan), desc="recording", unit="episode", disable=not progress))
        recorded, frames = _record(plan, workers, writer, log, bar)
        log.save(finished=True)
    failures = tuple(failure for failure in log.failures if failure["task"] in names)
    return RecordingSummary(Path(root), recorded, kept, frames, time.monotonic() - started, failures)


class Demonstrator:
    """Runs experts in a worker process.

    Args:
        noise: Standard deviation of the noise on displacements.
        settle_steps: Steps recorded after success.
        action_labels: Which actions are recorded.
        options: Options of `MetaWorldEnv`.
    """

    def __init__(self, *, noise: float, settle_steps: int, action_labels: ActionLabels, **options: Any) -> None:
        self._noise = noise
        self._settle_steps = settle_steps
        self._action_labels = action_labels
        # The simulator needs room for the steps after a success that came last.
        self._max_steps = options["max_steps"]
        self._options = {**options, "max_steps": self._max_steps + settle_steps, "terminate_on_success": False}
        self._environment: Any = None

    def record(self, task: str, seed: int) -> RecordedEpisode:
        """Run one episode until `settle_steps` after success, or for `max_steps`."""
        if self._environment is None or self._environment.task != task:
            self.close()
            self._environment = make_env(task, **self._options)
        environment = self._environment
        expert = ScriptedExpert(task, noise=self._noise, seed=seed)
        observation, _ = environment.reset(seed=seed)
        frames, labels, states, phases = [], [], [], []
        solved_at: int | None = None
        for step in count():
            state = environment.privileged_state()
            phases.append(expert.phase(state))
            intended = expert.intended_action(state)
            executed = expert.perturb(intended)
            frames.append(next(iter(observation["pixels"].values())))
            states.append(observation["agent_pos"])
            labels.append(intended if self._action_labels == "expert" else executed)
            observation, _, _, _, info = environment.step(executed)
            if info["success"] and solved_at is None:
                solved_at = step
            last = self._max_steps - 1 if solved_at is None else solved_at + self._settle_steps
            if step == last:
                break
        pictures = np.ascontiguousarray(np.stack(frames).transpose(0, 3, 1, 2))
        return RecordedEpisode(
            solved_at is not None, pictures, np.stack(labels), np.stack(states), phases, environment.fps
        )

    def close(self) -> None:
        """Close the environment, if there is one."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None


@dataclass(frozen=True)
class _Job:
    task: str
    episode: int
    seed: int

    @property
    def id(self) -> str:
        return f"{self.task}/episode_{self.episode:05d}"

    def __str__(self) -> str:
        return f"{self.task}, seed {self.seed}"


class _RecordingLog:
    """`recording.json`: how the episodes in a folder came about."""

    def __init__(self, path: Path, settings: dict[str, Any], renderer: dict[str, Any]) -> None:
        self.path = path
        self.settings = settings
        self.renderer = renderer
        self.tasks: dict[str, int] = {}
        self.failures: list[dict[str, Any]] = []
        if path.exists():
            self._resume(json.loads(path.read_text(encoding="utf-8")))

    def _resume(self, before: dict[str, Any]) -> None:
        changed = [
            f"{option} {before['settings'].get(option)!r} -> {value!r}"
            for option, value in self.settings.items()
            if before["settings"].get(option) != value
        ]
        if changed:
            raise ValueError(
                f"{self.path.parent} holds a recording with other options ({', '.join(changed)}); "
                "repeat them, or choose another folder"
            )
        self.tasks = before["tasks"]
        self.failures = before["failures"]

    def failed(self, job: _Job) -> bool:
        return any(failure["task"] == job.task and failure["episode"] == job.episode for failure in self.failures)

    def add_failure(self, job: _Job, steps: int) -> None:
        self.failures.append({**asdict(job), "steps": steps})
        self.save()

    def save(self, *, finished: bool = False) -> None:
        record = {
            "simulator": SIMULATOR,
            "finished": finished,
            "settings": self.settings,
            "tasks": self.tasks,
            "failures": sorted(self.failures, key=lambda failure: (failure["task"], failure["episode"])),
            "renderer": self.renderer,
            "packages": {name: metadata.version(name) for name in ("metaworld", "mujoco", "gymnasium")},
        }
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, self.path)


class _Plan:
    """Which episodes are still to be recorded: of each task the first numbers neither recorded nor known to fail."""

    def __init__(
        self,
        tasks: Sequence[str],
        episodes_per_task: int,
        seed: int,
        writer: DemonstrationWriter,
        log: _RecordingLog,
        *,
        replace_failures: bool,
    ) -> None:
        self._seed = seed
        self.replaces_failures = replace_failures
        self._most = 3 * episodes_per_task + 10
        self._open = {task: self._open_jobs(task, writer, log) for task in tasks}
        self.kept = 0
        self._jobs: deque[_Job] = deque()
        for task in tasks:
            there = sum(writer.has(self._job(task, number).id) for number in range(self._most))
            self.kept += there
            log.tasks[task] = max(episodes_per_task, there)
            self._jobs.extend(next(self._open[task]) for _ in range(episodes_per_task - there))

    def __len__(self) -> int:
        return len(self._jobs)

    def next(self) -> _Job | None:
        """Take the next episode."""
        return self._jobs.popleft() if self._jobs else None

    def replace(self, job: _Job) -> None:
        """Plan another episode instead of one that was not solved."""
        if self.replaces_failures:
            self._jobs.appendleft(next(self._open[job.task]))

    def _job(self, task: str, episode: int) -> _Job:
        return _Job(task, episode, demonstration_seed(self._seed, episode))

    def _open_jobs(self, task: str, writer: DemonstrationWriter, log: _RecordingLog) -> Iterator[_Job]:
        for number in range(self._most):
            job = self._job(task, number)
            if not writer.has(job.id) and not log.failed(job):
                yield job
        raise ValueError(
            f"{task}: the expert did not solve enough of {self._most} episodes; raise max_steps "
            f"(now {log.settings['max_steps']}), lower noise (now {log.settings['noise']}), or record failures, too"
        )


def _record(
    plan: _Plan, workers: list[Worker], writer: DemonstrationWriter, log: _RecordingLog, bar: tqdm[Any]
) -> tuple[int, int]:
    """Run the planned episodes and write them; returns the numbers of episodes and frames written."""
    recorded = frames = 0
    running: dict[Worker, _Job] = {}

    def give_job(worker: Worker) -> None:
        job = plan.next()
        if job is not None:
            worker.send("record", job.task, job.seed, doing=str(job))
            running[worker] = job

    for worker in workers:
        give_job(worker)
    while running:
        for worker in ready_workers(list(running)):
            episode: RecordedEpisode = worker.receive()
            job = running.pop(worker)
            wanted = episode.success or not plan.replaces_failures
            if not wanted:
                plan.replace(job)
            # The worker goes on while its last episode is written.
            give_job(worker)
            if not episode.success:
                log.add_failure(job, len(episode.frames))
            if wanted:
                _write(writer, job, episode)
                recorded += 1
                frames += len(episode.frames)
                bar.update()
                bar.set_postfix_str(f"{job.task}, {frames / max(bar.format_dict['elapsed'], 1e-9):.0f} frames/s")
    return recorded, frames


def _write(writer: DemonstrationWriter, job: _Job, episode: RecordedEpisode) -> None:
    writer.add(
        job.id,
        task=job.task,
        language=INSTRUCTIONS[job.task],
        fps=episode.fps,
        frames=episode.frames,
        actions=episode.actions,
        agent_pos=episode.agent_pos,
        ee_position=episode.agent_pos[:, :3],
        success=episode.success,
        phases=episode.phases,
        seed=job.seed,
        source=SIMULATOR,
    )


def _check_options(
    tasks: Sequence[str], episodes_per_task: int, num_workers: int, options: dict[str, Any], how: dict[str, Any]
) -> None:
    # All of them are checked before `recording.json` is written, which a wrong one would otherwise reach.
    if not tasks:
        raise ValueError("tasks: got none, expected at least one task")
    if len(camera_names(options["camera"])) != 1:
        raise ValueError(f"camera: a recording has one view, got {options['camera']!r}")
    for option, value, least in (
        ("episodes_per_task", episodes_per_task, 1),
        ("num_workers", num_workers, 1),
        ("image_size", options["image_size"], 2),
        ("max_steps", options["max_steps"], 1),
        ("settle_steps", how["settle_steps"], 0),
        ("noise", how["noise"], 0),
    ):
        if not value >= least:
            raise ValueError(f"{option} must be at least {least}, got {value}")
    if options["image_size"] % 2:
        raise ValueError(f"image_size must be even, since videos halve it for colour; got {options['image_size']}")
    if how["action_labels"] not in ("expert", "executed"):
        raise ValueError(f"action_labels must be 'expert' or 'executed', got {how['action_labels']!r}")
