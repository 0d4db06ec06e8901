"""What tests need from outside the repository: skipped without it on a laptop, failed without it in CI."""

from __future__ import annotations

import importlib.util
import os
import tarfile
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

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


def require_libero_assets(folder: Path) -> Path:
    """Return LIBERO's assets, unpacked below a folder that test processes share."""
    archive = require_shared() / "libero_assets.tar.xz"
    if not archive.exists():
        absent(f"there is no {archive.name} in {archive.parent.name}")
    with FileLock(folder / "libero_assets.lock"):
        if not (folder / "libero_assets").exists():
            partial = folder / "libero_assets.partial"
            with tarfile.open(archive) as tar:
                tar.extractall(partial, filter="data")
            (partial / "libero_assets").rename(folder / "libero_assets")
    return folder / "libero_assets"


def require_simulator() -> None:
    """Make sure that Meta-World and LIBERO are installed and that MuJoCo draws."""
    reason = _simulator_fault()
    if reason is not None:
        absent(reason)


@cache
def _simulator_fault() -> str | None:
    from hilam_hf.envs.rendering import RenderingError, configure_rendering

    for module in ("metaworld", "libero", "mujoco"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    try:
        configure_rendering()
    except RenderingError as error:
        return str(error)
    return None
