"""LIBERO (Liu et al. 2023, arXiv:2306.03310): suites, initial states, assets, and gymnasium environments.

Names are imported when they are used: tasks can be listed without a simulator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy import import_when_used

if TYPE_CHECKING:
    from .assets import assets_fingerprint, find_assets
    from .environment import LiberoEnv
    from .initial_states import read_initial_states
    from .robot_state import RobotState
    from .simulator import LiberoSimulator
    from .suites import SUITES, LiberoTask, libero_tasks, normalize_suite, parse_task

_MODULES = {
    "LiberoEnv": "environment",
    "LiberoSimulator": "simulator",
    "LiberoTask": "suites",
    "RobotState": "robot_state",
    "SUITES": "suites",
    "assets_fingerprint": "assets",
    "find_assets": "assets",
    "libero_tasks": "suites",
    "normalize_suite": "suites",
    "parse_task": "suites",
    "read_initial_states": "initial_states",
}

__all__ = [
    "SUITES",
    "LiberoEnv",
    "LiberoSimulator",
    "LiberoTask",
    "RobotState",
    "assets_fingerprint",
    "find_assets",
    "libero_tasks",
    "normalize_suite",
    "parse_task",
    "read_initial_states",
]


__getattr__, __dir__ = import_when_used(__name__, _MODULES)
