"""What the rest of the library knows of Meta-World."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...metaworld_conventions import SAWYER
from ..contract import Recording, Simulator
from ..imports import prepare_mujoco
from ..options import check_least
from ..protocols import EvaluationProtocol
from . import protocols
from .cameras import CAMERAS
from .tasks import instruction, normalize_task

EXTRA = "metaworld"
ACTION_LABELS = ("expert", "executed")


class MetaWorld(Simulator):
    """Fifty tasks of a Sawyer arm at a table (Yu et al. 2019, Meta-World, arXiv:1910.10897)."""

    name = "metaworld"
    title = "Meta-World"
    packages = ("metaworld",)
    robot = SAWYER
    protocols = (protocols.METAWORLD,)
    host = "hilam_hf.envs.metaworld.host:MetaWorldHost"
    quality = "fast"
    cameras = tuple(CAMERAS)
    default_tasks = ("drawer-open", "door-open", "button-press-topdown")
    default_cameras = ("workspace",)
    recording = Recording(
        demonstrator="hilam_hf.envs.metaworld.demonstrator:MetaWorldDemonstrator",
        options={"noise": 0.1, "settle_steps": 5, "action_labels": "expert"},
        formats=("videos",),
        advice="raise the protocol's max_steps, lower noise, or record failures, too (only_successful=False)",
    )

    def find_tasks(self, tasks: Sequence[str | int] | None, suite: str | None = None) -> list[str]:
        if suite is not None:
            raise ValueError(f"suite {suite!r}: {self.title} has tasks alone")
        return [normalize_task(str(task)) for task in tasks or ()]

    def instruction(self, task: str) -> str:
        return instruction(task)

    def prepare(self, *, drawing: bool) -> None:
        prepare_mujoco(EXTRA, drawing=drawing)

    def check_recording_options(self, options: Mapping[str, Any]) -> None:
        check_least(noise=(options["noise"], 0), settle_steps=(options["settle_steps"], 0))
        if options["action_labels"] not in ACTION_LABELS:
            raise ValueError(f"action_labels must be 'expert' or 'executed', got {options['action_labels']!r}")

    def recorded_protocol(self, protocol: EvaluationProtocol) -> dict[str, Any]:
        # Nothing else of the protocol is open, and these are the names that recordings have held from the beginning.
        return {
            "camera": "+".join(protocol.cameras),
            "image_size": protocol.image_size,
            "max_steps": protocol.steps_of(""),
        }


METAWORLD = MetaWorld()
