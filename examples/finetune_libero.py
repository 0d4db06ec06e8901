"""Fine-tune a pretrained hierarchical policy on demonstrations of LIBERO, ready for `hilam eval`.

    hilam record --suite libero_10 --tasks 0 --episodes 50 --out recordings
    accelerate launch examples/finetune_libero.py --policy org/hilam-policy --suite libero_10 --tasks 0 \
        --demonstrations recordings --out finetuned max_steps=5000 method=lora
    hilam eval --policy finetuned/policy --suite libero_10 --tasks 0 --out results

Demonstrations are those of `hilam record`, LIBERO's official HDF5 files, or a LeRobot dataset (folder or Hub id).
Training options come as KEY=VALUE, or from a YAML file with `--config`; see `hilam_hf.training.FinetuningConfig`. The
protocol decides how pictures lie and what proprioception is made of, for training as in evaluation.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

from hilam_hf.envs.libero import libero_tasks
from hilam_hf.envs.registry import get_protocol
from hilam_hf.training import load_config
from hilam_hf.training.policy.runs import finetune_on_demonstrations, parse_renames
from hilam_hf.training.policy.train import FinetuningConfig
from hilam_hf.training.processes import process_state


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="training options, e.g. max_steps=5000")
    parser.add_argument("--policy", required=True, help="pretrained policy: Hub id or folder")
    parser.add_argument("--demonstrations", required=True, help="folder, or Hub id of a LeRobot dataset")
    parser.add_argument("--suite", required=True, help="spatial, object, goal, 10 (long) or 90")
    parser.add_argument("--tasks", help="comma-separated numbers of tasks; otherwise all of the suite")
    parser.add_argument("--per-task", type=int, help="demonstrations of each task; otherwise all")
    parser.add_argument("--protocol", default="openvla", help="protocol under which the policy will be evaluated")
    parser.add_argument("--cameras", help="comma-separated cameras; otherwise the protocol's")
    parser.add_argument(
        "--rename-camera", action="append", default=[], metavar="OLD=NEW", help="new name of a pretrained camera"
    )
    parser.add_argument("--chunk-size", type=int, default=10, help="actions predicted at a time")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the policy")
    parser.add_argument("--config", type=Path, help="YAML file with training options")
    parser.add_argument("--resume", action="store_true", help="go on from the latest checkpoint in --out")
    # Training options may stand anywhere among the others.
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    protocol = get_protocol(options.protocol)
    numbers = None if options.tasks is None else [int(number) for number in options.tasks.split(",")]
    finetune_on_demonstrations(
        options.policy,
        options.demonstrations,
        load_config(FinetuningConfig, options.config, options.overrides),
        output_dir=options.out,
        tasks=[task.name for task in libero_tasks(options.suite, numbers)],
        per_task=options.per_task,
        chunk_size=options.chunk_size,
        cameras=protocol.cameras if options.cameras is None else options.cameras.split(","),
        rename_cameras=parse_renames(options.rename_camera),
        image_transform=protocol.image_transform,
        proprioception=protocol.proprioception,
        resume=options.resume,
    )
    process_state().print(f"policy in {options.out}/policy")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        main()
    except (ValueError, OSError, ImportError, StrictDataclassError) as error:
        sys.exit(f"finetune_libero: {error}")
