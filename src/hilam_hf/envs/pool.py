"""The worker processes of an evaluation or a recording, of which one that fails is replaced."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any

from .workers import Worker, WorkerError, ready_workers

ATTEMPTS = 2
"""How often an episode is begun that the simulator spoils."""


class WorkerPool:
    """Worker processes that all hold the same kind of host or demonstrator.

    Args:
        target: `"module:Class"` of the host or demonstrator.
        options: Arguments of the class.
        size: Number of workers.
        name: What workers are called in errors.
        gpus: Numbers of the GPUs that draw, taken in turns by the workers; none leaves the choice to EGL.
    """

    def __init__(
        self,
        target: str,
        options: Mapping[str, Any],
        size: int,
        *,
        name: str = "environment",
        gpus: Sequence[int] = (),
    ) -> None:
        self._target, self._options, self._name, self._gpus = target, options, name, tuple(gpus)
        self.workers = [self._make(row) for row in range(size)]

    def replace(self, row: int) -> None:
        """Put a fresh worker in the place of one, whatever that is doing."""
        self.workers[row].kill()
        self.workers[row] = self._make(row)

    def ready(self, rows: Collection[int], timeout: float | None = None) -> list[int]:
        """Wait until at least one of some workers has answered or died, and return the numbers of those that have.

        Args:
            rows: Numbers of the workers.
            timeout: Seconds to wait at most, after which none is returned; None for as long as it takes.
        """
        ready = set(map(id, ready_workers([self.workers[row] for row in rows], timeout)))
        return [row for row in rows if id(self.workers[row]) in ready]

    def ask(self, row: int, method: str, timeout: float) -> Any:
        """Call a method of a worker's host and wait for the answer."""
        self.workers[row].send(method)
        return self.workers[row].receive(timeout)

    def memory(self, timeout: float) -> list[int | None]:
        """Return the bytes of memory that each worker takes; None for one that does not answer."""
        sizes: list[int | None] = []
        for row in range(len(self.workers)):
            try:
                sizes.append(self.ask(row, "memory", timeout))
            except WorkerError:
                sizes.append(None)
        return sizes

    def shrink(self, size: int) -> None:
        """End the workers from number `size` on."""
        surplus, self.workers = self.workers[size:], self.workers[:size]
        # Together: they take a moment to end.
        for worker in surplus:
            worker.hang_up()
        for worker in surplus:
            worker.close()

    def close(self) -> None:
        """End all workers."""
        self.shrink(0)

    def _make(self, row: int) -> Worker:
        variables = {"MUJOCO_EGL_DEVICE_ID": str(self._gpus[row % len(self._gpus)])} if self._gpus else {}
        return Worker(self._target, name=self._name, variables=variables, **self._options)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
