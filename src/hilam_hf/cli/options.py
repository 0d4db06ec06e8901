"""Options that several commands share, and what commands do alike."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with training options.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Training options as key=value, e.g. max_steps=2000 learning_rate=3e-4.")
]
Resume = Annotated[bool, typer.Option(help="Continue from the latest checkpoint in --out.")]
Stride = Annotated[int | None, typer.Option(help="Frames between the two frames of a latent action.")]
StrideSeconds = Annotated[float | None, typer.Option(help="The same in seconds, whatever the rate of each video.")]
Device = Annotated[str, typer.Option(help="Device to compute on: cpu, cuda, mps, or auto.")]
CAMERA = "workspace"


def split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def load_model(model_class: Any, name: str, device: str) -> Any:
    return model_class.from_pretrained(name).to(choose_device(device)).eval()


def choose_device(name: str) -> str:
    import torch

    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Makes the initial weights a function of the seed."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def tell(line: str) -> None:
    """Prints a line, once for all processes of a launch."""
    from ..training.processes import process_state

    process_state().print(line)


def list_rejected(rejected: list[Any]) -> None:
    for video in rejected:
        print(f"set aside {video.path}: {video.reason}", file=sys.stderr)
    if rejected:
        print(f"{len(rejected)} files were set aside, listed above", file=sys.stderr)
