"""Simulators behind one contract: gymnasium environments, scripted experts, evaluation protocols by name.

Names are imported when they are used: a worker process loads no more than its environment needs. What only one
simulator has is in its package, such as `hilam_hf.envs.metaworld.MetaWorldEnv`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import import_when_used

if TYPE_CHECKING:
    from .contract import Demonstrator, Host, Recording, Simulator
    from .protocols import EpisodeSpec, EvaluationProtocol, plan_episodes
    from .registry import get_protocol, get_simulator, protocol_names, register_simulator, simulator_names
    from .rendering import RenderQuality, configure_rendering, renderer_provenance
    from .workers import WorkerError

_MODULES = {
    "Demonstrator": "contract",
    "EpisodeSpec": "protocols",
    "EvaluationProtocol": "protocols",
    "Host": "contract",
    "Recording": "contract",
    "RenderQuality": "rendering",
    "Simulator": "contract",
    "WorkerError": "workers",
    "configure_rendering": "rendering",
    "get_protocol": "registry",
    "get_simulator": "registry",
    "plan_episodes": "protocols",
    "protocol_names": "registry",
    "register_simulator": "registry",
    "renderer_provenance": "rendering",
    "simulator_names": "registry",
}

__all__ = [
    "Demonstrator",
    "EpisodeSpec",
    "EvaluationProtocol",
    "Host",
    "Recording",
    "RenderQuality",
    "Simulator",
    "WorkerError",
    "configure_rendering",
    "get_protocol",
    "get_simulator",
    "plan_episodes",
    "protocol_names",
    "register_simulator",
    "renderer_provenance",
    "simulator_names",
]


__getattr__, __dir__ = import_when_used(__name__, _MODULES)
