"""Records scripted experts: their episodes as videos, the actions kept apart.

Legend: T frames, A numbers in an action, P numbers in `agent_pos`, H and W a picture's size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...metaworld_conventions import SAWYER
from ...recorded import DemonstrationWriter, RecordedDemonstration
from ...robots import EE_POSITIONS
from ..recording import Job, RecordingLog, RecordingPlan, RecordingSummary, record_planned
from ..rendering import renderer_provenance
from ..seeds import demonstration_seed
from ..workers import Worker
from .environment import camera_names, make_env
from .expert import ScriptedExpert
from .tasks import INSTRUCTIONS, normalize_task

SIMULATOR = "metaworld"
_WORKER = f"{__name__}:Demonstrator"
ActionLabels = Literal["expert", "executed"]


@dataclass(frozen=True)
class RecordedEpisode:
    """What a worker hands back of one episode; frame t is what was seen before action t.

    Attributes:
        success: Whether the expert solved the task.
        frames: uint8 (T, 3, H, W).
        actions: float32 (T, A), labels as chosen by `action_labels`.
        agent_pos: float32 (T, P).
        phases: T words of `PHASES`: in which phase of the task the expert chose action t.
        fps: Control steps, and so frames, in a second of simulated time.
    """

    success: bool
    frames: NDArray[np.uint8]
    actions: NDArray[np.float32]
    agent_pos: NDArray[np.float32]
    phases: list[str]
    fps: float

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.frames)


def record_demonstrations(
    root: str | Path,
    tasks: str | Sequence[str],
    episodes_per_task: int,
    *,
    seed: int = 0,
    image_size: int = 128,
    camera: str = "corner2",
    quality: str = "fast",
    noise: float = 0.1,
    num_workers: int = 2,
    max_steps: int = 200,
    settle_steps: int = 5,
    action_labels: ActionLabels = "expert",
    only_successful: bool = True,
    progress: bool = True,
) -> RecordingSummary:
    """Record demonstrations of Meta-World tasks by their scripted experts.

    Episodes are written by `VideoRecordingWriter` as they come; a recording that was interrupted goes on where it
    stopped when it is called again. Which episodes there are depends on the options alone, not on the number of
    workers: number i of a task starts from `demonstration_seed(seed, i)`, and with `only_successful` the numbers that
    the expert does not solve are left out and listed in `recording.json`, beside everything needed to repeat it.

    Each frame comes with the phase of the task in which its action was chosen (`hilam_hf.envs.experts.PHASES`), the
    ground truth of segmentation.

    An episode goes on for `settle_steps` after success, so that its last frames show the solved task.

    Args:
        root: Folder of the recording; may hold an unfinished one.
        tasks: One or several tasks of MT50, with or without `-v3`.
        episodes_per_task: Episodes wanted of each task.
        seed: Chooses the initial states, 0 to 99; no evaluation has one of them.
        image_size: Height and width of pictures in pixels; even.
        camera: A view of `CAMERAS`.
        quality: Rendering quality, see `RenderQuality`.
        noise: Standard deviation of Gaussian noise on the executed displacements (1 is one centimetre a step).
        num_workers: Environments run in parallel, each in a process of its own.
        max_steps: Steps after which the expert has failed.
        settle_steps: Steps recorded after success.
        action_labels: Which actions are recorded: `"expert"`, what the expert meant to do in the state that noise
            brought it to (the labels that imitation learns most from: Laskey et al. 2017, DART), or `"executed"`, with
            the noise.
        only_successful: Whether episodes that the expert does not solve are left out and replaced by others.
        progress: Whether to show a progress bar.

    Returns:
        Counts, time, failures.

    Raises:
        ValueError: A task or option is not valid; the folder holds a recording with other options; or the expert
            fails too often.
        OSError: The disk is full or the folder not writable; finished episodes stay.
        WorkerError: A worker died; the message names the task and the seed.

    Example:
        >>> print(record_demonstrations("recording", ["drawer-open", "door-open"], 30, camera="workspace"))
    """
    from ...data.demonstrations.video_recording import VideoRecordingWriter

    started = time.monotonic()
    names = list(dict.fromkeys(map(normalize_task, [tasks] if isinstance(tasks, str) else tasks)))
    options: dict[str, Any] = {"camera": camera, "image_size": image_size, "quality": quality, "max_steps": max_steps}
    how: dict[str, Any] = {"noise": noise, "settle_steps": settle_steps, "action_labels": action_labels}
    _check_options(names, episodes_per_task, num_workers, options, how)
    # Before the workers start, which inherit the choice of a graphics library.
    renderer = renderer_provenance(quality)
    with ExitStack() as stack:
        writer = stack.enter_context(VideoRecordingWriter(root))
        settings = {"seed": seed, **options, **how, "only_successful": only_successful}
        packages = {name: metadata.version(name) for name in ("metaworld", "mujoco", "gymnasium")}
        log = RecordingLog(root, settings, {"simulator": SIMULATOR, "renderer": renderer, "packages": packages})
        plan = RecordingPlan(
            names,
            episodes_per_task,
            partial(_job, seed),
            most=3 * episodes_per_task + 10,
            has=writer.has,
            log=log,
            replace_failures=only_successful,
            advice=f"raise max_steps (now {max_steps}), lower noise (now {noise}), or record failures, too",
        )
        log.save()
        workers = [
            stack.enter_context(Worker(_WORKER, name=f"recorder {number}", **options, **how))
            for number in range(min(num_workers, len(plan)))
        ]
        (view,) = camera_names(camera)
        write = partial(_write, writer, view)
        recorded, frames = record_planned(plan, workers, write, log, progress=progress)
        log.save(finished=True)
    failures = tuple(failure for failure in log.failures if failure["task"] in names)
    return RecordingSummary(Path(root), recorded, plan.kept, frames, time.monotonic() - started, failures)


class Demonstrator:
    """Runs experts in a worker process.

    Args:
        noise: Standard deviation of the noise on displacements.
        settle_steps: Steps recorded after success.
        action_labels: Which actions are recorded.
        options: Options of `MetaWorldEnv`.
    """

    def __init__(self, *, noise: float, settle_steps: int, action_labels: ActionLabels, **options: Any) -> None:
        self._noise = noise
        self._settle_steps = settle_steps
        self._action_labels = action_labels
        # The simulator needs room for the steps after a success that came last.
        self._max_steps = options["max_steps"]
        self._options = {**options, "max_steps": self._max_steps + settle_steps, "terminate_on_success": False}
        self._environment: Any = None

    def record(self, job: Job) -> RecordedEpisode:
        """Run one episode until `settle_steps` after success, or for `max_steps`."""
        task, seed = job.task, job.seed
        if self._environment is None or self._environment.task != task:
            self.close()
            self._environment = make_env(task, **self._options)
        environment = self._environment
        expert = ScriptedExpert(task, noise=self._noise, seed=seed)
        observation, _ = environment.reset(seed=seed)
        frames, labels, states, phases = [], [], [], []
        solved_at: int | None = None
        for step in count():
            state = environment.privileged_state()
            phases.append(expert.phase(state))
            intended = expert.intended_action(state)
            executed = expert.perturb(intended)
            frames.append(next(iter(observation["pixels"].values())))
            states.append(observation["agent_pos"])
            labels.append(intended if self._action_labels == "expert" else executed)
            observation, _, _, _, info = environment.step(executed)
            if info["success"] and solved_at is None:
                solved_at = step
            last = self._max_steps - 1 if solved_at is None else solved_at + self._settle_steps
            if step == last:
                break
        pictures = np.ascontiguousarray(np.stack(frames).transpose(0, 3, 1, 2))
        return RecordedEpisode(
            solved_at is not None, pictures, np.stack(labels), np.stack(states), phases, environment.fps
        )

    def close(self) -> None:
        """Close the environment, if there is one."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None


def _job(recording_seed: int, task: str, episode: int) -> Job:
    return Job(f"{task}/episode_{episode:05d}", task, episode, demonstration_seed(recording_seed, episode))


def _write(writer: DemonstrationWriter, camera: str, job: Job, episode: RecordedEpisode) -> None:
    writer.add(
        RecordedDemonstration(
            id=job.id,
            task=job.task,
            language=INSTRUCTIONS[job.task],
            frames={camera: episode.frames.transpose(0, 2, 3, 1)},
            actions=episode.actions,
            proprioception={EE_POSITIONS: episode.agent_pos[:, :3], "gripper_openings": episode.agent_pos[:, 3:]},
            robot=SAWYER,
            fps=episode.fps,
            success=episode.success,
            source=SIMULATOR,
            seed=job.seed,
            phases=episode.phases,
        )
    )


def _check_options(
    tasks: Sequence[str], episodes_per_task: int, num_workers: int, options: dict[str, Any], how: dict[str, Any]
) -> None:
    # All of them are checked before `recording.json` is written, which a wrong one would otherwise reach.
    if not tasks:
        raise ValueError("tasks: got none, expected at least one task")
    if len(camera_names(options["camera"])) != 1:
        raise ValueError(f"camera: a recording has one view, got {options['camera']!r}")
    for option, value, least in (
        ("episodes_per_task", episodes_per_task, 1),
        ("num_workers", num_workers, 1),
        ("image_size", options["image_size"], 2),
        ("max_steps", options["max_steps"], 1),
        ("settle_steps", how["settle_steps"], 0),
        ("noise", how["noise"], 0),
    ):
        if not value >= least:
            raise ValueError(f"{option} must be at least {least}, got {value}")
    if options["image_size"] % 2:
        raise ValueError(f"image_size must be even, since videos halve it for colour; got {options['image_size']}")
    if how["action_labels"] not in ("expert", "executed"):
        raise ValueError(f"action_labels must be 'expert' or 'executed', got {how['action_labels']!r}")
