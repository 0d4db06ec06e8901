"""Meta-World (Yu et al. 2019, arXiv:1910.10897): tasks, gymnasium environments, scripted experts.

Names are imported when they are used: tasks can be listed without a simulator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy import import_when_used

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


__getattr__, __dir__ = import_when_used(__name__, _MODULES)
