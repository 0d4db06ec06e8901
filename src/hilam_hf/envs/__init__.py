"""Robot environments as gymnasium environments, with scripted experts, recorders and evaluation protocols.

Names are imported when they are used: a worker process loads no more than its environment needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .metaworld.environment import CAMERAS, MetaWorldEnv, make_env
    from .metaworld.expert import ScriptedExpert
    from .metaworld.recorder import record_demonstrations
    from .metaworld.tasks import INSTRUCTIONS, instruction, normalize_task
    from .protocols import PROTOCOLS, Protocol, get_protocol
    from .recording import RecordingSummary
    from .rendering import RenderQuality, configure_rendering, renderer_provenance
    from .workers import WorkerError

_MODULES = {
    "CAMERAS": "metaworld.environment",
    "INSTRUCTIONS": "metaworld.tasks",
    "MetaWorldEnv": "metaworld.environment",
    "PROTOCOLS": "protocols",
    "Protocol": "protocols",
    "RecordingSummary": "recording",
    "RenderQuality": "rendering",
    "ScriptedExpert": "metaworld.expert",
    "WorkerError": "workers",
    "configure_rendering": "rendering",
    "get_protocol": "protocols",
    "instruction": "metaworld.tasks",
    "make_env": "metaworld.environment",
    "normalize_task": "metaworld.tasks",
    "record_demonstrations": "metaworld.recorder",
    "renderer_provenance": "rendering",
}

__all__ = [
    "CAMERAS",
    "INSTRUCTIONS",
    "PROTOCOLS",
    "MetaWorldEnv",
    "Protocol",
    "RecordingSummary",
    "RenderQuality",
    "ScriptedExpert",
    "WorkerError",
    "configure_rendering",
    "get_protocol",
    "instruction",
    "make_env",
    "normalize_task",
    "record_demonstrations",
    "renderer_provenance",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
