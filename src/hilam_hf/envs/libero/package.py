"""Imports LIBERO without its prompt, its print-outs, its home folder and its log file.

The first import of `libero` asks a question on the terminal and writes the answer to `~/.libero`; `robosuite` opens
`/tmp/robosuite.log`, which fails where another user made it, and chooses MuJoCo's graphics library by itself. Here both
are told beforehand what they would ask for; a configuration that a user made stays in force.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ...optional import require
from ..imports import require_simulator

EXTRA = "libero"
_CONFIG_VARIABLE = "LIBERO_CONFIG_PATH"


@cache
def package_root() -> Path:
    """Return the folder of the installed package `libero.libero`, found without importing it.

    Raises:
        ImportError: hf-libero is not installed.
    """
    specification = importlib.util.find_spec("libero")
    places = [] if specification is None else list(specification.submodule_search_locations or [])
    for place in places:
        if (root := Path(place) / "libero").is_dir():
            return root
    # Says what to install.
    require("libero", extra=EXTRA)
    raise ImportError(f"the installed libero ({places}) has no package libero.libero: install hilam-hf[{EXTRA}]")


def import_libero(assets: Path, *, drawing: bool) -> ModuleType:
    """Import LIBERO's environments.

    Args:
        assets: Folder of LIBERO's assets, see `find_assets`.
        drawing: Whether pictures are going to be drawn.

    Returns:
        The module `libero.libero.envs`.

    Raises:
        ImportError: hf-libero or what it needs is not installed.
        RenderingError: Nothing draws here, and `drawing` is set.
    """
    require_simulator("mujoco", drawing=drawing)
    _quieten_robosuite()
    _provide_configuration()
    libero: Any = require("libero.libero", extra=EXTRA)
    # LIBERO decides on a folder once, and would otherwise look for its own or begin a download.
    libero._assets_path_cache = str(assets)
    return require("libero.libero.envs", extra=EXTRA)


def _quieten_robosuite() -> None:
    """Give robosuite the private settings that it looks for, unless the user has some."""
    name = "robosuite.macros_private"
    if name in sys.modules or "robosuite" in sys.modules or _has_private_macros():
        return
    settings: Any = ModuleType(name)
    settings.CONSOLE_LOGGING_LEVEL = "ERROR"
    settings.FILE_LOGGING_LEVEL = None
    # MUJOCO_GL has been set by `configure_rendering`; robosuite would set it to egl.
    settings.MUJOCO_GPU_RENDERING = False
    sys.modules[name] = settings


def _has_private_macros() -> bool:
    specification = importlib.util.find_spec("robosuite")
    places = [] if specification is None else list(specification.submodule_search_locations or [])
    return any((Path(place) / "macros_private.py").exists() for place in places)


def _provide_configuration() -> None:
    """Point LIBERO to a configuration in a temporary folder, unless the user has one."""
    folder = Path(os.environ.get(_CONFIG_VARIABLE, "~/.libero")).expanduser()
    if (folder / "config.yaml").exists():
        return
    temporary = tempfile.mkdtemp(prefix="hilam-libero-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    root = package_root()
    places = {
        "benchmark_root": root,
        "bddl_files": root / "bddl_files",
        "init_states": root / "init_files",
        "datasets": root.parent / "datasets",
        "assets": root / "assets",
    }
    # JSON is YAML.
    (Path(temporary) / "config.yaml").write_text(json.dumps({key: str(place) for key, place in places.items()}))
    os.environ[_CONFIG_VARIABLE] = temporary
