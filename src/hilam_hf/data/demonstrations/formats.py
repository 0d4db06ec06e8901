"""The formats that demonstrations are read from: one line here, an entry point, or a call makes another one known."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from .demonstration import Demonstration, DemonstrationFormat
from .lerobot.reader import FORMAT as LEROBOT
from .libero.reader import FORMAT as LIBERO_HDF5
from .video_recording import FORMAT as VIDEO_RECORDING

ENTRY_POINTS = "hilam_hf.demonstration_formats"
"""Group of entry points, each of which gives a `DemonstrationFormat`."""

# In this order: of a recording in two formats the first is read, and HDF5's pictures are exact.
_FORMATS = {each.name: each for each in (LIBERO_HDF5, VIDEO_RECORDING, LEROBOT)}


def register_format(demonstration_format: DemonstrationFormat) -> None:
    """Makes a format known to `load_demonstrations`, after those that are known already.

    Raises:
        ValueError: Another one has its name.
    """
    known = demonstration_formats().get(demonstration_format.name, demonstration_format)
    if known is not demonstration_format:
        raise ValueError(f"there is a format {demonstration_format.name!r} already: choose another name")
    _FORMATS[demonstration_format.name] = demonstration_format


def demonstration_formats() -> dict[str, DemonstrationFormat]:
    """The known formats by name, in the order in which a path is shown to them."""
    return _FORMATS | {name: each for name, each in _installed_formats().items() if name not in _FORMATS}


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


@cache
def _installed_formats() -> dict[str, DemonstrationFormat]:
    return {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)}
