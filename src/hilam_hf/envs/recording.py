"""What recorders of every simulator share: which episodes are still to be made, the log of how, the workers' round.

A recording goes on where it stopped when it is called again. Which episodes there are depends on its settings alone,
not on the number of workers: those whose numbers the expert does not solve are left out and listed.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm.auto import tqdm

from .workers import Worker, ready_workers

RECORDING_FILE = "recording.json"


@dataclass(frozen=True)
class Job:
    """An episode to record.

    Attributes:
        id: Name of the episode in the files.
        task: Name of the task.
        episode: Number of the episode among those of its task.
        seed: Seed of the reset.
        initial_state: Number of the benchmark's initial state, or None where the seed draws it.
    """

    id: str
    task: str
    episode: int
    seed: int
    initial_state: int | None = None

    def __str__(self) -> str:
        state = "" if self.initial_state is None else f", initial state {self.initial_state}"
        return f"{self.task}{state}, seed {self.seed}"


class Recorded(Protocol):
    """What a worker hands back of one episode."""

    success: bool

    @property
    def num_frames(self) -> int:
        """Frames of the episode."""


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


class RecordingLog:
    """`recording.json`: how the episodes in a folder came about.

    Args:
        root: Folder of the recording.
        settings: What decides which episodes there are and how they look.
        circumstances: What else is told: simulator, renderer, versions.

    Raises:
        ValueError: The folder holds a recording with other settings.
    """

    def __init__(self, root: str | Path, settings: dict[str, Any], circumstances: dict[str, Any]) -> None:
        self.path = Path(root) / RECORDING_FILE
        # As they are after having been written and read.
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.circumstances = circumstances
        self.tasks: dict[str, int] = {}
        self.failures: list[dict[str, Any]] = []
        if self.path.exists():
            self._resume(json.loads(self.path.read_text(encoding="utf-8")))

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

    def failed(self, job: Job) -> bool:
        """Say whether the expert is known not to solve the episode."""
        return any(failure["task"] == job.task and failure["episode"] == job.episode for failure in self.failures)

    def add_failure(self, job: Job, steps: int) -> None:
        """List an episode that the expert did not solve."""
        self.failures.append({**asdict(job), "steps": steps})
        self.save()

    def save(self, *, finished: bool = False) -> None:
        """Write the file, whole or not at all."""
        record = {
            **self.circumstances,
            "finished": finished,
            "settings": self.settings,
            "tasks": self.tasks,
            "failures": sorted(self.failures, key=lambda failure: (failure["task"], failure["episode"])),
        }
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, self.path)


class RecordingPlan:
    """Which episodes are still to be recorded: of each task the first numbers neither recorded nor known to fail.

    Args:
        tasks: Names of the tasks.
        episodes_per_task: Episodes wanted of each.
        make_job: Makes the job of a task and an episode's number.
        most: How many numbers a task has.
        has: Whether an episode of an id is recorded.
        log: The recording's log.
        replace_failures: Whether another episode is recorded instead of one that was not solved.
        advice: What may help where too many episodes are not solved.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        episodes_per_task: int,
        make_job: Callable[[str, int], Job],
        *,
        most: int,
        has: Callable[[str], bool],
        log: RecordingLog,
        replace_failures: bool,
        advice: str,
    ) -> None:
        self.replaces_failures = replace_failures
        self.kept = 0
        self._make_job, self._most, self._has, self._log, self._advice = make_job, most, has, log, advice
        self._open = {task: self._open_jobs(task) for task in tasks}
        self._jobs: deque[Job] = deque()
        for task in tasks:
            there = sum(has(make_job(task, number).id) for number in range(most))
            self.kept += there
            log.tasks[task] = max(episodes_per_task, there)
            self._jobs.extend(next(self._open[task]) for _ in range(episodes_per_task - there))

    def __len__(self) -> int:
        return len(self._jobs)

    def next(self, task: str | None = None) -> Job | None:
        """Take the next episode, of a given task if there is one left."""
        if not self._jobs:
            return None
        job = next((job for job in self._jobs if job.task == task), self._jobs[0])
        self._jobs.remove(job)
        return job

    def replace(self, job: Job) -> None:
        """Plan another episode instead of one that was not solved."""
        if self.replaces_failures:
            self._jobs.appendleft(next(self._open[job.task]))

    def _open_jobs(self, task: str) -> Iterator[Job]:
        for number in range(self._most):
            job = self._make_job(task, number)
            if not self._has(job.id) and not self._log.failed(job):
                yield job
        raise ValueError(f"{task}: the expert did not solve enough of {self._most} episodes; {self._advice}")


def record_planned(
    plan: RecordingPlan,
    workers: Sequence[Worker],
    write: Callable[[Job, Any], None],
    log: RecordingLog,
    *,
    progress: bool,
) -> tuple[int, int]:
    """Run the planned episodes and write them.

    Args:
        plan: The plan.
        workers: Workers whose `record(job)` returns a `Recorded`; each goes on with the task that it has, if it can.
        write: Writes an episode.
        log: The recording's log.
        progress: Whether to show a progress bar.

    Returns:
        Numbers of episodes and of frames written.

    Raises:
        ValueError: The expert fails too often.
        WorkerError: A worker died; the message names the episode.
        OSError: The disk is full.
    """
    recorded = frames = 0
    running: dict[Worker, Job] = {}

    def give_job(worker: Worker, task: str | None = None) -> None:
        job = plan.next(task)
        if job is not None:
            worker.send("record", job, doing=str(job))
            running[worker] = job

    with tqdm(total=len(plan), desc="recording", unit="episode", disable=not progress) as bar:
        for worker in workers:
            give_job(worker)
        while running:
            for worker in ready_workers(list(running)):
                episode: Recorded = worker.receive()
                job = running.pop(worker)
                wanted = episode.success or not plan.replaces_failures
                if not wanted:
                    plan.replace(job)
                # The worker goes on while its last episode is written.
                give_job(worker, job.task)
                if not episode.success:
                    log.add_failure(job, episode.num_frames)
                if wanted:
                    write(job, episode)
                    recorded += 1
                    frames += episode.num_frames
                    bar.update()
                    bar.set_postfix_str(f"{job.task}, {frames / max(bar.format_dict['elapsed'], 1e-9):.0f} frames/s")
    return recorded, frames
