"""`recording.json`: how the episodes in a folder came about, and what a recording came to."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..envs.protocols import EpisodeSpec
from ..files import read_json

RECORDING_FILE = "recording.json"
# Settings that older recordings do not tell, and what these had.
_UNTOLD: dict[str, Any] = {"formats": ["videos"], "initial_states": None, "only_successful": True}


@dataclass(frozen=True)
class RecordingSummary:
    """Outcome of a recording.

    Attributes:
        root: The folder.
        recorded: Episodes recorded now.
        kept: Episodes that were there before.
        frames: Frames recorded now.
        seconds: Time it took.
        failures: Episodes that the expert did not solve: task, episode number, seed and steps.
    """

    root: Path
    recorded: int
    kept: int
    frames: int
    seconds: float
    failures: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        rate = self.frames / max(self.seconds, 1e-9)
        return (
            f"{self.recorded} episodes ({self.frames} frames) recorded in {self.seconds:.0f} s ({rate:.0f} frames/s), "
            f"{self.kept} kept from before, {len(self.failures)} not solved by the expert: {self.root}"
        )


class RecordingLog:
    """`recording.json`: how the episodes in a folder came about.

    Args:
        root: Folder of the recording.
        settings: What decides which episodes there are and how they look.
        circumstances: What else is told: simulator, renderer, versions.

    Raises:
        ValueError: The folder holds a recording with other settings.
    """

    def __init__(self, root: str | Path, settings: dict[str, Any], circumstances: dict[str, Any]) -> None:
        self.path = Path(root) / RECORDING_FILE
        # As they are after having been written and read.
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.circumstances = circumstances
        self.tasks: dict[str, int] = {}
        self.failures: list[dict[str, Any]] = []
        if self.path.exists():
            self._resume(read_json(self.path))

    def _resume(self, before: dict[str, Any]) -> None:
        for name, kind in {"settings": dict, "tasks": dict, "failures": list}.items():
            if not isinstance(before.get(name), kind):
                raise ValueError(f"{self.path}: {name} is missing or of another kind; record into another folder")
        told = _UNTOLD | before["settings"]
        changed = [
            f"{option} {told.get(option)!r} -> {value!r}"
            for option, value in self.settings.items()
            if told.get(option) != value
        ]
        if changed:
            raise ValueError(
                f"{self.path.parent} holds a recording with other options ({', '.join(changed)}); "
                "repeat them, or choose another folder"
            )
        self.settings = before["settings"] | self.settings
        self.tasks = before["tasks"]
        self.failures = before["failures"]

    def failed(self, spec: EpisodeSpec) -> bool:
        """Say whether the expert is known not to solve the episode."""
        return any(failure["task"] == spec.task and failure["episode"] == spec.index for failure in self.failures)

    def add_failure(self, id: str, spec: EpisodeSpec, steps: int) -> None:
        """List an episode that the expert did not solve."""
        start = {"task": spec.task, "episode": spec.index, "seed": spec.seed, "initial_state": spec.initial_state}
        self.failures.append({"id": id, **start, "steps": steps})
        self.save()

    def save(self, *, finished: bool = False) -> None:
        """Write the file, whole or not at all."""
        record = {
            **self.circumstances,
            "finished": finished,
            "settings": self.settings,
            "tasks": self.tasks,
            "failures": sorted(self.failures, key=lambda failure: (failure["task"], failure["episode"])),
        }
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, self.path)
