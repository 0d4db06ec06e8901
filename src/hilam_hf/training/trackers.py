"""Experiment trackers that a run can log to, each checked for before anything else is done."""

from importlib.util import find_spec

# What installs each; wandb is no part of the extra, as few who read this without an account want it.
_INSTALL = {"tensorboard": "hilam-hf[trackers]", "trackio": "hilam-hf[trackers]", "wandb": "wandb"}


def require_tracker(name: str | None) -> None:
    """Checks that a tracker is known and installed.

    accelerate itself goes on without one that is missing.

    Raises:
        ValueError: There is no such tracker.
        ImportError: It is not installed, with the line that installs it.
    """
    if name is None:
        return
    if name not in _INSTALL:
        raise ValueError(f"tracker must be one of {', '.join(sorted(_INSTALL))}, or null for none, got {name!r}")
    if find_spec(name) is None:
        raise ImportError(f"tracker={name} needs the package {name}: pip install '{_INSTALL[name]}'")
