"""What has to be known to repeat a measurement: versions, machine, policy."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("hilam-hf", "torch", "transformers", "numpy", "gymnasium", "mujoco", "metaworld")
"""Packages whose versions can change what a rollout gives."""


def package_versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str | None]:
    """Return the installed version of each package; None where it is not installed."""
    return {package: _version(package) for package in packages}


def machine() -> dict[str, str | int | None]:
    """Return the operating system, the processor, its cores and Python's version."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def policy_record(policy: Any, name: str | None = None) -> dict[str, Any]:
    """Return what is known of a policy: its class, where it came from and how it acts.

    Args:
        policy: The policy.
        name: Its name or path; by default its own `name_or_path`.
    """
    return {
        "class": type(policy).__name__,
        "name": name or getattr(policy, "name_or_path", None) or None,
        "executed_chunk_length": _executed_chunk_length(policy),
        "image_transform": getattr(policy, "image_transform", None),
    }


def _executed_chunk_length(policy: Any) -> int | None:
    """Return how many actions of a predicted chunk are executed; None where the policy says nothing of chunks."""
    if hasattr(policy, "executed_chunk_length"):
        return policy.executed_chunk_length
    config = getattr(policy, "config", None)
    if getattr(config, "execution", None) == "temporal_aggregation":
        # A new chunk is predicted at every step.
        return 1
    return getattr(config, "n_action_steps", None) or getattr(config, "chunk_size", None)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    description = Path("/proc/cpuinfo")
    if description.exists():
        for line in description.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
