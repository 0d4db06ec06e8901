"""Writes demonstrations in several formats at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..recorded import DemonstrationWriter, RecordedDemonstration


class Output:
    """The writers of a recording, one a format.

    Args:
        writers: The writers.
        provenance: What decides how all episodes came out, told with each of them.
    """

    def __init__(self, writers: Sequence[DemonstrationWriter], provenance: Mapping[str, Any]) -> None:
        self._writers, self._provenance = list(writers), dict(provenance)

    def has(self, episode_id: str) -> bool:
        """Say whether an episode is recorded in every format."""
        return all(writer.has(episode_id) for writer in self._writers)

    def add(self, demonstration: RecordedDemonstration) -> None:
        """Write a demonstration in the formats that lack it: an interruption may have come between two."""
        told = replace(demonstration, metadata={**demonstration.metadata, **self._provenance})
        for writer in self._writers:
            if not writer.has(demonstration.id):
                writer.add(told)
