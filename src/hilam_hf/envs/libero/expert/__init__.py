"""The scripted expert of LIBERO's tasks."""

from .expert import LiberoExpert

__all__ = ["LiberoExpert"]
