"""Environments in processes of their own: one object a process, called by name through a pipe.

A worker is started as `python -m hilam_hf.envs.workers` and not with `multiprocessing`, whose workers import the main
program again: they would load PyTorch (time, and 0.3 GB each) that an environment doesn't need, and a script without
an `if __name__ == "__main__"` guard would start itself over.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
# What users can act upon comes back as what it was; anything else is a fault and comes with the worker's traceback.
_USER_ERRORS: dict[str, type[Exception]] = {
    error.__name__: error
    for error in (ValueError, FileNotFoundError, PermissionError, OSError, ImportError, ModuleNotFoundError)
}


class WorkerError(RuntimeError):
    """What a worker ran failed."""


class WorkerDied(WorkerError):
    """A worker process died."""


class WorkerTimeout(WorkerError):
    """A worker did not answer in time."""


class Worker:
    """An object that lives in a process of its own.

    Args:
        target: `"module:Class"`; the worker imports the module and makes the object from `options`.
        name: What the worker is called in errors.
        variables: Environment variables of the process, beside those of this one.
        options: Arguments of the class.

    Example:
        >>> with Worker("fractions:Fraction", numerator=3, denominator=4) as worker:
        ...     worker.send("limit_denominator", 2)
        ...     worker.receive()
        Fraction(1, 1)
    """

    def __init__(
        self, target: str, *, name: str = "worker", variables: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        self.name = name
        self._doing = "starting"
        self.connection, theirs = Pipe()
        path = os.pathsep.join([str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        # One thread a worker: workers are how work is spread over cores here.
        defaults = {"OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}
        environment = {**defaults, **os.environ, **(variables or {}), "PYTHONPATH": path}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hilam_hf.envs.workers", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._post((target, options))

    def send(self, method: str, *arguments: Any, doing: str | None = None) -> None:
        """Ask for a call of a method; one call at a time.

        Args:
            method: Name of the method.
            arguments: Its positional arguments.
            doing: What the call is for, named in errors, such as `"drawer-open, seed 3"`.
        """
        self._doing = doing or method
        self._post((method, arguments))

    def receive(self, timeout: float | None = None) -> Any:
        """Wait for the answer to the last call.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes. After a timeout the worker is of no more
                use: `kill` it.

        Returns:
            What the method returned.

        Raises:
            WorkerTimeout: There was no answer in time.
            WorkerDied: The process died.
            WorkerError: The call raised an error that is no user's.
            ValueError, OSError, ImportError: The call raised it.
        """
        if timeout is not None and not self.connection.poll(timeout):
            raise WorkerTimeout(f"{self.name} did not answer within {timeout:g} s at {self._doing}")
        try:
            outcome, *answer = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise self._death() from error
        if outcome == "result":
            return answer[0]
        error_name, message, trace = answer
        if error_name in _USER_ERRORS:
            raise _USER_ERRORS[error_name](message)
        raise WorkerError(f"{self.name} failed at {self._doing}: {error_name}: {message}\n{trace}")

    def hang_up(self) -> None:
        """Close the pipe, upon which the process ends by itself; `close` waits for that."""
        self.connection.close()

    def close(self) -> None:
        """End the process; closing twice is harmless."""
        self.hang_up()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the process at once, whatever it is doing."""
        self.hang_up()
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionError) as error:
            # An error in the class's constructor is waiting to be read where the process has ended in order.
            if self.connection.poll():
                self.receive()
            raise self._death() from error

    def _death(self) -> WorkerDied:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        status = self._process.returncode
        reason = f"signal {signal.Signals(-status).name}" if status is not None and status < 0 else f"status {status}"
        advice = "; SIGKILL often means that memory ran out: use fewer workers" if status == -signal.SIGKILL else ""
        return WorkerDied(f"{self.name} died ({reason}) at {self._doing}{advice}")


def ready_workers(workers: Sequence[Worker], timeout: float | None = None) -> list[Worker]:
    """Wait until at least one worker has answered or died, and return those that have.

    Args:
        workers: The workers to wait for.
        timeout: Seconds to wait at most, after which none is returned; None for as long as it takes.
    """
    ready = set(map(id, wait([worker.connection for worker in workers], timeout)))
    return [worker for worker in workers if id(worker.connection) in ready]


def resident_memory() -> int:
    """Return the bytes of memory that this process takes; where there is no `/proc`, the most it has taken."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    # In bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _serve(connection: Connection) -> None:
    """Make the object that the first message describes, then answer calls until the other end closes."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        target_name, options = connection.recv()
        try:
            module, _, name = target_name.partition(":")
            target = getattr(importlib.import_module(module), name)(**options)
        except Exception as error:
            connection.send(_error_answer(error))
            return
        try:
            _answer_calls(connection, target)
        finally:
            close = getattr(target, "close", None)
            if close is not None:
                close()


def _answer_calls(connection: Connection, target: Any) -> None:
    while True:
        method, arguments = connection.recv()
        try:
            answer: tuple[Any, ...] = ("result", getattr(target, method)(*arguments))
        except Exception as error:
            answer = _error_answer(error)
        connection.send(answer)


def _error_answer(error: Exception) -> tuple[str, str, str, str]:
    return "error", type(error).__name__, str(error), traceback.format_exc()


def main() -> None:
    """Serve on the pipe whose file descriptor is the program's argument."""
    # An interrupt from the keyboard reaches every process of the terminal; the parent's end of the pipe ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
