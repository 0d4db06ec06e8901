"""LIBERO's suites and tasks, read from the installed package without importing it."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .package import package_root

SUITES: dict[str, int] = {
    "libero_spatial": 10,
    "libero_object": 10,
    "libero_goal": 10,
    "libero_10": 10,
    "libero_90": 90,
}
"""The suites and how many tasks each has."""

_ALIASES = {"libero_long": "libero_10"}
_TASK_MAP = "libero_task_map"


@dataclass(frozen=True)
class LiberoTask:
    """One task of a suite.

    Attributes:
        suite: Name of the suite, such as `libero_goal`.
        index: Number of the task in LIBERO's own order, from 0.
        name: LIBERO's name of it, which is that of its files.
        instruction: What the task asks for in words.
    """

    suite: str
    index: int
    name: str
    instruction: str

    @property
    def id(self) -> str:
        """Short name, such as `libero_goal/3`."""
        return f"{self.suite}/{self.index}"

    @property
    def bddl_file(self) -> Path:
        """The task's definition."""
        return package_root() / "bddl_files" / self.suite / f"{self.name}.bddl"

    @property
    def initial_states_file(self) -> Path:
        """The benchmark's initial states, see `read_initial_states`."""
        return package_root() / "init_files" / self.suite / f"{self.name}.pruned_init"


def normalize_suite(suite: str) -> str:
    """Return a suite's full name.

    Args:
        suite: `libero_spatial` or `spatial`, and so on; `long` is `libero_10`.

    Raises:
        ValueError: There is no such suite.
    """
    name = suite if suite.startswith("libero_") else f"libero_{suite}"
    name = _ALIASES.get(name, name)
    if name not in SUITES:
        raise ValueError(f"unknown LIBERO suite {suite!r}; there are {', '.join(SUITES)}")
    return name


def libero_tasks(suite: str, indices: Sequence[int] | None = None) -> list[LiberoTask]:
    """Return tasks of a suite.

    Args:
        suite: Name of the suite, see `normalize_suite`.
        indices: Numbers of the tasks wanted; None for all.

    Raises:
        ValueError: There is no such suite or task.
        ImportError: hf-libero is not installed.

    Example:
        >>> libero_tasks("goal", [0])[0].instruction
        'open the middle drawer of the cabinet'
    """
    name = normalize_suite(suite)
    tasks = _suite_tasks(name)
    wanted = range(len(tasks)) if indices is None else indices
    outside = [index for index in wanted if not 0 <= index < len(tasks)]
    if outside:
        raise ValueError(f"{name}: tasks are numbered 0 to {len(tasks) - 1}, got {', '.join(map(str, outside))}")
    return [tasks[index] for index in wanted]


def parse_task(name: str) -> LiberoTask:
    """Return the task of a short name.

    Args:
        name: `<suite>/<index>`, such as `libero_goal/3` or `goal/3`, or `<suite>/<LIBERO's name of the task>`.

    Raises:
        ValueError: There is no such task.
        ImportError: hf-libero is not installed.
    """
    suite, separator, rest = name.partition("/")
    if not separator:
        raise ValueError(f"unknown LIBERO task {name!r}; expected <suite>/<number>, such as libero_goal/3")
    if rest.isdecimal():
        return libero_tasks(suite, [int(rest)])[0]
    for task in libero_tasks(suite):
        if task.name == rest:
            return task
    raise ValueError(f"unknown LIBERO task {name!r}: {normalize_suite(suite)} has none called {rest!r}")


@cache
def _suite_tasks(suite: str) -> tuple[LiberoTask, ...]:
    names = _task_map()[suite]
    return tuple(LiberoTask(suite, index, name, _instruction(name)) for index, name in enumerate(names))


@cache
def _task_map() -> dict[str, list[str]]:
    """Read the table of tasks from its source: importing it would import PyTorch into every worker."""
    file = package_root() / "benchmark" / "libero_suite_task_map.py"
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [getattr(name, "id", "") for name in node.targets] == [_TASK_MAP]:
            table: dict[str, list[str]] = ast.literal_eval(node.value)
            return table
    raise ImportError(f"{file}: has no table {_TASK_MAP}; install hf-libero 0.1.4")


def _instruction(name: str) -> str:
    """The words of a name without its scene, as LIBERO's benchmark gives them."""
    return re.sub(r"^[A-Z_]+SCENE\d+_", "", name).replace("_", " ")
