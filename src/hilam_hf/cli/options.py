"""Options that several commands share, and what commands do alike."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with training options.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Training options as key=value, e.g. max_steps=2000 learning_rate=3e-4.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, from its latest checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")]
HeldOut = Annotated[
    float, typer.Option("--held-out", help="Fraction of the episodes to validate on, with validate_every=N.")
]
ResumeCorpus = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
OverwriteCorpus = Annotated[bool, typer.Option("--overwrite", help="Replace a corpus that is there.")]
Stride = Annotated[int | None, typer.Option(help="Frames between the two frames of a latent action.")]
StrideSeconds = Annotated[float | None, typer.Option(help="The same in seconds, whatever the rate of each video.")]
Device = Annotated[str, typer.Option(help="Device to compute on: cpu, cuda, mps, or auto.")]
CAMERA = "workspace"


def split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def load_model(model_class: Any, name: str, device: str) -> Any:
    chosen = choose_device(device)
    return model_class.from_pretrained(name).to(chosen).eval()


def choose_device(name: str) -> str:
    """The device that is named, or for `auto` the fastest that there is.

    Raises:
        ValueError: It is no device, or this machine has none of that kind or number.
    """
    import torch

    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if name == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if counts[kind])
    kind, separator, number = name.partition(":")
    if kind not in counts or (separator and not number.isdecimal()):
        raise ValueError(f"--device: got {name!r}, expected cpu, cuda, mps, auto, or one by its number such as cuda:1")
    if int(number or 0) >= counts[kind]:
        raise ValueError(
            f"--device {name}: PyTorch {torch.__version__} finds {counts[kind]} {kind} devices on this machine; "
            "use --device cpu or auto"
        )
    return name


def tell(line: str) -> None:
    """Prints a line, once for all processes of a launch."""
    from ..training.processes import process_state

    process_state().print(line)


def list_rejected(rejected: list[Any]) -> None:
    for video in rejected:
        print(f"set aside {video.path}: {video.reason}", file=sys.stderr)
    if rejected:
        print(f"{len(rejected)} files were set aside, listed above", file=sys.stderr)
