"""What the rest of the library knows of LIBERO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...libero_conventions import PANDA
from ...recorded import episode_id
from ..contract import Recording, Simulator
from ..imports import prepare_mujoco
from ..options import check_least
from ..protocols import EpisodeSpec
from .initial_states import read_initial_states
from .package import EXTRA
from .protocols import PROTOCOLS
from .suites import libero_tasks, parse_task

ACTION_LABELS = ("executed", "expert")


class Libero(Simulator):
    """Suites of tasks of a Panda arm (Liu et al. 2023, LIBERO, arXiv:2306.03310)."""

    name = "libero"
    title = "LIBERO"
    packages = ("hf-libero", "robosuite")
    robot = PANDA
    protocols = PROTOCOLS
    host = "hilam_hf.envs.libero.host:LiberoHost"
    quality = "exact"
    bottom_row_first = True
    recording = Recording(
        demonstrator="hilam_hf.envs.libero.demonstrator:LiberoDemonstrator",
        options={"noise": 0.05, "speed_variation": 0.15, "hold_steps": 5, "action_labels": "executed"},
        formats=("hdf5", "lerobot"),
        advice="lower noise or episodes_per_task",
    )

    def find_tasks(self, tasks: Sequence[str | int] | None, suite: str | None = None) -> list[str]:
        if suite is None:
            return [parse_task(str(task)).id for task in tasks or ()]
        if tasks is None:
            return [task.id for task in libero_tasks(suite)]
        if words := [task for task in tasks if not str(task).isdecimal()]:
            raise ValueError(f"tasks of suite {suite} are given by their numbers, got {', '.join(map(str, words))}")
        return [task.id for task in libero_tasks(suite, [int(task) for task in tasks])]

    def instruction(self, task: str) -> str:
        return parse_task(task).instruction

    def suite_of(self, task: str) -> str:
        return parse_task(task).suite

    def num_initial_states(self, task: str) -> int | None:
        return len(read_initial_states(parse_task(task).initial_states_file))

    def host_options(self, assets: str | Path | None = None) -> dict[str, Any]:
        # Absolute, as workers may run elsewhere.
        return {"assets": None if assets is None else str(Path(assets).expanduser().resolve())}

    def prepare(self, *, drawing: bool) -> None:
        prepare_mujoco(EXTRA, drawing=drawing)

    def check_recording_options(self, options: Mapping[str, Any]) -> None:
        check_least(noise=(options["noise"], 0), hold_steps=(options["hold_steps"], 1))
        if options["action_labels"] not in ACTION_LABELS:
            raise ValueError(f"action_labels must be 'expert' or 'executed', got {options['action_labels']!r}")
        if not 0 <= options["speed_variation"] < 1:
            raise ValueError(f"speed_variation must be at least 0 and below 1, got {options['speed_variation']}")

    def recorded_task(self, task: str) -> str:
        return parse_task(task).name

    def episode_id(self, spec: EpisodeSpec) -> str:
        return episode_id(self.recorded_task(spec.task), spec.seed, spec.initial_state)


LIBERO = Libero()
