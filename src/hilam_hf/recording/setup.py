"""What decides which episodes a recording has and how they look."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.demonstrations.formats import demonstration_formats
from ..envs.contract import Recording, Simulator
from ..envs.options import check_least
from ..envs.protocols import EpisodeSpec, EvaluationProtocol, InitialStates
from ..envs.rendering import RenderQuality
from ..envs.seeds import demonstration_seed

SOURCE = "scripted"


@dataclass(frozen=True, kw_only=True)
class RecordingSetup:
    """The choices of a recording, complete and checked; see `record`.

    Attributes:
        simulator: The simulator.
        recording: What it says of recordings.
        protocol: The protocol, with the pictures and the kind of initial states that are recorded.
        quality: Rendering quality.
        formats: Names of the formats that are written.
        initial_states: Numbers of initial states; None where seeds draw them.
        seed: Seed of the recording.
        only_successful: Whether episodes that the expert does not solve are replaced.
        host_options: What else hosts and demonstrators take.
        options: What decides how the expert acts.
    """

    simulator: Simulator
    recording: Recording
    protocol: EvaluationProtocol
    quality: str
    formats: tuple[str, ...]
    initial_states: tuple[int, ...] | None
    seed: int
    only_successful: bool
    host_options: Mapping[str, Any]
    options: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """What `recording.json` keeps, and a recording that goes on must have again."""
        return {
            **self.simulator.recorded_protocol(self.protocol),
            "quality": self.quality,
            "formats": list(self.formats),
            "initial_states": None if self.initial_states is None else list(self.initial_states),
            "seed": self.seed,
            "only_successful": self.only_successful,
            **self.options,
        }

    def circumstances(self) -> dict[str, Any]:
        """What else has to be told: simulator, renderer, versions.

        Raises:
            OSError, ImportError: Assets, a renderer or the simulator are missing.
        """
        module, _, name = self.simulator.host.partition(":")
        host = getattr(importlib.import_module(module), name)(
            protocol=self.protocol, quality=self.quality, **self.host_options
        )
        return {"simulator": self.simulator.name, "source": SOURCE, **host.provenance()}

    def demonstrator_options(self) -> dict[str, Any]:
        """Arguments of the demonstrator."""
        return {"protocol": self.protocol, "quality": self.quality, **self.host_options, **self.options}

    def num_tries(self, episodes: int) -> int:
        """How many numbers of episodes may be tried to record so many."""
        return 3 * episodes + 10 if self.initial_states is None else len(self.initial_states)

    def spec(self, task: str, number: int) -> EpisodeSpec:
        """Say how the episode of a number starts.

        Raises:
            ValueError: The recording's seed or the number is outside its range.
        """
        state = None if self.initial_states is None else self.initial_states[number]
        return EpisodeSpec(task, number, demonstration_seed(self.seed, number), state)


def make_setup(
    simulator: Simulator,
    *,
    protocol: str | EvaluationProtocol | None,
    image_size: int,
    quality: str | None,
    formats: Sequence[str] | None,
    initial_states: Sequence[int] | None,
    seed: int,
    only_successful: bool,
    assets: str | Path | None,
    options: Mapping[str, Any],
) -> RecordingSetup:
    """Complete the options of `record` by what the simulator declares.

    Raises:
        ValueError: One is not valid, or the simulator has no expert.
    """
    recording = simulator.recording
    if recording is None:
        raise ValueError(f"{simulator.title} has no scripted experts, so there is nothing to record")
    return RecordingSetup(
        simulator=simulator,
        recording=recording,
        protocol=_recorded_protocol(simulator.protocol(protocol), image_size, drawn=initial_states is None),
        quality=RenderQuality(quality or simulator.quality).value,
        formats=_checked_formats(recording.formats if formats is None else formats),
        initial_states=None if initial_states is None else tuple(initial_states),
        seed=seed,
        only_successful=only_successful,
        host_options=simulator.host_options(assets),
        options=_complete_options(simulator, recording, options),
    )


def _recorded_protocol(protocol: EvaluationProtocol, image_size: int, *, drawn: bool) -> EvaluationProtocol:
    check_least(image_size=(image_size, 2))
    if image_size % 2:
        raise ValueError(f"image_size must be even, since videos halve it for colour; got {image_size}")
    kind: InitialStates = "random" if drawn else "fixed"
    # Its name stays: what is changed belongs to every recording.
    return replace(protocol, initial_states=kind, image_size=image_size, image_transform="none")


def _checked_formats(formats: Sequence[str]) -> tuple[str, ...]:
    known = [name for name, each in demonstration_formats().items() if each.writer is not None]
    if not formats or not set(formats) <= set(known):
        raise ValueError(f"formats: got {list(formats)}, expected some of {', '.join(known)}")
    return tuple(formats)


def _complete_options(simulator: Simulator, recording: Recording, options: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(options) - set(recording.options)):
        raise ValueError(
            f"{simulator.title}'s recordings have no {', '.join(unknown)}; they have {', '.join(recording.options)}"
        )
    complete = {**recording.options, **options}
    check_least(**{name: (value, 0) for name, value in complete.items() if isinstance(value, int | float)})
    simulator.check_recording_options(complete)
    return complete
