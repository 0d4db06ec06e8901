"""Which episodes a recording still lacks.

A recording goes on where it stopped when it is called again. Which episodes there are depends on its settings alone,
not on the number of workers: those whose numbers the expert does not solve are left out and listed.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Sequence

from ..envs.protocols import EpisodeSpec
from .log import RecordingLog


class RecordingPlan:
    """Which episodes are still to be recorded: of each task the first numbers neither recorded nor known to fail.

    Args:
        tasks: Names of the tasks.
        episodes_per_task: Episodes wanted of each.
        make_spec: Says how the episode of a task and a number starts.
        most: How many numbers a task has.
        has: Whether an episode is recorded.
        log: The recording's log.
        replace_failures: Whether another episode is recorded instead of one that was not solved.
        advice: What may help where too many episodes are not solved.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        episodes_per_task: int,
        make_spec: Callable[[str, int], EpisodeSpec],
        *,
        most: int,
        has: Callable[[EpisodeSpec], bool],
        log: RecordingLog,
        replace_failures: bool,
        advice: str,
    ) -> None:
        self.replaces_failures = replace_failures
        self.kept = 0
        self._make_spec, self._most, self._has, self._log, self._advice = make_spec, most, has, log, advice
        self._ranks = {task: rank for rank, task in enumerate(tasks)}
        self._open = {task: self._open_specs(task) for task in tasks}
        # In the plan's order.
        self._specs: list[EpisodeSpec] = []
        for task in tasks:
            there = sum(has(make_spec(task, number)) for number in range(most))
            self.kept += there
            log.tasks[task] = max(episodes_per_task, there)
            self._specs.extend(next(self._open[task]) for _ in range(episodes_per_task - there))

    def __len__(self) -> int:
        return len(self._specs)

    def order(self, spec: EpisodeSpec) -> tuple[int, int]:
        """Where an episode stands in the plan: tasks as they were given, and each one's episodes by their numbers."""
        return self._ranks[spec.task], spec.index

    def first(self) -> EpisodeSpec | None:
        """Say which episode is the first that was not taken yet."""
        return self._specs[0] if self._specs else None

    def next(self, task: str | None = None) -> EpisodeSpec | None:
        """Take the next episode, of a given task if there is one left."""
        if not self._specs:
            return None
        spec = next((spec for spec in self._specs if spec.task == task), self._specs[0])
        self._specs.remove(spec)
        return spec

    def replace(self, spec: EpisodeSpec) -> None:
        """Plan another episode instead of one that was not solved."""
        if self.replaces_failures:
            insort(self._specs, next(self._open[spec.task]), key=self.order)

    def _open_specs(self, task: str) -> Iterator[EpisodeSpec]:
        for number in range(self._most):
            spec = self._make_spec(task, number)
            if not self._has(spec) and not self._log.failed(spec):
                yield spec
        raise ValueError(f"{task}: the expert did not solve enough of {self._most} episodes; {self._advice}")
