"""Packages whose public names are imported when they are first used, so that importing one costs nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def import_when_used(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes the `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: Its `__name__`.
        modules: Module of each name, relative to the package: "part" for `.part`, ".part" for one beside the package.

    Example:
        >>> __getattr__, __dir__ = import_when_used("hilam_hf.video", {"VideoReader": "video_file"})
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f".{modules[name]}", package), name)

    def names() -> list[str]:
        return sorted({*modules, *vars(sys.modules[package])})

    return get, names
