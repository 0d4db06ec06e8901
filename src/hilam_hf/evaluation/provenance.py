"""What has to be known to repeat a measurement: versions, machine, policy, and what its training data looked like."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from ..acting_spec import ActingSpec
from ..fingerprint import weights_fingerprint
from ..publishing import public_name

PACKAGES = ("hilam-hf", "torch", "transformers", "numpy", "gymnasium", "mujoco")
"""Packages whose versions can change what a rollout gives, beside the simulators' own."""
_LIGHTING_CHANGE = Version("3.3.3")


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


def policy_record(policy: Any, spec: ActingSpec, name: str | None = None) -> dict[str, Any]:
    """Return what is known of a policy: its class, where it came from, its weights and how it acts.

    Args:
        policy: The policy.
        spec: What it says of itself.
        name: Its name or path; by default the spec's.
    """
    return {
        "class": type(policy).__name__,
        "name": public_name(name or spec.name or "") or None,
        "revision": spec.revision,
        "weights": weights_fingerprint(policy),
        "device": spec.device,
        "executed_chunk_length": spec.executed_chunk_length,
        "image_transform": spec.image_transform,
        "acting": spec.settings,
    }


def lighting_warning(recorded: str | None, installed: str | None) -> str | None:
    """Return what to tell users whose pictures come from versions of MuJoCo that light scenes differently.

    MuJoCo 3.3.3 changed lighting: it and later versions draw LIBERO darker; a published policy fell from 98 to 91 %.

    Args:
        recorded: Version that the one pictures were drawn with; None where it is not known.
        installed: Version that the others are drawn with.

    Returns:
        One sentence, or None where both draw alike or one is not known.

    Raises:
        ValueError: One is not a version.

    Example:
        >>> lighting_warning("3.3.0", "3.2.7") is None
        True
    """
    if recorded is None or installed is None:
        return None
    try:
        darker = [Version(version) >= _LIGHTING_CHANGE for version in (recorded, installed)]
    except InvalidVersion as error:
        raise ValueError(f"mujoco: expected versions such as 3.3.0, got {recorded!r} and {installed!r}") from error
    if darker[0] == darker[1]:
        return None
    return (
        f"MuJoCo {recorded} and {installed} light scenes differently (since {_LIGHTING_CHANGE} pictures are darker), "
        f"which alone can change success rates by several per cent: use versions on the same side of {_LIGHTING_CHANGE}"
    )


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
