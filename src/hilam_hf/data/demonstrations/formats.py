"""The formats that demonstrations are read from: one line here, an entry point, or a call makes another one known."""

from __future__ import annotations

from pathlib import Path

from ...plugins import PluginList
from .demonstration import Demonstration, DemonstrationFormat

DEMONSTRATION_FORMATS: PluginList[DemonstrationFormat] = PluginList(
    "format of demonstrations",
    "hilam_hf.demonstration_formats",
    # A path is shown to them in this order: of a recording in two formats the first is read, and HDF5's pictures are
    # exact.
    {
        "hdf5": "hilam_hf.data.demonstrations.libero.reader:FORMAT",
        "videos": "hilam_hf.data.demonstrations.video_recording:FORMAT",
        "lerobot": "hilam_hf.data.demonstrations.lerobot.reader:FORMAT",
    },
    expected="hilam_hf.data.demonstrations.demonstration:DemonstrationFormat",
)
"""The formats; other packages bring theirs as entry points of this group."""


def register_format(demonstration_format: DemonstrationFormat) -> None:
    """Makes a format known to `load_demonstrations` in this process, after those that are known already.

    Raises:
        ValueError: Another one has its name.
    """
    DEMONSTRATION_FORMATS.add(demonstration_format.name, demonstration_format)


def unregister_format(name: str) -> None:
    """Takes away what `register_format` made known.

    Raises:
        ValueError: No format of this name was made known so.
    """
    DEMONSTRATION_FORMATS.remove(name)


def demonstration_formats() -> dict[str, DemonstrationFormat]:
    """The known formats by name, in the order in which a path is shown to them.

    Raises:
        ValueError: Two packages declare one name, or what one declares is no format of this name.
        ImportError: One cannot be imported.
    """
    return {name: DEMONSTRATION_FORMATS.get(name) for name in DEMONSTRATION_FORMATS.names()}


def find_format(path: Path) -> DemonstrationFormat | None:
    """The first format that recognises a path, if any does."""
    return next((each for each in demonstration_formats().values() if each.recognises(path)), None)


def read_demonstrations(path: Path) -> list[Demonstration]:
    """The demonstrations at a path, in the first format that recognises it.

    Raises:
        FileNotFoundError: None does, or a file is missing.
        ValueError: A file is damaged.
    """
    found = find_format(path)
    if found is None:
        known = "; ".join(f"{each.looks_like} ({each.name})" for each in demonstration_formats().values())
        raise FileNotFoundError(f"{path}: there are no demonstrations here; expected {known}: record some first")
    return found.read(path)
