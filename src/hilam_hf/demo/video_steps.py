"""The video half of the demo: videos to latent actions to skills. No step sees an action."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from .. import recording
from ..data.corpora.corpus import latent_actions_array, load_corpus
from ..data.corpora.extraction import extract_latent_actions, extract_skill_corpus
from ..data.corpora.info import CorpusInfo
from ..data.demonstrations.loader import load_demonstrations
from ..data.episodes import (
    Episode,
    RejectedVideo,
    possible_fraction,
    resolve_stride,
    scan_videos,
    split_episodes,
)
from ..data.samples.frame_pairs import FramePairDataset
from ..envs.registry import get_simulator
from ..evaluation.hilam import evaluate_hilam
from ..evaluation.lam import displacements, linear_probe, next_frame_errors
from ..evaluation.skills.timelines import draw_timeline
from ..files import path_inside
from ..models.hilam import HiLAMModel
from ..models.latent_actions.auto import AutoInverseDynamicsModel
from ..robots import EE_POSITIONS
from ..training.hilam import new_hilam, train_hilam
from ..training.lam.models import new_latent_action_model
from ..training.lam.train import train_lam
from ..training.run_folder import holds_run
from ..video import as_float_frames
from ..viz import plot_boundary_rates, plot_next_frames, plot_training_curves, save_figure
from .config import SIMULATOR, DemoConfig
from .paths import DemoPaths

EXAMPLES = 6


def record(config: DemoConfig, paths: DemoPaths) -> dict[str, Any]:
    """Records the scripted experts: videos for pretraining, actions kept apart from them."""
    summary = recording.record(
        paths.recordings,
        SIMULATOR,
        config.tasks,
        config.episodes_per_task,
        protocol=get_simulator(SIMULATOR).protocol().with_options(cameras=(config.camera,)),
        formats=["videos"],
        seed=config.seed,
        image_size=config.image_size,
        noise=config.expert_noise,
        num_workers=config.num_workers,
    )
    return {"failures": list(summary.failures), "detail": str(summary)}


def check_videos(config: DemoConfig, paths: DemoPaths) -> dict[str, Any]:
    """Decodes every video once, sets aside what can't be used, and holds some episodes out."""
    folder = scan_videos(paths.videos(config), check="all")
    usable, rejected = [], list(folder.rejected)
    for episode in folder.episodes:
        k = resolve_stride(
            episode.fps, frames=config.stride_options.get("stride"), seconds=config.stride_options.get("stride_seconds")
        )
        if episode.num_frames > k + 1:
            usable.append(episode)
        else:
            reason = f"it holds {episode.num_frames} frames; two latent actions take {k + 2}"
            rejected.append(RejectedVideo(episode.path, reason))
    if len(usable) < 2:
        raise ValueError(
            f"{folder.root}: {len(usable)} videos can be used; give at least 2, one to learn from, one to hold out"
        )
    # A few videos may all lie on one side of the fraction.
    fraction = possible_fraction([episode.id for episode in usable], config.held_out_fraction)
    training, held_out = split_episodes(usable, fraction)
    splits = {"training": training, "held_out": held_out}
    paths.episodes.write_text(json.dumps({name: [vars(e) for e in episodes] for name, episodes in splits.items()}))
    return {
        "episodes": {name: len(episodes) for name, episodes in splits.items()},
        "rejected": [vars(video) for video in rejected],
        "detail": f"{len(training)} videos to learn from, {len(held_out)} held out, {len(rejected)} set aside.",
    }


def load_episodes(config: DemoConfig, paths: DemoPaths) -> tuple[list[Episode], list[Episode]]:
    """Training and held-out episodes, as `check_videos` split them.

    Raises:
        ValueError: If one lies outside of the folder of videos.
    """
    splits = json.loads(paths.episodes.read_text())
    training, held_out = ([Episode(**values) for values in splits[name]] for name in ("training", "held_out"))
    root = paths.videos(config)
    for episode in (*training, *held_out):
        path_inside(root, os.path.relpath(episode.path, root), where=str(paths.episodes))
    return training, held_out


def train_latent_actions(config: DemoConfig, paths: DemoPaths) -> dict[str, Any]:
    """Trains inverse and forward dynamics on pairs of frames and measures them on held-out episodes."""
    training, held_out = load_episodes(config, paths)
    size = config.image_size
    options = {f"idm.{name}": value for name, value in config.idm.items()}
    options |= {f"fdm.{name}": value for name, value in config.fdm.items()}
    idm, fdm = new_latent_action_model(image_size=size, options=options, seed=config.seed)
    result = train_lam(
        idm,
        fdm,
        FramePairDataset(training, size, **config.stride_options),
        config.seeded(config.lam),
        output_dir=paths.lam,
        resume=holds_run(paths.lam),
    )
    save_figure(plot_training_curves({"loss": result.history["loss"]}), paths.figure("lam_training"))
    pairs = FramePairDataset(held_out, size, **config.stride_options, progress=False)
    shuffled = DataLoader(pairs, batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(config.seed))
    errors = next_frame_errors(idm, fdm, ((batch["frames"], batch["next_frames"]) for batch in shuffled))
    _draw_predictions(idm, fdm, pairs, paths.figure("next_frames"))
    return {
        "next_frame_error": errors.next_frame_error,
        "copy_error": errors.copy_error,
        "shuffled_error": errors.shuffled_error,
        "error_vs_copy": errors.error_vs_copy,
        "detail": f"Next-frame error on {len(held_out)} held-out episodes: {errors.error_vs_copy:.0%} of copying's.",
    }


@torch.no_grad()
def _draw_predictions(idm: Any, fdm: Any, pairs: FramePairDataset, path: Path) -> None:
    """Figure 5: predicted next frames of evenly spaced held-out pairs."""
    chosen = [pairs[index] for index in np.linspace(0, len(pairs) - 1, EXAMPLES + 2, dtype=int)[1:-1]]
    current = as_float_frames(torch.stack([pair["frames"] for pair in chosen]))
    target = as_float_frames(torch.stack([pair["next_frames"] for pair in chosen]))
    predicted = fdm.predict(current, idm.encode(current, target))
    errors = {
        "squared error, predicted": (predicted - target).square().mean((1, 2, 3)),
        "squared error, copy": (current - target).square().mean((1, 2, 3)),
    }
    save_figure(plot_next_frames(current, predicted, target, baseline=current, errors=errors), path)


def extract(config: DemoConfig, paths: DemoPaths) -> dict[str, Any]:
    """Writes the latent-action corpus; where true motion is known, probes the latent actions for it."""
    training, held_out = load_episodes(config, paths)
    idm = AutoInverseDynamicsModel.from_pretrained(paths.lam / "idm").eval()
    extraction = extract_latent_actions(
        idm,
        [*training, *held_out],
        paths.latent_actions,
        root=paths.videos(config),
        model_name=paths.relative(paths.lam / "idm"),
        **config.stride_options,
        validation_ids={episode.id for episode in held_out},
        overwrite=True,
    )
    info = extraction.info
    result: dict[str, Any] = {
        "rejected": [vars(video) for video in extraction.rejected],
        "detail": f"{info.num_latents} latent actions of {info.num_episodes} episodes.",
    }
    if config.videos is None:
        probe = _probe(config, paths)
        result |= {"probe_r2": probe.r2, "probe_r2_per_axis": list(probe.r2_per_dimension)}
        result["detail"] += (
            f" A linear probe finds the end-effector's displacement in them: R² {probe.r2:.2f}, held out."
        )
    return result


def _probe(config: DemoConfig, paths: DemoPaths) -> Any:
    """Linear probe from latent action to the end-effector's displacement, fitted to train, measured on validation."""
    demonstrations = load_demonstrations(paths.recordings)
    positions = {each.id: each.proprioception[EE_POSITIONS].astype(np.float64) for each in demonstrations}
    arrays = []
    for split in ("train", "validation"):
        corpus = load_corpus(paths.latent_actions, split)
        arrays.append(np.concatenate([latent_actions_array(corpus, row) for row in range(len(corpus))]))
        arrays.append(displacements([positions[name] for name in corpus["id"]], config.stride))
    return linear_probe(*arrays)


def train_skills(config: DemoConfig, paths: DemoPaths) -> dict[str, Any]:
    """Trains HiLAM on the latent-action corpus and measures it on the held-out episodes."""
    info = CorpusInfo.from_card(paths.latent_actions)
    idm = AutoInverseDynamicsModel.from_pretrained(paths.lam / "idm")
    model = new_hilam(info, "tiny", idm=idm, seed=config.seed, skill_stage=config.skill_stage, **config.hilam_model)
    result = train_hilam(
        model,
        load_corpus(paths.latent_actions),
        info,
        config.seeded(config.hilam),
        output_dir=paths.hilam,
        resume=holds_run(paths.hilam),
    )
    curves = {name: result.history[name] for name in ("latent_loss", "ratio_loss")}
    save_figure(plot_training_curves(curves), paths.figure("hilam_training"))
    targets = {stage: 1 / ratio for stage, ratio in enumerate(model.config.target_ratios, start=1)}
    rates = {stage: result.history[f"boundary_rates/{stage - 1}"] for stage in targets}
    save_figure(plot_boundary_rates(rates, targets), paths.figure("boundary_rates"))
    held_out = load_corpus(paths.latent_actions, "validation")
    sequences = [torch.tensor(latent_actions_array(held_out, row)) for row in range(len(held_out))]
    summary = evaluate_hilam(model, sequences)
    return {
        "next_latent_error": summary.next_latent_error,
        "repeat_error": summary.repeat_error,
        "error_vs_repeat": summary.error_vs_repeat,
        "stages": [vars(stage) for stage in summary.stages],
        "detail": f"Next-latent error {summary.error_vs_repeat:.0%} of repeating's; "
        + ", ".join(
            f"stage {s.stage} boundary rate {s.boundary_rate:.2f} ({s.target_rate:.2f}), {s.one_step_share:.0%} of the "
            "segments one step long"
            for s in summary.stages
        ),
    }


def extract_skills(config: DemoConfig, paths: DemoPaths) -> dict[str, Any]:
    """Writes the skill corpus and draws timelines of held-out episodes."""
    info = CorpusInfo.from_card(paths.latent_actions)
    splits = {split: load_corpus(paths.latent_actions, split) for split in info.splits}
    extraction = extract_skill_corpus(
        HiLAMModel.from_pretrained(paths.hilam / "hilam"),
        splits,
        info,
        paths.latent_skills,
        model_name=paths.relative(paths.hilam / "hilam"),
        overwrite=True,
    )
    rows = load_corpus(paths.latent_skills, "validation")
    drawn = np.unique(np.linspace(0, len(rows) - 1, config.timelines, dtype=int))
    stages = sorted(extraction.info.skill_dims)
    for number, row in enumerate(drawn):
        save_figure(draw_timeline(rows[int(row)], stages, paths.videos(config)), paths.figure(f"timeline_{number}"))
    segments = {str(stage): count for stage, count in extraction.info.segments.items()}
    return {
        "num_episodes": extraction.info.num_episodes,
        "num_segments": segments,
        "timelines": len(drawn),
        "detail": "Segments: " + ", ".join(f"stage {stage}: {count}" for stage, count in segments.items()) + ".",
    }
