"""Policies from corpora and demonstrations: what `hilam train policy`, `hilam train finetune` and `examples` do."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.corpora.corpus import load_corpus
from ...data.corpora.info import CorpusInfo
from ...data.demonstrations.actions import GripperConvention
from ...data.demonstrations.loader import Demonstrations, load_demonstrations
from ...data.episodes import scan_videos
from ...data.hub_folder import dataset_folder
from ...data.samples.policy import PolicyDataset
from ...envs.protocols import EvaluationProtocol
from ...envs.registry import get_protocol, get_simulator
from ...models.hierarchical import HierarchicalPolicy
from ...video.orientation import ImageTransform
from ..config import TrainingConfig
from ..held_out import check_held_out
from ..loop import TrainingResult
from ..processes import process_state
from ..run_folder import open_run_folder
from .models import new_policy
from .train import WRITES, FinetuningConfig, finetune_policy, pretrain_policy

logger = logging.getLogger(__name__)


def pretrain_on_corpus(
    corpus: str,
    videos: str | Path,
    config: TrainingConfig,
    *,
    output_dir: str | Path,
    stage: int = 2,
    camera: str = "workspace",
    image_size: int = 64,
    held_out_fraction: float = 0.0,
    resume: bool = False,
    overwrite: bool = False,
) -> TrainingResult:
    """Pretrains a new policy on videos labelled with skills and saves it as `output_dir/policy`.

    Args:
        corpus: Latent-skill corpus: Hub id or folder.
        videos: Folder of the videos that it was made from.
        config: Training options.
        output_dir: Folder for checkpoints, history and the trained policy.
        stage: Stage whose skills π^h predicts.
        camera: Name of the camera that the videos show.
        image_size: Side in pixels of the frames that the policy sees.
        held_out_fraction: Fraction of the episodes, by a hash of their ids, to validate on every
            `config.validate_every` steps.
        resume: Go on with the run that is in `output_dir`.
        overwrite: Replace it.

    Raises:
        FileNotFoundError: There is no such folder of videos.
        ValueError: An episode of the corpus has no video, or an option is not valid.
        OSError: The corpus can't be had, or the disk is full.
    """
    check_held_out(config, held_out_fraction)
    inputs = [corpus, videos]
    with open_run_folder(output_dir, resume=resume, overwrite=overwrite, inputs=inputs, writes=WRITES) as folder:
        info = CorpusInfo.from_card(corpus)
        policy = new_policy(info, stage=stage, cameras=[camera], image_size=image_size, seed=config.seed)
        dataset = PolicyDataset.from_skill_corpus(
            load_corpus(corpus),
            scan_videos(videos, progress=_shows_progress()).episodes,
            image_size,
            stage,
            info=info,
            camera=camera,
            progress=_shows_progress(),
        )
        training, held_out = dataset.split(held_out_fraction)
        kept_out = held_out if held_out_fraction else None
        return pretrain_policy(policy, training, config, output_dir=folder, held_out=kept_out)


def finetune_on_demonstrations(
    policy: str,
    demonstrations: str | Path,
    config: FinetuningConfig,
    *,
    output_dir: str | Path,
    protocol: str | EvaluationProtocol | None = None,
    suite: str | None = None,
    tasks: Sequence[str | int] | None = None,
    per_task: int | None = None,
    chunk_size: int = 10,
    cameras: Sequence[str] | None = None,
    rename_cameras: Mapping[str, str] | None = None,
    image_transform: ImageTransform | None = None,
    proprioception: str | None = None,
    gripper: GripperConvention | None = None,
    action_scale: float | None = None,
    held_out_fraction: float = 0.0,
    resume: bool = False,
    overwrite: bool = False,
) -> TrainingResult:
    """Fine-tunes a pretrained policy and saves the one that acts as `output_dir/policy`.

    Args:
        policy: Pretrained policy: Hub id or folder.
        demonstrations: What `load_demonstrations` opens: a folder that `hilam record` wrote, LIBERO's official HDF5
            files, or a LeRobot dataset of LIBERO (folder or Hub id).
        config: Training options.
        output_dir: Folder for checkpoints, history and the trained policy, whose config tells of the demonstrations.
        protocol: Protocol under which the policy will be evaluated: it decides how pictures lie and what `agent_pos` is
            made of. None for the robot's usual ways.
        suite: A suite of the protocol's simulator: all its tasks are learnt, or those whose numbers `tasks` gives.
        tasks: Tasks to learn, by name or instruction; None for all of the demonstrations.
        per_task: Demonstrations of each task, the first by id; None for all.
        chunk_size: Q, actions predicted at a time.
        cameras: Cameras that π^l sees, the pretrained one first; None for all of the robot's.
        rename_cameras: New names of the pretrained policy's cameras, as {old: new}, where demonstrations have others.
        image_transform: How pictures shall lie, where that is not the protocol's choice.
        proprioception: What `agent_pos` is made of, where that is not the protocol's choice.
        gripper: What a gripper of 0 to 1 means, as in `load_demonstrations`.
        action_scale: Factor of all numbers of an action but the gripper, likewise.
        held_out_fraction: Fraction of the demonstrations, by a hash of their ids, to validate on every
            `config.validate_every` steps.
        resume: Go on with the run that is in `output_dir`.
        overwrite: Replace it.

    Raises:
        FileNotFoundError: There are no demonstrations.
        ValueError: A task, camera or option is not valid, or a file is damaged.
        OSError: The policy or a dataset can't be had, or the disk is full.
    """
    if protocol is not None:
        protocol = get_protocol(protocol)
        image_transform = image_transform or protocol.image_transform
        proprioception = proprioception or protocol.proprioception
    names = tasks if suite is None else _tasks_of_suite(protocol, suite, tasks)
    check_held_out(config, held_out_fraction)
    inputs = [policy, demonstrations]
    with open_run_folder(output_dir, resume=resume, overwrite=overwrite, inputs=inputs, writes=WRITES) as folder:
        actor = HierarchicalPolicy.from_pretrained(policy)
        recording = load_demonstrations(
            dataset_folder(demonstrations),
            tasks=None if names is None else [str(name) for name in names],
            per_task=per_task,
            cameras=cameras,
            image_transform=image_transform,
            proprioception=proprioception,
            gripper=gripper,
            action_scale=action_scale,
        )
        dataset = PolicyDataset.from_demonstrations(
            recording, actor.config.low_config.image_size, chunk_size, progress=_shows_progress()
        )
        training, held_out = dataset.split(held_out_fraction)
        _prepare(actor, dataset, chunk_size, dict(rename_cameras or {}), config.seed)
        conversion = {"gripper": gripper, "action_scale": action_scale}
        actor.config.training_data = _record(recording) | conversion
        kept_out = held_out if held_out_fraction else None
        return finetune_policy(actor, training, config, output_dir=folder, held_out=kept_out)


def _tasks_of_suite(protocol: EvaluationProtocol | None, suite: str, numbers: Sequence[str | int] | None) -> list[str]:
    """What recordings call the tasks of a suite."""
    if protocol is None:
        raise ValueError(f"suite {suite!r}: give the protocol, too, which says of which simulator")
    simulator = get_simulator(protocol.simulator)
    return [simulator.recorded_task(task) for task in simulator.task_names(numbers, suite)]


def _prepare(
    actor: HierarchicalPolicy, dataset: PolicyDataset, chunk_size: int, renames: dict[str, str], seed: int
) -> None:
    """Give the policy the robot's actions, cameras and proprioception."""
    high: Any = actor.config.high_config
    known = [renames.get(camera, camera) for camera in high.cameras]
    if missing := [camera for camera in known if camera not in dataset.cameras]:
        raise ValueError(
            f"the policy was pretrained on camera {', '.join(missing)}, but the demonstrations have "
            f"{', '.join(dataset.cameras)}: say which of these it is, with rename_cameras "
            f"(--rename-camera {missing[0]}={dataset.cameras[0]})"
        )
    sample = dataset[0]
    fresh = actor.prepare_for_finetuning(
        action_dim=sample["actions"].shape[-1],
        chunk_size=chunk_size,
        agent_pos_dim=sample["agent_pos"].shape[-1],
        cameras=dataset.cameras,
        rename_cameras=renames,
        seed=seed,
    )
    if _shows_progress():
        logger.warning("starting fresh: %s", ", ".join(fresh))


def _record(demonstrations: Demonstrations) -> dict[str, Any]:
    """What has to be known of the demonstrations where the policy is evaluated."""
    first = demonstrations[0]
    # What `hilam record` wrote; nothing is known of others.
    told = first.metadata.get("metadata", {})
    renderer = told.get("renderer") or {}
    return {
        "demonstrations": len(demonstrations),
        "episodes": [episode.id for episode in demonstrations],
        "sources": sorted({episode.source for episode in demonstrations}),
        "tasks": sorted({episode.task for episode in demonstrations}),
        "cameras": list(demonstrations.cameras),
        "image_transform": first.image_transform,
        "proprioception": first.layout,
        "mujoco": told.get("mujoco"),
        "quality": renderer.get("quality"),
        "assets_fingerprint": told.get("assets_fingerprint"),
    }


def _shows_progress() -> bool:
    return process_state().is_main_process


def parse_renames(options: Sequence[str]) -> dict[str, str]:
    """Reads `OLD=NEW` options of cameras' names.

    Raises:
        ValueError: One has another form.
    """
    renames = {}
    for option in options:
        old, separator, new = option.partition("=")
        if not (old and separator and new):
            raise ValueError(f"--rename-camera: got {option!r}, expected OLD=NEW, such as workspace=agentview")
        renames[old] = new
    return renames
