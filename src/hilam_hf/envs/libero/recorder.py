"""Records LIBERO's scripted experts in LIBERO's own HDF5 layout and as a LeRobot dataset.

```
root/recording.json                 how the episodes came about, and which the experts did not solve
root/hdf5/<task>_demo.hdf5          LIBERO's layout (`hilam_hf.data.demonstrations.libero`)
root/lerobot/                       LeRobot v3.0 (`hilam_hf.data.demonstrations.lerobot`)
```

Legend: T frames, H and W a picture's size.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...libero_conventions import PANDA
from ...recorded import DemonstrationWriter, RecordedDemonstration, episode_id
from ..protocols import InitialStates, Protocol, get_protocol
from ..recording import Job, RecordingLog, RecordingPlan, RecordingSummary, record_planned
from ..rendering import RenderQuality
from ..seeds import demonstration_seed
from ..workers import Worker
from .assets import find_assets
from .environment import LiberoEnv
from .expert.expert import LiberoExpert
from .host import LiberoHost
from .robot_state import RobotState
from .simulator import CONTROL_FREQUENCY
from .suites import LiberoTask, libero_tasks, normalize_suite

Format = Literal["hdf5", "lerobot"]
ActionLabels = Literal["expert", "executed"]
SIMULATOR = "libero"
SOURCE = "scripted"
_WORKER = f"{__name__}:LiberoDemonstrator"


@dataclass(frozen=True)
class RecordedEpisode:
    """What a worker hands back of one episode; frame t is what was seen before action t.

    Attributes:
        success: Whether the goal was met at the end, after the expert had let go.
        frames: By camera, uint8 (T, H, W, 3), the bottom row first.
        actions: float32 (T, 7), labels as chosen by `action_labels`.
        robot: The robot's state at each frame.
        states: float64 (T, n), the simulator's state before each action.
        phases: T words of `PHASES`.
        speed: The expert's speed.
        model_xml: The scene, with fixtures where they stand in this episode.
    """

    success: bool
    frames: dict[str, NDArray[np.uint8]]
    actions: NDArray[np.float32]
    robot: list[RobotState]
    states: NDArray[np.float64]
    phases: list[str]
    speed: float
    model_xml: str

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.actions)


def record_libero(
    root: str | Path,
    suite: str,
    episodes_per_task: int = 50,
    *,
    tasks: Sequence[int] | None = None,
    protocol: str | Protocol = "openvla",
    image_size: int = 128,
    quality: str = "exact",
    formats: Sequence[Format] = ("hdf5", "lerobot"),
    initial_states: Sequence[int] | None = None,
    seed: int = 0,
    noise: float = 0.05,
    speed_variation: float = 0.15,
    hold_steps: int = 5,
    action_labels: ActionLabels = "executed",
    assets: str | Path | None = None,
    num_workers: int = 2,
    progress: bool = True,
) -> RecordingSummary:
    """Record demonstrations of LIBERO tasks by scripted experts.

    Only episodes whose goal still holds at the end, `hold_steps` after the expert has withdrawn its hand, are kept. All
    are labelled `scripted`: they are not LIBERO's human demonstrations. A recording that was interrupted goes on where
    it stopped when it is called again.

    Args:
        root: Folder of the recording; may hold an unfinished one.
        suite: Name of the suite, see `normalize_suite`.
        episodes_per_task: Episodes wanted of each task.
        tasks: Numbers of the tasks; None for all of the suite.
        protocol: Settle steps, step limits and cameras are its; initial states are not, see `initial_states`.
        image_size: Height and width of pictures in pixels; even.
        quality: Rendering quality, see `RenderQuality`.
        formats: What to write: `hdf5`, `lerobot`, or both.
        initial_states: Numbers of the benchmark's initial states to start from, which are those of evaluations; None
            draws other ones by `demonstration_seed`.
        seed: Chooses initial states, noise and speeds, 0 to 99.
        noise: Standard deviation of Gaussian noise on the executed displacement and rotation, in the action's units.
        speed_variation: Each episode's expert has a speed between 1 - this and 1 + this.
        hold_steps: Steps recorded after the expert has finished.
        action_labels: Which actions are recorded: `executed`, with the noise, which replay to the same end; or
            `expert`, what the expert meant to do in the state that noise brought it to (Laskey et al. 2017, DART).
        assets: Folder of LIBERO's assets, see `find_assets`.
        num_workers: Environments run in parallel, each in a process of its own.
        progress: Whether to show a progress bar.

    Returns:
        Counts, time, failures.

    Raises:
        ValueError: A suite, task or option is not valid; the folder holds a recording with other options; or an expert
            fails too often.
        FileNotFoundError: There are no assets.
        OSError: The disk is full or the folder not writable; finished episodes stay.
        WorkerError: A worker died; the message names the episode.

    Example:
        >>> print(record_libero("recording", "libero_goal", 10, tasks=[0, 3], assets="libero_assets"))
    """
    started = time.monotonic()
    chosen = {task.id: task for task in libero_tasks(suite, tasks)}
    base = get_protocol(protocol)
    how: dict[str, Any] = {
        "noise": noise,
        "speed_variation": speed_variation,
        "hold_steps": hold_steps,
        "action_labels": action_labels,
    }
    _check_options(episodes_per_task, num_workers, image_size, formats, how)
    kind: InitialStates = "random" if initial_states is None else "fixed"
    recorded_as = replace(base, initial_states=kind, image_size=image_size, image_transform="none")
    drawn = RenderQuality(quality).value
    options: dict[str, Any] = {"protocol": recorded_as, "quality": drawn, "assets": str(find_assets(assets))}
    circumstances = {"simulator": SIMULATOR, "source": SOURCE, **LiberoHost(**options).provenance()}
    settings: dict[str, Any] = {
        "suite": normalize_suite(suite),
        "protocol": recorded_as.to_dict(),
        "quality": drawn,
        "formats": list(formats),
        "initial_states": None if initial_states is None else list(initial_states),
        "seed": seed,
        **how,
    }
    with ExitStack() as stack:
        root = Path(root)
        root.mkdir(parents=True, exist_ok=True)
        log = RecordingLog(root, settings, circumstances)
        sinks = [stack.enter_context(sink) for sink in _sinks(root, formats, settings | circumstances)]
        plan = RecordingPlan(
            list(chosen),
            episodes_per_task,
            partial(_job, chosen, seed, initial_states),
            most=3 * episodes_per_task + 10 if initial_states is None else len(initial_states),
            has=lambda name: all(sink.has(name) for sink in sinks),
            log=log,
            replace_failures=True,
            advice=f"lower noise (now {noise}) or episodes_per_task (now {episodes_per_task})",
        )
        log.save()
        workers = [
            stack.enter_context(Worker(_WORKER, name=f"recorder {number}", **options, **how))
            for number in range(min(num_workers, len(plan)))
        ]
        write = partial(_write, sinks, chosen, settings | circumstances)
        recorded, frames = record_planned(plan, workers, write, log, progress=progress)
        log.save(finished=True)
    failures = tuple(failure for failure in log.failures if failure["task"] in chosen)
    return RecordingSummary(root, recorded, plan.kept, frames, time.monotonic() - started, failures)


class LiberoDemonstrator:
    """Runs experts in a worker process.

    Args:
        protocol: Settling, step limits, cameras, picture size.
        quality: Rendering quality.
        assets: Folder of LIBERO's assets.
        noise: Standard deviation of the noise on actions.
        speed_variation: How far the expert's speed may be from 1.
        hold_steps: Steps after the expert has finished.
        action_labels: Which actions are recorded.
    """

    def __init__(
        self,
        *,
        protocol: Protocol,
        quality: str,
        assets: str,
        noise: float,
        speed_variation: float,
        hold_steps: int,
        action_labels: ActionLabels,
    ) -> None:
        self._options: dict[str, Any] = {"protocol": protocol, "quality": quality, "assets": assets}
        self._noise, self._speed_variation = noise, speed_variation
        self._hold_steps, self._action_labels = hold_steps, action_labels
        self._environment: LiberoEnv | None = None

    def record(self, job: Job) -> RecordedEpisode:
        """Run one episode until `hold_steps` after the expert has finished, or to the protocol's limit."""
        environment = self._environment_of(job.task)
        observation, _ = environment.reset(seed=job.seed, options={"initial_state": job.initial_state})
        simulator = environment.simulator
        speed = 1.0 + self._speed_variation * float(np.random.default_rng(job.seed).uniform(-1.0, 1.0))
        expert = LiberoExpert(simulator.environment, noise=self._noise, speed=speed, seed=job.seed)
        pictures, labels, robot, states, phases = [], [], [], [], []
        model_xml = simulator.environment.sim.model.get_xml()
        held = 0
        for _ in range(environment.max_steps):
            intended = expert.act()
            executed = intended if expert.finished else expert.perturb(intended)
            held += expert.finished
            pictures.append(observation["pixels"])
            labels.append(intended if self._action_labels == "expert" else executed)
            robot.append(environment.robot_state())
            states.append(simulator.state())
            phases.append(expert.phase)
            observation, *_ = environment.step(executed)
            if held == self._hold_steps:
                break
        frames = {camera: np.stack([shown[camera] for shown in pictures]) for camera in pictures[0]}
        return RecordedEpisode(
            expert.finished and simulator.success(),
            frames,
            np.stack(labels),
            robot,
            np.stack(states),
            phases,
            speed,
            model_xml,
        )

    def close(self) -> None:
        """Close the environment, if there is one."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None
            # As in `LiberoHost`: large models in circles of references.
            gc.collect()

    def _environment_of(self, task: str) -> LiberoEnv:
        if self._environment is None or self._environment.task.id != task:
            self.close()
            self._environment = LiberoEnv(task, terminate_on_success=False, **self._options)
        return self._environment


def _job(
    chosen: Mapping[str, LiberoTask], recording_seed: int, initial_states: Sequence[int] | None, task: str, episode: int
) -> Job:
    seed = demonstration_seed(recording_seed, episode)
    state = None if initial_states is None else initial_states[episode]
    return Job(episode_id(chosen[task].name, seed, state), task, episode, seed, state)


def _sinks(root: Path, formats: Sequence[Format], provenance: dict[str, Any]) -> list[DemonstrationWriter]:
    from ...data.demonstrations.lerobot.writer import LeRobotWriter
    from ...data.demonstrations.libero.writer import LiberoHdf5Writer

    kinds: dict[str, Any] = {"hdf5": LiberoHdf5Writer, "lerobot": LeRobotWriter}
    return [kinds[name](root / name, provenance=provenance) for name in formats]


def _write(
    sinks: Sequence[DemonstrationWriter],
    chosen: Mapping[str, LiberoTask],
    provenance: dict[str, Any],
    job: Job,
    episode: RecordedEpisode,
) -> None:
    demonstration = _demonstration(chosen[job.task], job, episode, provenance)
    for sink in sinks:
        # An interruption may have come between two formats.
        if not sink.has(demonstration.id):
            sink.add(demonstration)


def _demonstration(
    task: LiberoTask, job: Job, episode: RecordedEpisode, provenance: dict[str, Any]
) -> RecordedDemonstration:
    last = np.zeros(episode.num_frames, dtype=np.uint8)
    last[-1] = 1
    robot = [state.parts() for state in episode.robot]
    return RecordedDemonstration(
        id=job.id,
        task=task.name,
        language=task.instruction,
        frames=episode.frames,
        actions=episode.actions,
        proprioception={part: np.stack([state[part] for state in robot]) for part in PANDA.proprioception},
        robot=PANDA,
        fps=float(CONTROL_FREQUENCY),
        success=episode.success,
        source=SOURCE,
        seed=job.seed,
        initial_state=job.initial_state,
        phases=episode.phases,
        details={
            "states": episode.states,
            "rewards": last * episode.success,
            "dones": last,
            "model_xml": episode.model_xml,
            "bddl_file": f"{task.suite}/{task.bddl_file.name}",
            "bddl": task.bddl_file.read_text(encoding="utf-8"),
            "env_kwargs": {"robots": ["Panda"], "controller": "OSC_POSE", "control_freq": CONTROL_FREQUENCY},
        },
        metadata={"suite": task.suite, "task_index": task.index, "speed": episode.speed, **provenance},
    )


def _check_options(
    episodes_per_task: int, num_workers: int, image_size: int, formats: Sequence[str], how: dict[str, Any]
) -> None:
    if not formats or not set(formats) <= set(get_args(Format)):
        raise ValueError(f"formats: got {list(formats)}, expected some of {', '.join(get_args(Format))}")
    if how["action_labels"] not in get_args(ActionLabels):
        raise ValueError(f"action_labels must be 'expert' or 'executed', got {how['action_labels']!r}")
    if not 0 <= how["speed_variation"] < 1:
        raise ValueError(f"speed_variation must be at least 0 and below 1, got {how['speed_variation']}")
    for option, value, least in (
        ("episodes_per_task", episodes_per_task, 1),
        ("num_workers", num_workers, 1),
        ("image_size", image_size, 2),
        ("noise", how["noise"], 0),
        ("hold_steps", how["hold_steps"], 1),
    ):
        if not value >= least:
            raise ValueError(f"{option} must be at least {least}, got {value}")
    if image_size % 2:
        raise ValueError(f"image_size must be even, since videos halve it for colour; got {image_size}")
