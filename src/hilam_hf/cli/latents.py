"""Commands from videos to latent actions and skills, and the demo that goes all the way."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    Device,
    Out,
    OverwriteCorpus,
    ResumeCorpus,
    Stride,
    StrideSeconds,
    choose_device,
    list_rejected,
    load_model,
    split,
)


def demo(
    out: Out = Path("hilam-demo"),
    tasks: Annotated[
        str | None, typer.Option(help="Comma-separated Meta-World tasks instead of the three usual ones.")
    ] = None,
    videos: Annotated[
        Path | None, typer.Option(help="Run the video half on this folder of videos instead; needs no simulator.")
    ] = None,
    smallest: Annotated[bool, typer.Option("--smallest", help="A miniature run of a minute or so, for tests.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start afresh where --out holds another run.")] = False,
) -> None:
    """Run the whole path once, on this machine: videos, latent actions, skills, a policy that acts, a report.

    A run that was interrupted goes on where it stopped.

    [bold]Example:[/bold] hilam demo --out my-demo
    """
    from ..demo import DemoConfig, run_demo

    config = DemoConfig.smallest() if smallest else DemoConfig()
    config.seed = seed
    if tasks is not None:
        config.tasks = split(tasks)
    config.videos = str(videos) if videos is not None else None
    report = run_demo(config, out, overwrite=overwrite)
    print(report.text())


def doctor() -> None:
    """Say what works on this machine, and what to do about what doesn't.

    [bold]Example:[/bold] hilam doctor
    """
    from .doctor import print_report, run_checks

    if not print_report(run_checks()):
        raise typer.Exit(1)


def extract(
    videos: Annotated[Path, typer.Argument(help="Folder of videos, with or without metadata.jsonl or metadata.csv.")],
    model: Annotated[str, typer.Option(help="Latent action model, or its inverse dynamics model: Hub id or folder.")],
    out: Out,
    stride: Stride = None,
    stride_seconds: StrideSeconds = None,
    device: Device = "auto",
    overwrite: OverwriteCorpus = False,
    resume: ResumeCorpus = False,
) -> None:
    """Turn a folder of videos into a corpus of latent actions.

    [bold]Example:[/bold] hilam extract videos --model hilam-demo/lam --stride 5 --out latent-actions
    """
    from ..data.corpora.extraction import extract_latent_actions
    from ..data.episodes import scan_videos
    from ..models.latent_actions.auto import load_latent_action_model

    chosen = choose_device(device)
    idm: Any = load_latent_action_model(model)[0]
    idm.to(chosen)
    folder = scan_videos(videos)
    result = extract_latent_actions(
        idm,
        folder.episodes,
        out,
        root=folder.root,
        model_name=model,
        stride=stride,
        stride_seconds=stride_seconds,
        overwrite=overwrite,
        resume=resume,
    )
    list_rejected([*folder.rejected, *result.rejected])
    print(f"{result.info.num_latents} latent actions of {result.info.num_episodes} videos in {out}")


def lam_report(
    videos: Annotated[Path, typer.Argument(help="Folder of videos, or what `hilam record` wrote.")],
    model: Annotated[str, typer.Option(help="Latent action model: Hub id or folder.")],
    out: Out,
    stride: Stride = None,
    stride_seconds: StrideSeconds = None,
    max_pairs: Annotated[int, typer.Option(help="The most pairs of frames that are encoded.")] = 2000,
    max_decoded_pairs: Annotated[
        int, typer.Option(help="The most that are decoded; a diffusion model may take seconds each.")
    ] = 512,
    held_out: Annotated[
        float, typer.Option(help="Look only at the videos that training with this --held-out did not see.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of what is sampled.")] = 0,
    device: Device = "auto",
) -> None:
    """Say whether a latent action model is any good: errors, use of latents, transfer pictures, warnings.

    [bold]Example:[/bold] hilam lam-report videos --model lam --stride-seconds 0.6 --out lam-report
    """
    from ..evaluation.lam import LamReportOptions, write_lam_report

    options = LamReportOptions(
        stride=stride,
        stride_seconds=stride_seconds,
        max_pairs=max_pairs,
        max_decoded_pairs=max_decoded_pairs,
        seed=seed,
        held_out_fraction=held_out,
    )
    report = write_lam_report(model, videos, out, options, device=choose_device(device))
    print(report.text())


def skills(
    corpus: Annotated[str, typer.Argument(help="Latent-action corpus: folder or Hub id.")],
    model: Annotated[str, typer.Option(help="HiLAM model: Hub id or folder.")],
    out: Out,
    device: Device = "auto",
    overwrite: OverwriteCorpus = False,
    resume: ResumeCorpus = False,
) -> None:
    """Turn a corpus of latent actions into a corpus of latent skills.

    [bold]Example:[/bold] hilam skills latent-actions --model hilam-demo/hilam/hilam --out latent-skills
    """
    from ..data.corpora.corpus import load_corpus
    from ..data.corpora.extraction import extract_skill_corpus
    from ..data.corpora.info import CorpusInfo
    from ..models.hilam import HiLAMModel

    info = CorpusInfo.from_card(corpus)
    hilam = load_model(HiLAMModel, model, device)
    splits = {split: load_corpus(corpus, split) for split in info.splits}
    result = extract_skill_corpus(hilam, splits, info, out, model_name=model, overwrite=overwrite, resume=resume)
    segments = ", ".join(f"stage {stage}: {count}" for stage, count in result.info.segments.items())
    print(f"segments of {result.info.num_episodes} episodes in {out}: {segments}")
    for warning in result.info.segmentation_warnings:
        print(f"warning: {warning}")


def view(
    corpus: Annotated[str, typer.Argument(help="Latent-skill corpus: folder or Hub id.")],
    videos: Annotated[Path, typer.Option(help="Folder of the videos that the corpus was made from.")],
    out: Out = Path("skills.html"),
    episodes: Annotated[int, typer.Option(help="Number of episodes to show.")] = 20,
) -> None:
    """Draw the skill timelines of a corpus on one page.

    [bold]Example:[/bold] hilam view latent-skills --videos videos --out skills.html
    """
    from ..evaluation.skills.timelines import write_timelines_page

    print(f"wrote {write_timelines_page(corpus, videos, out, max_episodes=episodes)}")
