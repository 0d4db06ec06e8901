"""What tests need from outside the repository: skipped without it on a laptop, failed without it in CI."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def in_ci() -> bool:
    """Say whether this is a CI run, where nothing that a test needs may be missing."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def absent(reason: str) -> None:
    """End the test: skipped, or failed in CI."""
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def require_shared() -> Path:
    """Return the folder `shared` beside the repository: clips, goldens and LIBERO's assets."""
    shared = ROOT.parent / "shared"
    if not shared.is_dir():
        absent(f"there is no folder {shared.name} beside the repository")
    return shared


def require_simulator() -> None:
    """Make sure that Meta-World is installed and that MuJoCo draws."""
    reason = _simulator_fault()
    if reason is not None:
        absent(reason)


@cache
def _simulator_fault() -> str | None:
    from hilam_hf.envs.rendering import RenderingError, configure_rendering

    for module in ("metaworld", "mujoco"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    try:
        configure_rendering()
    except RenderingError as error:
        return str(error)
    return None
