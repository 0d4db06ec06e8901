"""The demo's steps in order, each with a plain account of what it does."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from datasets.utils.logging import disable_progress_bar as hide_datasets_progress
from rich.console import Console
from transformers.utils import logging as transformers_logging

from ..data.episodes import scan_videos
from ..envs.registry import get_simulator
from ..envs.seeds import demonstration_seed
from ..locks import FolderLock
from . import policy_steps, video_steps
from .config import SIMULATOR, DemoConfig
from .paths import DemoPaths
from .policy_steps import WITH, WITHOUT
from .report import DemoReport, make_report
from .state import DemoRun

Step = Callable[[DemoConfig, DemoPaths], dict[str, Any]]


def run_demo(config: DemoConfig, folder: str | Path, *, overwrite: bool = False) -> DemoReport:
    """Runs every step that has not been done in `folder` yet, then writes `report.html` and `report.json`.

    Args:
        config: What to do.
        folder: Where all artifacts go.
        overwrite: Start afresh where the folder holds another run.

    Raises:
        ValueError: For an unknown task, a folder that holds something else, or videos that can't be used.
        FolderInUseError: If another demo works in the folder.
    """
    get_simulator(SIMULATOR).task_names(config.tasks)
    if config.videos is None:
        demonstration_seed(config.seed, 0)
    else:
        # Before the folder is made: a later step decodes them all.
        scan_videos(config.videos, progress=False)
    # The steps show progress of their own.
    transformers_logging.disable_progress_bar()
    hide_datasets_progress()
    # Each step holds the lock of the folder that it writes in, below this one.
    with FolderLock(folder, "hilam demo"):
        run = DemoRun(config, Path(folder), overwrite=overwrite, console=Console())
        paths = DemoPaths(run.folder)
        for name, account, step in _steps(config):
            run.step(name, account, partial(step, config, paths))
        report = make_report(config, paths, run.steps)
        run.finish()
    return report


def _steps(config: DemoConfig) -> list[tuple[str, str, Step]]:
    steps: list[tuple[str, str, Step]] = []
    if config.videos is None:
        simulator = get_simulator(SIMULATOR)
        tasks = ", ".join(map(simulator.instruction, config.tasks))
        steps.append(
            (
                "record",
                f"Scripted experts of {simulator.title} do {len(config.tasks)} tasks ({tasks}), "
                f"{config.episodes_per_task} times each. Their videos are the training data; their "
                "actions are put away.",
                video_steps.record,
            )
        )
    steps += [
        (
            "check the videos",
            "Every video is decoded once; what can't be used is set aside, and a tenth is held out to measure on.",
            video_steps.check_videos,
        ),
        (
            "train latent actions",
            "An inverse dynamics model looks at two frames and says in 64 numbers what happened between them; a "
            "forward dynamics model has to draw the second frame from the first and those numbers. Both learn from "
            "pixels alone.",
            video_steps.train_latent_actions,
        ),
        (
            "extract latent actions",
            "The inverse dynamics model labels every frame of every video: the latent-action corpus.",
            video_steps.extract,
        ),
        (
            "train HiLAM",
            "HiLAM learns to predict the next latent action, and on the way cuts the sequences into segments of "
            "variable length, twice over.",
            video_steps.train_skills,
        ),
        (
            "extract skills",
            "The segments and the vector that stands for each are the latent skills: the latent-skill corpus.",
            video_steps.extract_skills,
        ),
    ]
    if config.videos is None:
        steps += [
            (
                "pretrain the policy",
                "From a frame and the instruction, the high-level policy learns to name the skill; from the frame and "
                "that skill, the low-level policy learns the latent action. Still no real action has been seen.",
                policy_steps.pretrain,
            ),
            (
                "fine-tune with pretraining",
                f"The high level is frozen; the low level learns real actions from {config.demonstrations_per_task} "
                "demonstrations of each task.",
                partial(policy_steps.finetune, arm=WITH),
            ),
            (
                "fine-tune without pretraining",
                "For comparison, the same policy from scratch, both levels trained end to end on the same "
                "demonstrations for as many steps.",
                partial(policy_steps.finetune, arm=WITHOUT),
            ),
            (
                "roll out with pretraining",
                f"The policy acts {config.rollouts_per_task} times in each task, from initial states it has not seen.",
                partial(policy_steps.roll_out, arm=WITH),
            ),
            (
                "roll out without pretraining",
                "The policy from scratch acts from the same initial states.",
                partial(policy_steps.roll_out, arm=WITHOUT),
            ),
        ]
    return steps
