"""Runs episodes in parallel simulators without a barrier: whoever has answered acts, whoever is done begins anew.

Legend: B rows, one a worker process and a row of the policy's batch; A an action's size.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.pool import ATTEMPTS, WorkerPool
from ...envs.protocols import EpisodeSpec, EvaluationProtocol
from ...envs.workers import WorkerDied, WorkerError, WorkerTimeout
from .observations import ObservationBatch
from .policies import (
    Policy,
    ReadsSelectively,
    check_agent_pos,
    environment_action_dim,
    looks_at_pictures,
    spec_of,
    takes_active_rows,
)
from .results import EpisodeResult, Fault, FaultKind

logger = logging.getLogger(__name__)

_FAULTS_WITHOUT_AN_EPISODE = 3
_USER_ERRORS = (ValueError, OSError, ImportError)


@dataclass
class Episode:
    """An episode that is planned, running or finished.

    Attributes:
        spec: Which episode.
        filmed: Whether its pictures are kept.
        frames: uint8 (H, W, 3) pictures of the first camera, if it is filmed.
        fps: Frames in a second of simulated time, if it is filmed.
    """

    spec: EpisodeSpec
    filmed: bool = False
    instruction: str = ""
    steps: int = 0
    total_reward: float = 0.0
    success: bool = False
    fps: float = 0.0
    frames: list[NDArray[np.uint8]] = field(default_factory=list, repr=False)
    faults: list[Fault] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.spec}, step {self.steps}"

    def begin_again(self) -> None:
        """Forget what an attempt brought, but not how it ended."""
        self.steps, self.total_reward, self.success = 0, 0.0, False
        self.frames.clear()

    def result(self, *, completed: bool, video: str | None = None) -> EpisodeResult:
        """Return the outcome."""
        return EpisodeResult(
            task=self.spec.task,
            index=self.spec.index,
            seed=self.spec.seed,
            initial_state=self.spec.initial_state,
            instruction=self.instruction,
            success=self.success and completed,
            steps=self.steps,
            total_reward=self.total_reward,
            video=video,
            faults=tuple(self.faults),
            completed=completed,
        )


class EpisodeQueue:
    """Hands episodes out so that environments, which take seconds to make, are seldom replaced.

    Args:
        episodes: All episodes.
    """

    def __init__(self, episodes: Sequence[Episode]) -> None:
        self._waiting: dict[str, deque[Episode]] = {}
        for episode in episodes:
            self._waiting.setdefault(episode.spec.task, deque()).append(episode)

    def take(self, task: str | None) -> Episode | None:
        """Take the next episode of a task, or of the one with most left where it has none; None when all are taken."""
        if not self._waiting.get(task or ""):
            task = max(self._waiting, key=lambda name: len(self._waiting[name]), default=None)
        if task is None or not self._waiting[task]:
            return None
        return self._waiting[task].popleft()


class _NotFinite(Exception):
    """An observation or a reward is NaN or infinite."""


@dataclass
class _Row:
    """A row of the batch: what its worker runs, and what it is asked for."""

    number: int
    episode: Episode | None = None
    task: str | None = None
    asked: str | None = None
    deadline: float = 0.0
    fresh: bool = False

    @property
    def running(self) -> Episode:
        """The row's episode, which there is."""
        assert self.episode is not None
        return self.episode

    @property
    def waits(self) -> bool:
        """Whether it waits for an action."""
        return self.episode is not None and self.asked is None


class Scheduler:
    """Runs episodes: row i of the batch is worker i.

    A worker is sent its next action as soon as the policy has one; all that have answered by then form one batch.

    Args:
        policy: The policy.
        protocol: The protocol.
        episodes: What to run.
        pool: At most as many workers as there are episodes.
        render: Whether pictures are drawn at all.
        step_timeout: Seconds after which a step has hung.
        reset_timeout: Seconds after which a reset has hung.
        finished: Called with each episode that is over, and whether an attempt came to its end.

    Attributes:
        steps: Control steps taken so far.
    """

    def __init__(
        self,
        policy: Policy,
        protocol: EvaluationProtocol,
        episodes: Sequence[Episode],
        pool: WorkerPool,
        *,
        render: bool,
        step_timeout: float,
        reset_timeout: float,
        finished: Callable[[Episode, bool], None],
    ) -> None:
        self.steps = 0
        self._policy, self._protocol, self._pool, self._finished = policy, protocol, pool, finished
        self._timeouts = {"reset": reset_timeout, "step": step_timeout}
        self._looks = render and looks_at_pictures(policy)
        self._queue = EpisodeQueue(episodes)
        self._rows = [_Row(number) for number in range(len(pool.workers))]
        self._action_dim = environment_action_dim(protocol)
        self._batch = ObservationBatch(len(self._rows), spec_of(policy).extra_observations, self._action_dim)
        self._partial = takes_active_rows(policy)
        self._begun_tasks: set[str] = set()
        self._num_faults = self._num_completed = 0

    def run(self) -> None:
        """Run all episodes.

        Raises:
            ValueError: The policy returned NaN or a wrong shape, or does not fit what it sees.
            ValueError, OSError, ImportError: A task cannot be begun at all.
            WorkerError: The simulators fail before any episode came to its end.
        """
        self._policy.reset(None)
        for row in self._rows:
            self._begin_next(row)
        while any(row.episode for row in self._rows):
            self._receive_answers()
            waiting = [row for row in self._rows if row.waits]
            if waiting and (self._partial or not any(row.asked for row in self._rows)):
                self._act(waiting)

    def _begin_next(self, row: _Row) -> None:
        row.episode, row.asked = self._queue.take(row.task), None
        if row.episode is not None:
            self._begin(row, row.episode)

    def _begin(self, row: _Row, episode: Episode) -> None:
        row.task, row.fresh = episode.spec.task, True
        episode.begin_again()
        self._ask(row, "reset", episode.spec, self._looks or episode.filmed, doing=str(episode.spec))

    def _act(self, waiting: Sequence[_Row]) -> None:
        """Let the policy take a step of the rows that wait, and send the actions off."""
        if fresh := [row.number for row in waiting if row.fresh]:
            self._policy.reset(fresh)
        for row in waiting:
            row.fresh = False
        actions = self._actions(waiting)
        looks = self._rows_that_look()
        for row in waiting:
            draw = bool(looks[row.number]) or row.running.filmed
            self._ask(row, "step", actions[row.number], draw, doing=str(row.running))

    def _actions(self, waiting: Sequence[_Row]) -> NDArray[np.float32]:
        """float32 (B, A); checked for the rows that wait."""
        rows = [row.number for row in waiting]
        options = {"active": rows} if self._partial else {}
        actions = np.asarray(self._policy.select_action(self._batch.observation(), **options), dtype=np.float32)
        expected = (len(self._rows), self._action_dim)
        if actions.shape != expected:
            raise ValueError(
                f"{type(self._policy).__name__}.select_action returned shape {actions.shape} for a batch of "
                f"{len(self._rows)} at {waiting[0].running}; expected {expected}"
            )
        for row in waiting:
            if not np.isfinite(actions[row.number]).all():
                numbers = actions[row.number].tolist()
                raise ValueError(f"{row.running}: the policy's action is not finite: {numbers}")
        return actions

    def _rows_that_look(self) -> Sequence[bool] | NDArray[np.bool_]:
        """(B,) whether the next step of each row looks at pictures."""
        if self._looks and isinstance(self._policy, ReadsSelectively):
            return self._policy.reads_next()
        return [self._looks] * len(self._rows)

    def _ask(self, row: _Row, method: str, *arguments: Any, doing: str) -> None:
        row.asked, row.deadline = method, time.monotonic() + self._timeouts[method]
        try:
            self._pool.workers[row.number].send(method, *arguments, doing=doing)
        except (WorkerError, *_USER_ERRORS) as error:
            self._fail(row, error)

    def _receive_answers(self) -> None:
        """Wait until a worker has answered, died or hung, and take in all that did."""
        asked = [row for row in self._rows if row.asked]
        patience = min((row.deadline for row in asked), default=0.0) - time.monotonic()
        ready = self._pool.ready([row.number for row in asked], max(0.0, patience))
        for row in asked:
            if row.number in ready or time.monotonic() >= row.deadline:
                self._receive(row)

    def _receive(self, row: _Row) -> None:
        worker, episode, method = self._pool.workers[row.number], row.running, row.asked or ""
        try:
            if not worker.connection.poll():
                raise WorkerTimeout(f"environment did not answer within {self._timeouts[method]:g} s at {episode}")
            answer = worker.receive()
            over = self._take_reset(row, *answer) if method == "reset" else self._take_step(row, *answer)
        except (WorkerError, _NotFinite, *_USER_ERRORS) as error:
            self._fail(row, error)
            return
        row.asked = None
        if over:
            self._num_completed += 1
            self._finished(episode, True)
            self._begin_next(row)

    def _take_reset(self, row: _Row, observation: dict[str, Any], info: dict[str, Any]) -> bool:
        episode = row.running
        if not self._begun_tasks:
            check_agent_pos(self._policy, self._protocol, np.asarray(observation["agent_pos"]))
        episode.instruction = info["instruction"]
        self._observe(row, observation)
        self._begun_tasks.add(episode.spec.task)
        if episode.filmed:
            episode.fps = self._pool.ask(row.number, "fps", self._timeouts["step"])
        return False

    def _take_step(
        self,
        row: _Row,
        observation: dict[str, Any],
        reward: float,
        terminated: bool,
        truncated: bool,
        info: dict[str, Any],
    ) -> bool:
        episode = row.running
        if not np.isfinite(reward):
            raise _NotFinite(f"environment gave the reward {reward} at {episode}")
        self._observe(row, observation)
        self.steps += 1
        episode.steps += 1
        episode.total_reward += float(reward)
        episode.success |= bool(info["success"])
        return terminated or truncated

    def _observe(self, row: _Row, observation: dict[str, Any]) -> None:
        episode = row.running
        for name, values in observation.items():
            if name != "pixels" and not np.isfinite(values).all():
                raise _NotFinite(f"environment gave {name} {np.asarray(values).tolist()} at {episode}")
        self._batch.put(row.number, episode.spec, episode.instruction, observation)
        if episode.filmed:
            episode.frames.append(next(iter(observation["pixels"].values())))

    def _fail(self, row: _Row, error: Exception) -> None:
        """Begin an episode again in a fresh worker, or count it as failed where that has been done."""
        episode = row.running
        never_begun = row.asked == "reset" and episode.spec.task not in self._begun_tasks
        if isinstance(error, _USER_ERRORS) and never_begun:
            # The task, the assets or an option: nothing that another attempt would mend.
            raise error
        logger.warning("attempt %d: %s", len(episode.faults) + 1, error)
        episode.faults.append(Fault(kind=_fault_kind(error), message=str(error).splitlines()[0]))
        self._num_faults += 1
        if not self._num_completed and self._num_faults >= _FAULTS_WITHOUT_AN_EPISODE:
            raise WorkerError(f"{self._num_faults} faults before any episode came to its end; the last: {error}")
        self._pool.replace(row.number)
        if len(episode.faults) < ATTEMPTS:
            self._begin(row, episode)
        else:
            episode.frames.clear()
            self._finished(episode, False)
            self._begin_next(row)


def _fault_kind(error: Exception) -> FaultKind:
    kinds: dict[type[Exception], FaultKind] = {WorkerDied: "died", WorkerTimeout: "hung", _NotFinite: "not finite"}
    return kinds.get(type(error), "error")
