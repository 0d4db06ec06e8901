"""Importing the benchmarks, which are scripts and no package."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from tests.helpers import ROOT


def import_script(name: str) -> ModuleType:
    """A benchmark, imported as it is when it is run: with its own folder on the path."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
