"""The worker processes of an evaluation: each holds a host, which holds one simulator at a time."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from ..envs.workers import Worker, WorkerError


class WorkerPool:
    """Worker processes that all hold the same kind of host.

    Args:
        target: `"module:Class"` of the host.
        options: Arguments of the class.
        size: Number of workers.
    """

    def __init__(self, target: str, options: Mapping[str, Any], size: int) -> None:
        self._target, self._options = target, options
        self.workers = [self._make() for _ in range(size)]

    def replace(self, row: int) -> None:
        """Put a fresh worker in the place of one, whatever that is doing."""
        self.workers[row].kill()
        self.workers[row] = self._make()

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

    def _make(self) -> Worker:
        return Worker(self._target, name="environment", **self._options)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
