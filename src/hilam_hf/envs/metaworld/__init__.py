"""Meta-World (Yu et al. 2019, arXiv:1910.10897): tasks, gymnasium environments, scripted experts.

Names are imported when they are used: tasks can be listed without a simulator.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cameras import CAMERAS
    from .environment import MetaWorldEnv
    from .expert import ScriptedExpert
    from .tasks import INSTRUCTIONS, instruction, normalize_task

_MODULES = {
    "CAMERAS": "cameras",
    "INSTRUCTIONS": "tasks",
    "MetaWorldEnv": "environment",
    "ScriptedExpert": "expert",
    "instruction": "tasks",
    "normalize_task": "tasks",
}

__all__ = [
    "CAMERAS",
    "INSTRUCTIONS",
    "MetaWorldEnv",
    "ScriptedExpert",
    "instruction",
    "normalize_task",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
