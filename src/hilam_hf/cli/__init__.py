"""The `hilam` command: thin wrappers around the library, one per step of the way from videos to a policy."""

import logging
import sys
from collections.abc import Callable

import typer

from . import latents, simulation, training
from .errors import errors_in_one_line
from .launches import leave_speaking_to_the_main_process

app = typer.Typer(
    help="Hierarchical latent actions: from action-free video to latent actions, skills and robot policies.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Train one stage on its own.", no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(train_app, name="train")

app.command("demo")(latents.demo)
app.command("doctor")(latents.doctor)
app.command("record")(simulation.record)
app.command("extract")(latents.extract)
app.command("lam-report")(latents.lam_report)
app.command("skills")(latents.skills)
app.command("view")(latents.view)
app.command("eval")(simulation.evaluate)
train_app.command("lam")(training.train_lam_command)
train_app.command("hilam")(training.train_hilam_command)
train_app.command("policy")(training.train_policy_command)
train_app.command("finetune")(training.finetune_command)


def main() -> None:
    """Entry point of `hilam`."""
    _run(app)


def run(command: Callable[..., None]) -> None:
    """Runs one command alone, as the scripts in `examples` do: the same function with the same options."""
    alone = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
    alone.command()(command)
    _run(alone)


def _run(application: typer.Typer) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        with errors_in_one_line():
            leave_speaking_to_the_main_process()
            application()
    except SystemExit as end:
        # typer makes an exit without a word of Ctrl-C.
        if not isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
            raise
        print("interrupted; what was written is kept", file=sys.stderr)
        sys.exit(130)
