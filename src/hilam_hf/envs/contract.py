"""What a simulator brings: an object that declares it, hosts for evaluations, and a demonstrator where it has experts.

A simulator is a folder and one line: a subclass of `Simulator` that states what is needed before anything runs, and
classes named by it that worker processes make. It becomes known by a line in `hilam_hf.envs.registry`, by an entry
point in the group `hilam_hf.simulators`, or by `register_simulator`; everything else takes it by its name.

Declarations are imported to list tasks and to show help, so they import neither the simulator nor PyTorch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..recorded import RecordedDemonstration
from ..robots import RobotDescription
from .protocols import EpisodeSpec, EvaluationProtocol

StepOutcome = tuple[dict[str, Any], float, bool, bool, dict[str, Any]]
"""Observation, reward, whether the episode has ended by success, whether it was cut off, and info."""


class Host(Protocol):
    """What a worker process of an evaluation holds: one environment at a time, of whichever task comes next.

    It is made with the keywords `protocol` (an `EvaluationProtocol`), `quality` (a name), `render` (whether there are
    pictures at all), `extras` (what observations hold besides: `expert_action`, `privileged`), `noise` (standard
    deviation of the noise on the expert's actions; it depends on the episode's seed alone), and those of
    `Simulator.host_options`.

    An observation is `{"pixels": {camera: uint8 (H, W, 3)}, "agent_pos": float32 (P,)}` and the extras; `pixels` is
    absent where nothing is drawn. `info` holds `success`, and after a reset `instruction`.
    """

    def reset(self, spec: EpisodeSpec, draw: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode, which the protocol and the spec fully determine; `draw` is whether pictures are needed."""

    def step(self, action: NDArray[np.float32], draw: bool) -> StepOutcome:
        """Act in the current episode: float32 (A,)."""

    def fps(self) -> float:
        """Return the control steps in a second of simulated time."""

    def provenance(self) -> dict[str, Any]:
        """Return versions of simulator and renderer as JSON values; no episode need have begun.

        `mujoco` is MuJoCo's version and `renderer` a record of `renderer_provenance`, where there are such.
        """

    def memory(self) -> int:
        """Return the bytes of memory that this process takes."""

    def close(self) -> None:
        """Close the environment, if there is one."""


class Demonstrator(Protocol):
    """What a worker process of a recording holds: a simulator's scripted experts.

    It is made with the keywords `protocol` and `quality`, those of `Simulator.host_options`, and `Recording.options`.
    """

    def record(self, spec: EpisodeSpec) -> RecordedDemonstration:
        """Let the expert act in an episode, solved or not. Its id is `Simulator.episode_id(spec)`."""

    def close(self) -> None:
        """Close the environment, if there is one."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """How a simulator's scripted experts are recorded.

    Attributes:
        demonstrator: `"module:Class"` of the `Demonstrator` that worker processes make.
        options: Keywords of the demonstrator that decide how episodes come out, with their defaults.
        formats: What recordings are written in by default, of `hilam_hf.data.demonstration_formats`.
        advice: What may help where the expert does not solve enough episodes.
    """

    demonstrator: str
    options: Mapping[str, Any] = field(default_factory=dict)
    formats: tuple[str, ...] = ("videos",)
    advice: str = "choose easier tasks or fewer episodes"


class Simulator(ABC):
    """The declaration of a simulator.

    Attributes:
        name: The name that it is asked for by, such as `libero`.
        title: Its name in sentences, such as `LIBERO`.
        packages: Packages whose versions can change what a rollout gives.
        robot: Its robot: actions, what `agent_pos` may be made of, what protocols may do to its pictures.
        protocols: Its evaluation protocols; the first is used where none is named.
        host: `"module:Class"` of its `Host`.
        quality: Rendering quality where none is named.
        bottom_row_first: Whether its renderer gives pictures upside down, so that `none` leaves them so.
        cameras: Names of its cameras; none where they are known only once a task is loaded.
        default_tasks: Tasks of commands that name none.
        default_cameras: Cameras of commands that name none; None for the protocol's.
        recording: How its experts are recorded; None where it has none.
    """

    name: str
    title: str
    packages: tuple[str, ...] = ()
    robot: RobotDescription
    protocols: tuple[EvaluationProtocol, ...]
    host: str
    quality: str = "exact"
    bottom_row_first: bool = False
    cameras: tuple[str, ...] = ()
    default_tasks: tuple[str, ...] = ()
    default_cameras: tuple[str, ...] | None = None
    recording: Recording | None = None

    def __str__(self) -> str:
        return f"{type(self).__module__}:{type(self).__qualname__}"

    @abstractmethod
    def find_tasks(self, tasks: Sequence[str | int] | None, suite: str | None = None) -> list[str]:
        """Return the full names of tasks; see `task_names`."""

    @abstractmethod
    def instruction(self, task: str) -> str:
        """Return what a task asks for in words."""

    def suite_of(self, task: str) -> str:
        """Return the suite of a task, by which protocols limit steps; empty for simulators without suites."""
        return ""

    def num_initial_states(self, task: str) -> int | None:
        """Return how many numbered initial states a task has; None where resets draw them."""
        return None

    def host_options(self, assets: str | Path | None = None) -> dict[str, Any]:
        """Return what hosts and demonstrators of this simulator take besides.

        Args:
            assets: Folder of what the simulator does not bring itself.

        Raises:
            ValueError: It takes no assets.
        """
        if assets is not None:
            raise ValueError(f"assets: {self.title} takes none; got {assets}")
        return {}

    def prepare(self, *, drawing: bool) -> None:  # noqa: B027 (many need nothing)
        """Prepare this process for the workers, which inherit its environment variables; see that all is installed.

        Args:
            drawing: Whether pictures are going to be drawn.

        Raises:
            ImportError: The simulator is not installed.
            RenderingError: Nothing draws here, and `drawing` is set.
        """

    def check_recording_options(self, options: Mapping[str, Any]) -> None:  # noqa: B027 (many have none)
        """See that values of `Recording.options` are valid, before anything is written.

        Raises:
            ValueError: One is not.
        """

    def recorded_protocol(self, protocol: EvaluationProtocol) -> dict[str, Any]:
        """Return what `recording.json` holds of the protocol among the settings that a recording keeps."""
        return {"protocol": protocol.to_dict()}

    def recorded_task(self, task: str) -> str:
        """Return what recordings call a task, in letters, digits, "-" and "_"."""
        return task

    def episode_id(self, spec: EpisodeSpec) -> str:
        """Return the name of a recorded episode in its files: `<recorded task>/<name>`."""
        return f"{self.recorded_task(spec.task)}/episode_{spec.index:05d}"

    def task_names(self, tasks: str | Sequence[str | int] | None, suite: str | None = None) -> list[str]:
        """Return the full names of tasks, each once, in their order.

        Args:
            tasks: Names, or with `suite` numbers; None for the whole suite.
            suite: A suite, for simulators that have such.

        Raises:
            ValueError: There is no such task or suite, or none is given.
            ImportError: The simulator is not installed.
        """
        given = [tasks] if isinstance(tasks, str) else tasks
        names = self.find_tasks(given, suite)
        if not names:
            raise ValueError("tasks: got none, expected at least one task" + (", or a suite" if given is None else ""))
        return list(dict.fromkeys(names))

    def protocol(self, protocol: str | EvaluationProtocol | None = None) -> EvaluationProtocol:
        """Return one of this simulator's protocols.

        Args:
            protocol: Its name, or a protocol, which is checked; None for the first.

        Raises:
            ValueError: There is no such protocol, it is for another simulator, or it asks for what this one lacks.
        """
        if protocol is None:
            return self.protocols[0]
        if isinstance(protocol, EvaluationProtocol):
            self._check(protocol)
            return protocol
        found = [one for one in self.protocols if one.name == protocol]
        if not found:
            raise ValueError(
                f"{self.title} has no protocol {protocol!r}; it has {', '.join(one.name for one in self.protocols)}"
            )
        return found[0]

    def check_episodes(self, protocol: EvaluationProtocol, specs: Sequence[EpisodeSpec]) -> None:
        """See that a protocol has limits for all tasks, and that there are the initial states of all episodes.

        Raises:
            ValueError: It has not, or there are not.
        """
        last: dict[str, int] = {}
        for spec in specs:
            protocol.steps_of(self.suite_of(spec.task))
            if spec.initial_state is not None:
                last[spec.task] = max(spec.initial_state, last.get(spec.task, 0))
        for task, number in last.items():
            count = self.num_initial_states(task)
            if count is None:
                raise ValueError(f"{self.title} draws initial states by seeds and has none of its own, got {number}")
            if number >= count:
                raise ValueError(f"{task} has initial states 0 to {count - 1}, got {number}")

    def _check(self, protocol: EvaluationProtocol) -> None:
        if protocol.simulator != self.name:
            raise ValueError(f"protocol {protocol.name} is for {protocol.simulator}, not for {self.title}")
        offered = {"image_transform": self.robot.image_transforms, "proprioception": tuple(self.robot.layouts)}
        for choice, values in offered.items():
            if (value := getattr(protocol, choice)) not in values:
                raise ValueError(
                    f"protocol {protocol.name}: {choice}: got {value!r}, but {self.title} has {', '.join(values)}"
                )
        self._check_cameras(protocol)
        if len(protocol.settle_action) != self.robot.action_dim:
            raise ValueError(
                f"protocol {protocol.name}: settle_action: got {len(protocol.settle_action)} numbers, but "
                f"{self.title} takes {self.robot.action_dim}"
            )

    def _check_cameras(self, protocol: EvaluationProtocol) -> None:
        cameras = protocol.cameras
        unknown = [camera for camera in cameras if self.cameras and camera not in self.cameras]
        if unknown or not cameras or len(set(cameras)) != len(cameras):
            there = f" of {', '.join(self.cameras)}" if self.cameras else ""
            raise ValueError(
                f"protocol {protocol.name}: cameras: got {cameras}, expected one or several different{there}"
            )
