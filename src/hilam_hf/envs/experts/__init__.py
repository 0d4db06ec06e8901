"""Scripted experts: demonstrators that see the simulator's state."""

from .metaworld import ScriptedExpert

__all__ = ["ScriptedExpert"]
