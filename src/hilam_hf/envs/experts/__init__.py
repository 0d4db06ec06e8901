"""Scripted experts: demonstrators that see the simulator's state, and say in which phase of the task they are."""

from .metaworld import ScriptedExpert
from .phases import PHASES, task_phases

__all__ = ["PHASES", "ScriptedExpert", "task_phases"]
