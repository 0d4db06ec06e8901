"""Imports the simulator, after the graphics library has been chosen: MuJoCo takes it when it is first imported."""

from __future__ import annotations

from types import ModuleType

from ..optional import require
from .rendering import RenderingError, configure_rendering


def require_simulator(module: str, *, drawing: bool = False) -> ModuleType:
    """Import a module of Meta-World or MuJoCo.

    Args:
        module: Dotted name, such as `"metaworld.policies"`.
        drawing: Whether pictures are going to be drawn. States alone can be simulated on a machine that cannot draw.

    Returns:
        The module.

    Raises:
        ImportError: It is not installed.
        RenderingError: Nothing draws here, and `drawing` is set.
    """
    # Here first, since looking for a renderer tells less clearly that the extra is missing.
    require("gymnasium", extra="metaworld")
    try:
        configure_rendering()
    except RenderingError:
        if drawing:
            raise
    return require(module, extra="metaworld")


def prepare_mujoco(extra: str, *, drawing: bool) -> None:
    """See that a simulator's extra is installed and, for pictures, choose the library that draws.

    Worker processes inherit the choice.

    Raises:
        ImportError: The extra is not installed.
        RenderingError: Nothing draws here, and `drawing` is set.
    """
    require("gymnasium", extra=extra)
    if drawing:
        configure_rendering()
