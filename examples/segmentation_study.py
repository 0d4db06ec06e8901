"""Compare HiLAM's segments with the phases of recorded demonstrations, beside baselines on the same latent actions.

Record demonstrations with `hilam record`, then run

    python examples/segmentation_study.py --demonstrations recordings --out study

The latent action model and the latent actions are kept in `--out` and used again by the next run, so that trying other
options of HiLAM costs only its training: `--hilam-option target_ratios=[8.0,2.0] --training max_steps=1000`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import Dataset, Features
from rich.console import Console
from rich.table import Table

from hilam_hf.data.corpora.corpus import load_corpus
from hilam_hf.data.corpora.extraction import extract_latent_actions
from hilam_hf.data.corpora.info import CorpusInfo
from hilam_hf.data.demonstrations.loader import load_demonstrations
from hilam_hf.data.demonstrations.phases import demonstration_phases
from hilam_hf.data.demonstrations.videos import VIDEOS, demonstration_videos
from hilam_hf.data.episodes import Episode, scan_videos, split_episodes
from hilam_hf.data.samples.frame_pairs import FramePairDataset
from hilam_hf.evaluation.segmentation.figures import plot_f1_bars, plot_segmentations
from hilam_hf.evaluation.segmentation.study import (
    MethodScores,
    StudyData,
    conclusion,
    load_study_data,
    score_baselines,
    score_hilam,
)
from hilam_hf.locks import FolderLock
from hilam_hf.models.hilam import HiLAMModel
from hilam_hf.models.latent_actions.auto import AutoInverseDynamicsModel
from hilam_hf.training import TrainingConfig, load_config
from hilam_hf.training.hilam import new_hilam, train_hilam
from hilam_hf.training.lam.models import new_latent_action_model
from hilam_hf.training.lam.train import train_lam
from hilam_hf.viz import save_figure

HILAM_TRAINING = ("max_steps=300", "global_batch_size=16", "learning_rate=1e-3")
LAM_TRAINING = ("max_steps=500", "global_batch_size=32", "learning_rate=1e-3")
# A stage-1 segment of 6 x 3 latent actions is as long as a phase of the scripted experts.
HILAM_OPTIONS = ("target_ratios=[6.0,2.0]", "lambda_ratio=3.0")
EPISODES_DRAWN = 6


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--demonstrations", type=Path, required=True, help="folder that `hilam record` wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for models, latent actions and results")
    parser.add_argument("--idm", help="trained inverse dynamics model (Hub id or folder); otherwise one is trained")
    parser.add_argument("--hilam", help="trained HiLAM (Hub id or folder); otherwise one is trained")
    parser.add_argument("--preset", default="tiny", help="size of HiLAM")
    parser.add_argument("--stride", type=int, default=5, help="k, frames between the two frames of a latent action")
    parser.add_argument("--hop", type=int, default=3, help="HiLAM sees every hop-th latent action")
    parser.add_argument("--learned-routing", action="store_true", help="let boundaries compare learned projections")
    parser.add_argument("--image-size", type=int, default=64, help="side of the frames that the models see")
    parser.add_argument("--held-out", type=float, default=0.25, help="fraction of the episodes that is scored")
    parser.add_argument("--min-phase", type=int, default=3, help="shorter phases count to the phase before them")
    parser.add_argument("--tolerance", type=int, default=3, help="steps between boundaries that still match")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the order of samples")
    parser.add_argument("--training", nargs="*", default=(), metavar="KEY=VALUE", help="options of HiLAM's training")
    parser.add_argument("--lam-training", nargs="*", default=(), metavar="KEY=VALUE", help="options of the LAM's")
    parser.add_argument("--hilam-option", nargs="*", default=(), metavar="KEY=VALUE", help="fields of HiLAMConfig")
    parser.add_argument("--overwrite", action="store_true", help="make models and latent actions anew")
    return parser.parse_args(arguments)


def training_config(defaults: Sequence[str], overrides: Sequence[str], seed: int) -> TrainingConfig:
    return load_config(TrainingConfig, overrides=[*defaults, *overrides, f"seed={seed}"])


def train_latent_actions(options: argparse.Namespace, episodes: list[Episode]) -> None:
    """Trains inverse and forward dynamics on the training episodes and saves them below `--out`."""
    size = options.image_size
    sizes = {"idm.hidden_size": 96, "idm.num_hidden_layers": 3, "fdm.hidden_size": 48}
    idm, fdm = new_latent_action_model(image_size=size, options=sizes, seed=options.seed)
    pairs = FramePairDataset(episodes, size, stride=options.stride)
    config = training_config(LAM_TRAINING, options.lam_training, options.seed)
    train_lam(idm, fdm, pairs, config, output_dir=options.out / "lam", overwrite=True)


def prepare_recording(options: argparse.Namespace) -> tuple[Path, dict[str, list[str]]]:
    """Returns the folder of videos and the phases of a recording; videos that it lacks are written below `--out`."""
    demonstrations = load_demonstrations(options.demonstrations)
    phases = demonstration_phases(demonstrations, min_length=options.min_phase)
    written = options.out / VIDEOS
    videos = demonstration_videos(options.demonstrations, demonstrations, written, overwrite=options.overwrite)
    return videos, phases


def prepare_latents(options: argparse.Namespace, videos: Path) -> Path:
    """Returns the latent-action corpus of the demonstrations' videos, made or left by an earlier run."""
    corpus = options.out / "latent-actions"
    if corpus.is_dir() and not options.overwrite:
        return corpus
    folder = scan_videos(videos)
    training, held_out = split_episodes(folder.episodes, options.held_out)
    idm_folder = options.out / "lam" / "idm"
    if options.idm is None and (options.overwrite or not idm_folder.is_dir()):
        train_latent_actions(options, training)
    name = options.idm or str(idm_folder)
    extract_latent_actions(
        AutoInverseDynamicsModel.from_pretrained(name),
        folder.episodes,
        corpus,
        root=folder.root,
        model_name=name,
        stride=options.stride,
        validation_ids={episode.id for episode in held_out},
        overwrite=True,
    )
    return corpus


def prepare_hilam(options: argparse.Namespace, corpus: Path) -> HiLAMModel:
    """Loads HiLAM, or trains one on the training episodes."""
    if options.hilam is not None:
        return HiLAMModel.from_pretrained(options.hilam)
    info = CorpusInfo.from_card(corpus)
    fields = dict(option.split("=", 1) for option in (*HILAM_OPTIONS, *options.hilam_option))
    routing = "learned" if options.learned_routing else "identity"
    values = {name: yaml.safe_load(value) for name, value in fields.items()}
    model = new_hilam(info, options.preset, seed=options.seed, routing=routing, **values)
    config = training_config(HILAM_TRAINING, options.training, options.seed)
    rows = thin(load_corpus(corpus), options.hop)
    # Each call trains one of its own, on latent actions that stay.
    train_hilam(model, rows, info, config, output_dir=options.out / "hilam", overwrite=True)
    return model


def thin(corpus: Dataset, hop: int) -> Dataset:
    """Every hop-th latent action of each episode, once for each step to start from."""
    whole = zip(corpus["id"], corpus["latent_actions"], strict=True)
    episodes = [
        (name, np.asarray(latents, dtype=np.float32)[start::hop]) for name, latents in whole for start in range(hop)
    ]
    ids, kept = zip(*((name, latents) for name, latents in episodes if len(latents) > 1), strict=True)
    columns = {"id": list(ids), "latent_actions": list(kept), "num_frames": [len(latents) for latents in kept]}
    return Dataset.from_dict(columns, features=Features({name: corpus.features[name] for name in columns}))


def make_table(results: Sequence[MethodScores], title: str) -> Table:
    """The table that is printed; lengths in steps."""
    table = Table(title=title)
    columns = ("F1", "95 %", "P", "R", "R-value", "NMI", "edit", "label NMI", "cov.", "purity", "rate", "mean len.")
    table.add_column("method")
    for column in columns:
        table.add_column(column, justify="right")
    best = max(result.scores.f1 for result in results)
    for result in results:
        scores = result.scores
        low, high = scores.f1_interval
        numbers = [
            *(scores.precision, scores.recall, scores.r_value, scores.nmi, scores.edit, scores.label_nmi),
            *(scores.coverage, scores.purity, scores.boundary_rate),
        ]
        cells = [f"{scores.f1:.3f}", f"{low:.2f}-{high:.2f}", *(f"{number:.3f}" for number in numbers)]
        style = "bold" if scores.f1 == best else None
        table.add_row(result.name, *cells, f"{scores.mean_segment_length:.1f}", style=style)
    return table


def draw(results: Sequence[MethodScores], data: StudyData, out: Path) -> None:
    """Writes `f1.png` and `timelines.png`; the timelines show each method at the rate that was best in training."""
    bars = {
        result.name: {"f1": result.scores.f1, **dict(zip(("low", "high"), result.scores.f1_interval, strict=True))}
        for result in results
    }
    own = [result.name for result in results if result.rate_choice == "its own"]
    save_figure(plot_f1_bars(bars, highlighted=own), out / "f1.png")
    chosen = np.unique(np.linspace(0, len(data.held_out) - 1, EPISODES_DRAWN, dtype=int))
    ids = data.held_out.ids
    found = {
        result.method: {ids[index]: result.segmentations[index] for index in chosen}
        for result in results
        if result.rate_choice != "true rate"
    }
    phases = {ids[index]: data.held_out.phases[index].tolist() for index in chosen}
    save_figure(plot_segmentations(phases, found), out / "timelines.png")


def report(results: Sequence[MethodScores], data: StudyData, options: argparse.Namespace) -> dict[str, Any]:
    """What `results.json` holds."""
    return {
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "episodes": {"training": len(data.training), "held_out": len(data.held_out)},
        "phases": data.num_labels,
        "methods": [result.to_dict() for result in results],
        "conclusion": conclusion(results),
    }


def run(options: argparse.Namespace) -> None:
    """The study, from whatever of it `options.out` holds already."""
    if options.overwrite:
        shutil.rmtree(options.out / "latent-actions", ignore_errors=True)
    videos, phases = prepare_recording(options)
    corpus = prepare_latents(options, videos)
    data = load_study_data(corpus, phases)
    model = prepare_hilam(options, corpus)
    results = [
        *score_baselines(data, tolerance=options.tolerance),
        *score_hilam(data, model, tolerance=options.tolerance, hop=options.hop),
    ]
    scores = results[0].scores
    title = (
        f"{len(data.held_out)} held-out episodes, tolerance {options.tolerance} steps, true boundary rate "
        f"{scores.true_boundary_rate:.3f}, true mean length {scores.true_mean_segment_length:.1f} steps"
    )
    Console(width=None if sys.stdout.isatty() else 180).print(make_table(results, title))
    print(conclusion(results))
    (options.out / "results.json").write_text(json.dumps(report(results, data, options), indent=2))
    draw(results, data, options.out)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    with FolderLock(options.out, "a segmentation study"):
        run(options)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        sys.exit(f"segmentation study: {error}")
