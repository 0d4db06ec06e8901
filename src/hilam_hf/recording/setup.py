"""What decides which episodes a recording has and how they look."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..data.demonstrations.formats import demonstration_formats
from ..envs.contract import Recording, Simulator
from ..envs.options import check_least
from ..envs.protocols import EpisodeSpec, EvaluationProtocol
from ..envs.rendering import RenderQuality
from ..envs.seeds import demonstration_seed

SOURCE = "scripted"


@dataclass(frozen=True, kw_only=True)
class RecordingSetup:
    """The choices of a recording, as `record` takes them, made complete and checked.

    Raises:
        ValueError: One is not valid, or the simulator has no expert.
    """

    simulator: Simulator
    protocol: EvaluationProtocol
    quality: str
    formats: Sequence[str]
    initial_states: Sequence[int] | None
    seed: int
    only_successful: bool
    assets: str | Path | None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        simulator: Simulator,
        protocol: str | EvaluationProtocol | None,
        *,
        image_size: int,
        quality: str | None,
        formats: Sequence[str] | None,
        initial_states: Sequence[int] | None,
        options: Mapping[str, Any],
        **others: Any,
    ) -> RecordingSetup:
        """Complete what is left open by what the simulator declares."""
        expert = _recording(simulator)
        if unknown := sorted(set(options) - set(expert.options)):
            raise ValueError(
                f"{simulator.title}'s recordings have no {', '.join(unknown)}; they have {', '.join(expert.options)}"
            )
        check_least(image_size=(image_size, 2))
        if image_size % 2:
            raise ValueError(f"image_size must be even, since videos halve it for colour; got {image_size}")
        complete = {**expert.options, **options}
        simulator.check_recording_options(complete)
        return cls(
            simulator=simulator,
            protocol=replace(
                simulator.protocol(protocol),
                initial_states="random" if initial_states is None else "fixed",
                image_size=image_size,
                image_transform="none",
            ),
            quality=RenderQuality(quality or simulator.quality).value,
            formats=_written(expert.formats if formats is None else formats),
            initial_states=initial_states,
            options=complete,
            **others,
        )

    @property
    def recording(self) -> Recording:
        """What the simulator says of recordings."""
        return _recording(self.simulator)

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
        host = getattr(importlib.import_module(module), name)(**self.host_options())
        return {"simulator": self.simulator.name, "source": SOURCE, **host.provenance()}

    def host_options(self) -> dict[str, Any]:
        """Arguments of hosts and, with `options`, of demonstrators."""
        return {
            "protocol": self.protocol,
            "quality": self.quality,
            **self.simulator.host_options(self.assets),
        }

    def num_episodes(self, wanted: int) -> int:
        """How many numbers of episodes may be tried to record the wanted ones."""
        return 3 * wanted + 10 if self.initial_states is None else len(self.initial_states)

    def spec(self, task: str, number: int) -> EpisodeSpec:
        """Say how the episode of a number starts.

        Raises:
            ValueError: The recording's seed or the number is outside its range.
        """
        state = None if self.initial_states is None else self.initial_states[number]
        return EpisodeSpec(task, number, demonstration_seed(self.seed, number), state)


def _written(formats: Sequence[str]) -> Sequence[str]:
    known = [name for name, each in demonstration_formats().items() if each.writer is not None]
    if not formats or not set(formats) <= set(known):
        raise ValueError(f"formats: got {list(formats)}, expected some of {', '.join(known)}")
    return formats


def _recording(simulator: Simulator) -> Recording:
    if simulator.recording is None:
        raise ValueError(f"{simulator.title} has no scripted experts, so there is nothing to record")
    return simulator.recording
