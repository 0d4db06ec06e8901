"""Rollouts of a policy in parallel simulators, with success rates, videos and a provenance record."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ...envs.contract import Simulator
from ...envs.options import check_least
from ...envs.pool import WorkerPool
from ...envs.protocols import EpisodeSpec, EvaluationProtocol, plan_episodes
from ...envs.registry import get_protocol, get_simulator, simulator_names
from ...envs.rendering import RenderQuality, check_render_gpus
from ...envs.workers import WorkerError
from ...locks import FolderLock
from ...video.orientation import orient_frames
from ..provenance import PACKAGES, lighting_warning, machine, package_versions, policy_record
from .journal import Journal
from .policies import HOST_EXTRAS, Policy, acting_as_evaluated, check_fit, prediction_batch_size, spec_of
from .results import RESULTS_FILE, EpisodeResult, EvaluationResult, load_results
from .scheduler import Episode, Scheduler

logger = logging.getLogger(__name__)


def evaluate(
    policy: Policy,
    tasks: str | Sequence[str | int] | None = None,
    *,
    protocol: str | EvaluationProtocol | None = None,
    suite: str | None = None,
    episodes: int | Sequence[int] | None = None,
    num_envs: int = 2,
    seed: int | None = None,
    quality: str | None = None,
    out_dir: str | Path | None = None,
    videos_per_task: int = 1,
    render: bool = True,
    policy_name: str | None = None,
    policy_batch_size: int | None = None,
    assets: str | Path | None = None,
    render_gpus: Sequence[int] = (),
    step_timeout_s: float = 120,
    reset_timeout_s: float = 600,
    resume: bool = True,
    overwrite: bool = False,
    progress: bool = True,
) -> EvaluationResult:
    """Roll a policy out in a protocol's simulator and count successes.

    Simulators run in processes of their own, each on a fixed row of the policy's batch. None waits for another: the
    policy takes a step of all that have answered, and one that is done begins the next episode. Results depend neither
    on the number of simulators nor on the order in which episodes end, for policies that treat rows independently: bit
    for bit where rows are predicted one at a time (`policy_batch_size=1`, as on a CPU), and in fixed batches as far as
    the device's kernels treat the rows of a batch alike.

    An episode that the simulator spoils (its process dies, hangs, raises an error or gives NaN) is run again once, in
    a fresh process; after that it counts as failed and is listed under `faults`.

    With `out_dir` finished episodes are kept in `episodes.jsonl`, and a run that was interrupted goes on when it is
    called again with the same settings. At its end there are `results.json`, `results.md` and `videos/`.

    Args:
        policy: The policy; see `Policy`.
        tasks: Names of the simulator's tasks, such as `drawer-open` or `libero_goal/3`; numbers with `suite`.
        protocol: All that decides what a success rate means: a name of `protocol_names`, or one of them with changes;
            None for the default simulator's first.
        suite: A suite of the simulator, such as `libero_10`: all its tasks, or those whose numbers `tasks` gives.
        episodes: Numbers of each task's episodes, which are those of the initial states where the protocol fixes them;
            a single number n for 0 to n - 1; None for the protocol's.
        num_envs: Simulators run in parallel.
        seed: Seed of the evaluation; None for the protocol's.
        quality: Rendering quality, see `RenderQuality`; None for the simulator's own choice.
        out_dir: Folder of the results; None writes nothing.
        videos_per_task: How many episodes of each task, the first ones, become videos. Needs `out_dir`.
        render: Whether there are pictures at all; without them a policy acts on state alone and there are no videos.
        policy_name: Name or path of the policy for the record.
        policy_batch_size: Rows that the policy predicts at once; None for 1 on a CPU and 16 on other devices.
        assets: Folder of the simulator's assets, for one that takes some; None leaves the search to it.
        render_gpus: Numbers of the GPUs that draw (EGL's), taken in turns by the simulators.
        step_timeout_s: Seconds after which a step counts as hung.
        reset_timeout_s: Seconds after which a reset, which may start a process, counts as hung.
        resume: Whether to go on with what `out_dir` holds; otherwise it must hold no evaluation.
        overwrite: Whether to remove an evaluation that `out_dir` holds.
        progress: Whether to show a progress bar.

    Returns:
        Episodes, success rates with Wilson 95 % intervals, provenance.

    Raises:
        ValueError: A task or option is not valid, `out_dir` holds an evaluation with other settings, the policy does
            not fit the protocol, or it returned NaN or a wrong shape; the message names the task, the seed and the
            step.
        FolderInUseError: Another evaluation writes into `out_dir`.
        OSError, ImportError: A simulator, its assets or a renderer is missing.
        WorkerError: The simulators failed before any episode came to its end; what there is of results is written.

    Example:
        >>> result = evaluate(ExpertPolicy(), ["drawer-open", "door-open"], episodes=5)
        >>> print(result.tasks["drawer-open"])
        100 % (5/5, 95 % interval 57-100 %)
    """
    chosen = get_protocol(protocol)
    simulator = get_simulator(chosen.simulator)
    numbers = list(range(episodes)) if isinstance(episodes, int) else episodes
    specs = plan_episodes(chosen, simulator.task_names(tasks, suite), seed=seed, episodes=numbers)
    check_least(num_envs=(num_envs, 1), videos_per_task=(videos_per_task, 0))
    spec = spec_of(policy)
    check_fit(policy, chosen, render=render)
    batch_size = prediction_batch_size(policy, policy_batch_size)
    quality = RenderQuality(quality or simulator.quality).value
    options: dict[str, Any] = {"protocol": chosen, "quality": quality, "render": render}
    options["extras"] = tuple(extra for extra in spec.extra_observations if extra in HOST_EXTRAS)
    options["noise"] = spec.expert_noise
    options |= simulator.host_options(assets)
    simulator.check_episodes(chosen, specs)
    simulator.prepare(drawing=render)
    check_render_gpus(render_gpus if render else ())
    out = None if out_dir is None else Path(out_dir)
    with ExitStack() as stack:
        if out is not None:
            stack.enter_context(FolderLock(out, "hilam eval"))
        stack.enter_context(acting_as_evaluated(policy, chosen, batch_size))
        pool = stack.enter_context(WorkerPool(simulator.host, options, min(num_envs, len(specs)), gpus=render_gpus))
        provenance = {
            # How it acts within this evaluation.
            "policy": policy_record(policy, spec_of(policy), policy_name),
            "policy_batch_size": batch_size,
            "training_data": spec.training_data,
            "simulator": pool.ask(0, "provenance", reset_timeout_s),
            "quality": quality,
            "render": render,
            "videos_per_task": videos_per_task if out is not None and render else 0,
            **_plan_record(chosen, specs),
            "packages": package_versions((*PACKAGES, *_simulator_packages())),
        }
        provenance["warnings"] = _warnings(provenance)
        run = _Run(policy, simulator, chosen, specs, pool, provenance, out)
        if out is not None:
            settings = {"protocol": chosen.to_dict(), "provenance": provenance}
            run.journal = stack.enter_context(Journal(out, settings, resume=resume, overwrite=overwrite))
        run.run(step_timeout_s, reset_timeout_s, progress=progress)
        result = EvaluationResult(
            episodes=run.results(), protocol=chosen.to_dict(), provenance={**provenance, "run": run.whole_record()}
        )
        if out is not None:
            result.save(out)
    if not result.num_completed:
        last = result.faults[-1]["message"]
        again = "" if out is None else f", then evaluate again, overwriting {out}"
        raise WorkerError(
            f"no episode of {len(result.episodes)} came to its end, so there is no success rate: faults of the "
            f"simulator, the last: {last}; see `hilam doctor`{again}"
        )
    return result


class _Run:
    """One call of `evaluate`: what is left to do, what has been done, and what it took."""

    def __init__(
        self,
        policy: Policy,
        simulator: Simulator,
        protocol: EvaluationProtocol,
        specs: Sequence[EpisodeSpec],
        pool: WorkerPool,
        provenance: Mapping[str, Any],
        out: Path | None,
    ) -> None:
        self.policy, self.simulator, self.protocol = policy, simulator, protocol
        self.specs, self.pool, self.out = specs, pool, out
        self.render: bool = provenance["render"]
        self.num_filmed: int = provenance["videos_per_task"]
        self.journal: Journal | None = None
        self.record: dict[str, Any] = {}
        self._done: dict[tuple[str, int | None, int], EpisodeResult] = {}

    def run(self, step_timeout: float, reset_timeout: float, *, progress: bool) -> None:
        """Run all episodes that no earlier call has finished."""
        if self.journal is not None:
            self._done = {episode.key: episode for episode in self.journal.finished}
        resumed = len(self._done)
        left = [Episode(spec, filmed=filmed) for spec, filmed in self._films() if _key(spec) not in self._done]
        self.pool.shrink(min(len(self.pool.workers), len(left)))
        start = time.perf_counter()
        with tqdm(total=len(self.specs), initial=resumed, desc="rollouts", unit="episode", disable=not progress) as bar:
            scheduler = Scheduler(
                self.policy,
                self.protocol,
                left,
                self.pool,
                render=self.render,
                step_timeout=step_timeout,
                reset_timeout=reset_timeout,
                finished=lambda episode, completed: self._finish(episode, completed, bar),
            )
            scheduler.run()
        seconds = time.perf_counter() - start
        self.record = {
            "num_envs": len(self.pool.workers),
            "episodes_resumed": resumed,
            "seconds": round(seconds, 3),
            "environment_steps": scheduler.steps,
            "environment_steps_per_second": round(scheduler.steps / max(seconds, 1e-9), 1),
            "worker_memory_bytes": self.pool.memory(step_timeout),
            "machine": machine(),
        }

    def whole_record(self) -> dict[str, Any]:
        """What it took; where an earlier call has finished all episodes, what that call noted."""
        if self.out is None or self.record["episodes_resumed"] < len(self.specs):
            return self.record
        file = self.out / RESULTS_FILE
        former = load_results(file).get("provenance", {}) if file.is_file() else {}
        return former.get("run", self.record)

    def results(self) -> tuple[EpisodeResult, ...]:
        """The episodes in the order of the plan."""
        return tuple(self._done[_key(spec)] for spec in self.specs)

    def _films(self) -> list[tuple[EpisodeSpec, bool]]:
        """Episodes, and whether they become videos: the first ones of each task."""
        seen: dict[str, int] = {}
        films = []
        for spec in self.specs:
            seen[spec.task] = seen.get(spec.task, 0) + 1
            films.append((spec, seen[spec.task] <= self.num_filmed))
        return films

    def _finish(self, episode: Episode, completed: bool, bar: tqdm[Any]) -> None:
        video = None
        if completed and episode.filmed and self.out is not None:
            video = write_episode_video(self.out, episode, self.simulator, self.protocol)
        result = episode.result(completed=completed, video=video)
        if self.journal is not None:
            self.journal.add(result)
        self._done[result.key] = result
        successes = sum(done.success for done in self._done.values())
        bar.update()
        bar.set_postfix_str(f"success {successes}/{len(self._done)}, {result.task}")


def write_episode_video(folder: Path, episode: Episode, simulator: Simulator, protocol: EvaluationProtocol) -> str:
    """Write an episode's pictures as a video, the right way up.

    Args:
        folder: Folder of the results.
        episode: A filmed episode; its pictures are dropped.
        simulator: Says which way up its pictures are.
        protocol: Says what has been done to them.

    Returns:
        Path relative to `folder`, such as `videos/drawer-open-1000000-success.mp4`.
    """
    import torch

    from ...video import write_video

    outcome = "success" if episode.success else "failure"
    path = Path("videos") / f"{episode.spec.task.replace('/', '-')}-{episode.spec.seed}-{outcome}.mp4"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    pictures = np.stack(episode.frames)
    if simulator.bottom_row_first and protocol.image_transform == "none":
        pictures = np.ascontiguousarray(orient_frames(pictures, "none", "flip_vertical"))
    write_video(folder / path, torch.from_numpy(pictures).permute(0, 3, 1, 2), episode.fps)
    episode.frames.clear()
    return path.as_posix()


def _key(spec: EpisodeSpec) -> tuple[str, int | None, int]:
    return spec.task, spec.initial_state, spec.seed


def _plan_record(protocol: EvaluationProtocol, specs: Sequence[EpisodeSpec]) -> dict[str, Any]:
    """What a record says of the episodes."""
    states = {spec.initial_state for spec in specs} - {None}
    return {
        "tasks": list(dict.fromkeys(spec.task for spec in specs)),
        "episodes": sorted({spec.index for spec in specs}),
        "initial_states": sorted(states) if states else "drawn by the seed",
        "seeds": sorted({spec.seed for spec in specs}),
        "settle_steps": protocol.settle_steps,
        "cameras": list(protocol.cameras),
        "image_transform": protocol.image_transform,
    }


def _simulator_packages() -> list[str]:
    """The packages of all simulators, so that results differ in no more than what is installed."""
    return [package for name in simulator_names() for package in get_simulator(name).packages]


def _warnings(provenance: Mapping[str, Any]) -> list[str]:
    """What may spoil the result, which is also logged."""
    recorded = (provenance["training_data"] or {}).get("mujoco")
    found = lighting_warning(recorded, provenance["simulator"].get("mujoco")) if provenance["render"] else None
    warnings = [] if found is None else [f"the policy's training data were drawn otherwise: {found}"]
    for warning in warnings:
        logger.warning(warning)
    return warnings
