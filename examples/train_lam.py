"""Train a latent action model of any kind on a folder of videos.

    accelerate launch examples/train_lam.py --videos clips --out lam max_steps=5000 ema_decay=0.999 mixed_precision=bf16

Training options come as KEY=VALUE, or from a YAML file with `--config`; see `hilam_hf.training.TrainingConfig`. With
`--held-out 0.1 validate_every=500` the next-frame error on held-out videos is logged and drawn into OUT/validation. A
run that was interrupted goes on with `--resume`, if it saved checkpoints (`save_every=1000`).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

from hilam_hf.models.latent_actions.kinds import get_latent_action_kind
from hilam_hf.plugins import DEFAULT_LATENT_ACTION_KIND, LATENT_ACTION_KINDS
from hilam_hf.training import TrainingConfig, load_config
from hilam_hf.training.lam.runs import DEFAULT_STRIDE_SECONDS, train_lam_on_videos
from hilam_hf.training.model_options import parse_model_options
from hilam_hf.training.processes import process_state


def describe_kinds() -> str:
    """The kinds of latent action models, each with its one line."""
    kinds = [get_latent_action_kind(name) for name in LATENT_ACTION_KINDS.names()]
    described = " | ".join(f"{kind.name}: {kind.description}" for kind in kinds)
    return described.replace("%", "%%")  # argparse formats it


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="training options, e.g. max_steps=5000")
    parser.add_argument("--videos", type=Path, required=True, help="folder of videos")
    parser.add_argument("--corpus", help="corpus (Hub id or folder) made from these videos: use its episodes alone")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, pictures and models")
    parser.add_argument("--kind", default=DEFAULT_LATENT_ACTION_KIND, help=describe_kinds())
    parser.add_argument("--image-size", type=int, help="side of the frames that the models see; otherwise the kind's")
    parser.add_argument(
        "--model-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="field of a model's configuration: idm.hidden_size=96, fdm.image_editor=FOLDER; may be repeated",
    )
    stride = parser.add_mutually_exclusive_group()
    stride.add_argument("--stride", type=int, help="k, frames between the two frames of a latent action")
    stride.add_argument("--stride-seconds", type=float, help=f"the same in seconds; otherwise {DEFAULT_STRIDE_SECONDS}")
    parser.add_argument("--held-out", type=float, default=0.0, help="fraction of the videos to validate on")
    parser.add_argument("--config", type=Path, help="YAML file with training options")
    parser.add_argument("--resume", action="store_true", help="go on from the latest checkpoint in --out")
    # Training options may stand anywhere among the others.
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    train_lam_on_videos(
        options.videos,
        load_config(TrainingConfig, options.config, options.overrides),
        output_dir=options.out,
        kind=options.kind,
        image_size=options.image_size,
        model_options=parse_model_options(options.model_option),
        stride=options.stride,
        stride_seconds=options.stride_seconds,
        held_out_fraction=options.held_out,
        corpus=options.corpus,
        resume=options.resume,
    )
    process_state().print(f"{options.kind} model in {options.out}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        main()
    except (ValueError, OSError, ImportError, StrictDataclassError) as error:
        sys.exit(f"train_lam: {error}")
