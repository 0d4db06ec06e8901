"""Records a simulator's scripted experts: worker processes make demonstrations, writers put them on disk in order.

```
root/recording.json     how the episodes came about, and which the experts did not solve
root/videos/, ...       format "videos" (`hilam_hf.data.demonstrations.video_recording`)
root/hdf5/              format "hdf5", LIBERO's layout (`hilam_hf.data.demonstrations.libero`)
root/lerobot/           format "lerobot", LeRobot v3.0 (`hilam_hf.data.demonstrations.lerobot`)
```
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..data.demonstrations.formats import demonstration_formats
from ..envs.options import check_least
from ..envs.pool import ATTEMPTS, WorkerPool
from ..envs.protocols import EpisodeSpec, EvaluationProtocol
from ..envs.registry import get_simulator
from ..envs.workers import WorkerError
from ..locks import FolderLock
from ..recorded import DemonstrationWriter, RecordedDemonstration
from .log import RecordingLog, RecordingSummary
from .output import Output
from .plan import RecordingPlan
from .setup import make_setup

logger = logging.getLogger(__name__)


def record(
    root: str | Path,
    simulator: str,
    tasks: str | Sequence[str | int] | None,
    episodes_per_task: int,
    *,
    suite: str | None = None,
    protocol: str | EvaluationProtocol | None = None,
    image_size: int = 128,
    quality: str | None = None,
    formats: Sequence[str] | None = None,
    initial_states: Sequence[int] | None = None,
    seed: int = 0,
    only_successful: bool = True,
    assets: str | Path | None = None,
    num_workers: int = 2,
    progress: bool = True,
    **options: Any,
) -> RecordingSummary:
    """Record demonstrations of tasks by a simulator's scripted experts.

    Episodes are written in the order of tasks and numbers, whoever finishes first, so that the same options give the
    same files; a recording that was interrupted goes on where it stopped when it is called again. Which episodes there
    are depends on the options alone, not on the number of workers: number i of a task starts from
    `demonstration_seed(seed, i)`, and with `only_successful` the numbers that the expert does not solve are
    left out and listed in `recording.json`, beside everything needed to repeat it.

    Each frame comes with the phase of the task in which its action was chosen, where the expert tells it: the ground
    truth of segmentation.

    Args:
        root: Folder of the recording; may hold an unfinished one.
        simulator: Name of the simulator, see `simulator_names`.
        tasks: Names of one or several of its tasks; numbers with `suite`; None for the whole suite.
        episodes_per_task: Episodes wanted of each task.
        suite: A suite of the simulator.
        protocol: Settle steps, step limits and cameras are its; None for the simulator's first. What it says of initial
            states and of how pictures are turned does not hold: they are recorded as they come.
        image_size: Height and width of pictures in pixels; even.
        quality: Rendering quality, see `RenderQuality`; None for the simulator's own choice.
        formats: What to write, by the names of `demonstration_formats`; None for the simulator's own choice.
        initial_states: Numbers of the benchmark's initial states to start from, which are those of evaluations; None
            draws other ones.
        seed: Chooses initial states and noise, 0 to 99; no evaluation draws one of these states.
        only_successful: Whether episodes that the expert does not solve are left out and replaced by others.
        assets: Folder of the simulator's assets, for one that takes some; None leaves the search to it.
        num_workers: Environments run in parallel, each in a process of its own.
        progress: Whether to show a progress bar.
        options: What the simulator's expert takes. In both Meta-World and LIBERO `noise`, the standard deviation of
            Gaussian noise on the executed movements, in the action's units (0.1 and 0.05), and `action_labels`:
            `executed`, with the noise, which replay to the same end (LIBERO's default), or `expert`, what the expert
            meant to do in the state that noise brought it to, from which imitation learns most (Laskey et al. 2017,
            DART; Meta-World's default). In Meta-World `settle_steps` (5), recorded after success. In LIBERO
            `hold_steps` (5), recorded after the expert has withdrawn its hand, and `speed_variation` (0.15): each
            episode's expert has a speed between 1 - this and 1 + this.

    Returns:
        Counts, time, failures.

    Raises:
        ValueError: A simulator, task or option is not valid; the folder holds a recording with other options; or the
            expert fails too often.
        FolderInUseError: Another recording writes into the folder.
        OSError: The disk is full or the folder not writable, or assets or a renderer are missing; written episodes
            stay.
        ImportError: The simulator is not installed.
        WorkerError: A worker died twice at one episode; the message names the task and the seed. One that dies once
            is replaced.

    Example:
        >>> print(record("recording", "metaworld", ["drawer-open", "door-open"], 30))  # doctest: +SKIP
        >>> print(record("libero-goal", "libero", [0, 3], 10, suite="goal", assets="libero_assets"))  # doctest: +SKIP
    """
    started = time.monotonic()
    declared = get_simulator(simulator)
    names = declared.task_names(tasks, suite)
    check_least(episodes_per_task=(episodes_per_task, 1), num_workers=(num_workers, 1))
    setup = make_setup(
        declared,
        protocol=protocol,
        image_size=image_size,
        quality=quality,
        formats=formats,
        initial_states=initial_states,
        seed=seed,
        only_successful=only_successful,
        assets=assets,
        options=options,
    )
    numbers = range(setup.num_tries(episodes_per_task))
    declared.check_episodes(setup.protocol, [setup.spec(task, number) for task in names for number in numbers])
    # Before the workers start, which inherit the choice of a graphics library.
    declared.prepare(drawing=True)
    root, settings, circumstances = Path(root), setup.settings(), setup.circumstances()
    with ExitStack() as stack:
        stack.enter_context(FolderLock(root, "hilam record"))
        log = RecordingLog(root, settings, circumstances)
        provenance = settings | circumstances
        output = Output(_open_writers(root, setup.formats, provenance, stack), provenance)
        plan = RecordingPlan(
            names,
            episodes_per_task,
            setup.spec,
            most=len(numbers),
            has=lambda spec: output.has(declared.episode_id(spec)),
            log=log,
            replace_failures=only_successful,
            advice=setup.recording.advice,
        )
        log.save()
        demonstrator, options = setup.recording.demonstrator, setup.demonstrator_options()
        size = min(num_workers, len(plan))
        run = _Run(plan, stack.enter_context(WorkerPool(demonstrator, options, size, name="recorder")), output, log)
        run.run(progress=progress)
        log.save(finished=True)
    failures = tuple(failure for failure in log.failures if failure["task"] in names)
    return RecordingSummary(root, run.recorded, plan.kept, run.frames, time.monotonic() - started, failures)


def _open_writers(
    root: Path, formats: Sequence[str], provenance: dict[str, Any], stack: ExitStack
) -> list[DemonstrationWriter]:
    writers = []
    for name in formats:
        chosen = demonstration_formats()[name]
        assert chosen.writer is not None
        writers.append(stack.enter_context(chosen.writer(root / chosen.folder, provenance=provenance)))
    return writers


class _Run:
    """One call of `record`: gives planned episodes to workers and writes what comes back.

    Attributes:
        recorded: Episodes written so far.
        frames: Their frames.
    """

    def __init__(self, plan: RecordingPlan, pool: WorkerPool, output: Output, log: RecordingLog) -> None:
        self.recorded = self.frames = 0
        self._plan, self._pool, self._output, self._log = plan, pool, output, log
        self._running: dict[int, EpisodeSpec] = {}
        self._faults: Counter[EpisodeSpec] = Counter()
        # Finished, but the plan has earlier ones that are not: files must not depend on who ends first.
        self._held: dict[EpisodeSpec, RecordedDemonstration] = {}
        self._most_held = 2 * len(pool.workers)

    def run(self, *, progress: bool) -> None:
        """Run all planned episodes."""
        with tqdm(total=len(self._plan), desc="recording", unit="episode", disable=not progress) as bar:
            self._employ_idle_workers()
            while self._running:
                for row in self._pool.ready(self._running):
                    self._receive(row, bar)

    def _employ_idle_workers(self) -> None:
        for row in range(len(self._pool.workers)):
            if row not in self._running:
                self._begin_next(row)

    def _begin_next(self, row: int, task: str | None = None) -> None:
        """Give a worker an episode; none where it would only add to many that are held back."""
        if len(self._held) < self._most_held:
            spec = self._plan.next(task)
        else:
            first, order = self._plan.first(), self._plan.order
            spec = self._plan.next() if first and order(first) < min(map(order, self._held)) else None
        if spec is not None:
            self._begin(row, spec)

    def _begin(self, row: int, spec: EpisodeSpec) -> None:
        self._running[row] = spec
        try:
            self._pool.workers[row].send("record", spec, doing=str(spec))
        except WorkerError as error:
            self._begin_again(row, error)

    def _begin_again(self, row: int, error: WorkerError) -> None:
        """Begin a worker's episode again in a fresh one; what fails again is raised."""
        spec = self._running[row]
        self._faults[spec] += 1
        if self._faults[spec] >= ATTEMPTS:
            raise error
        logger.warning("attempt %d: %s", self._faults[spec], error)
        self._pool.replace(row)
        self._begin(row, spec)

    def _receive(self, row: int, bar: tqdm[Any]) -> None:
        try:
            demonstration: RecordedDemonstration = self._pool.workers[row].receive()
        except WorkerError as error:
            self._begin_again(row, error)
            return
        spec = self._running.pop(row)
        if not demonstration.success:
            self._log.add_failure(demonstration.id, spec, demonstration.num_frames)
        if demonstration.success or not self._plan.replaces_failures:
            self._held[spec] = demonstration
        else:
            self._plan.replace(spec)
        # The worker goes on while episodes are written, in the environment that it has, if it can.
        self._begin_next(row, spec.task)
        self._write_held(bar)
        self._employ_idle_workers()

    def _write_held(self, bar: tqdm[Any]) -> None:
        """Write the finished episodes before which the plan has none that is not finished."""
        order, first = self._plan.order, self._plan.first()
        unfinished = [order(spec) for spec in (*self._running.values(), *([first] if first else []))]
        for spec in sorted(self._held, key=order):
            if unfinished and order(spec) > min(unfinished):
                break
            demonstration = self._held.pop(spec)
            self._output.add(demonstration)
            self.recorded += 1
            self.frames += demonstration.num_frames
            bar.update()
            rate = self.frames / max(bar.format_dict["elapsed"], 1e-9)
            bar.set_postfix_str(f"{spec.task}, {rate:.0f} frames/s")
