"""The `hilam` command: thin wrappers around the library, one per step of the way from videos to a policy."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from huggingface_hub.errors import StrictDataclassError

app = typer.Typer(
    help="Hierarchical latent actions: from action-free video to latent actions, skills and robot policies.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Train one stage on its own.", no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(train_app, name="train")

Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with training options.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Training options as key=value, e.g. max_steps=2000 learning_rate=3e-4.")
]
Resume = Annotated[bool, typer.Option(help="Continue from the latest checkpoint in --out.")]
Stride = Annotated[int | None, typer.Option(help="Frames between the two frames of a latent action.")]
StrideSeconds = Annotated[float | None, typer.Option(help="The same in seconds, whatever the rate of each video.")]
Device = Annotated[str, typer.Option(help="Device to compute on: cpu, cuda, mps, or auto.")]
Tasks = Annotated[str, typer.Option(help="Comma-separated Meta-World tasks.")]

DEMO_TASKS = "drawer-open,door-open,button-press-topdown"
CAMERA = "workspace"


def main() -> None:
    """Entry point: user errors end in one line and a non-zero exit code; HILAM_DEBUG=1 shows the traceback instead."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        app()
    except (ValueError, OSError, ImportError, StrictDataclassError) as error:
        if os.environ.get("HILAM_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; what was written is kept", file=sys.stderr)
        sys.exit(130)


@app.command()
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
    from .demo import DemoConfig, run_demo

    config = DemoConfig.smallest() if smallest else DemoConfig()
    config.seed = seed
    if tasks is not None:
        config.tasks = _split(tasks)
    config.videos = str(videos) if videos is not None else None
    report = run_demo(config, out, overwrite=overwrite)
    print(report.text())


@app.command()
def doctor() -> None:
    """Say what works on this machine, and what to do about what doesn't.

    [bold]Example:[/bold] hilam doctor
    """
    from .doctor import print_report, run_checks

    if not print_report(run_checks()):
        raise typer.Exit(1)


@app.command()
def record(
    out: Out,
    tasks: Tasks = DEMO_TASKS,
    episodes: Annotated[int, typer.Option(help="Episodes of each task.")] = 30,
    image_size: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = 128,
    camera: Annotated[str, typer.Option(help="Camera to record.")] = CAMERA,
    quality: Annotated[str, typer.Option(help="Rendering quality, fast or exact.")] = "fast",
    noise: Annotated[float, typer.Option(help="Standard deviation of the noise on the expert's actions.")] = 0.1,
    workers: Annotated[int, typer.Option(help="Parallel simulators.")] = 2,
    seed: Annotated[int, typer.Option(help="Chooses the initial states.")] = 0,
) -> None:
    """Record scripted experts of Meta-World as videos, their actions kept apart.

    [bold]Example:[/bold] hilam record --tasks drawer-open,door-open --episodes 20 --out recordings
    """
    from .envs import record_demonstrations

    summary = record_demonstrations(
        out,
        _split(tasks),
        episodes,
        seed=seed,
        image_size=image_size,
        camera=camera,
        quality=quality,
        noise=noise,
        num_workers=workers,
    )
    print(summary)


@app.command()
def extract(
    videos: Annotated[Path, typer.Argument(help="Folder of videos, with or without metadata.jsonl.")],
    model: Annotated[str, typer.Option(help="Latent action model, or its inverse dynamics model: Hub id or folder.")],
    out: Out,
    stride: Stride = None,
    stride_seconds: StrideSeconds = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a corpus that is there.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
) -> None:
    """Turn a folder of videos into a corpus of latent actions.

    [bold]Example:[/bold] hilam extract videos --model hilam-demo/lam --stride 5 --out latent-actions
    """
    from .data.episodes import scan_videos
    from .data.extraction import extract_latent_actions
    from .models.auto import load_latent_action_model

    idm: Any = load_latent_action_model(model)[0]
    idm.to(_device(device))
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
    _list_rejected([*folder.rejected, *result.rejected])
    print(f"{result.info.num_latents} latent actions of {result.info.num_episodes} videos in {out}")


@app.command(name="lam-report")
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
        float, typer.Option(help="Look only at the videos that training with this --held-out and seed did not see.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of what is sampled, and of --held-out.")] = 0,
    device: Device = "auto",
) -> None:
    """Say whether a latent action model is any good: errors, use of latents, transfer pictures, warnings.

    [bold]Example:[/bold] hilam lam-report videos --model lam --stride-seconds 0.6 --out lam-report
    """
    from .evaluation.lam import LamReportOptions, write_lam_report

    options = LamReportOptions(
        stride=stride,
        stride_seconds=stride_seconds,
        max_pairs=max_pairs,
        max_decoded_pairs=max_decoded_pairs,
        seed=seed,
        held_out_fraction=held_out,
    )
    report = write_lam_report(model, videos, out, options, device=_device(device))
    print(report.text())


@app.command()
def skills(
    corpus: Annotated[str, typer.Argument(help="Latent-action corpus: folder or Hub id.")],
    model: Annotated[str, typer.Option(help="HiLAM model: Hub id or folder.")],
    out: Out,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a corpus that is there.")] = False,
) -> None:
    """Turn a corpus of latent actions into a corpus of latent skills.

    [bold]Example:[/bold] hilam skills latent-actions --model hilam-demo/hilam/hilam --out latent-skills
    """
    from .data.corpora import CorpusInfo, load_corpus
    from .data.extraction import extract_skill_corpus
    from .models.hilam import HiLAMModel

    info = CorpusInfo.from_card(corpus)
    hilam = _load(HiLAMModel, model, device)
    splits = {split: load_corpus(corpus, split) for split in info.splits}
    result = extract_skill_corpus(hilam, splits, info, out, model_name=model, overwrite=overwrite)
    segments = ", ".join(f"stage {stage}: {count}" for stage, count in result.info.segments.items())
    print(f"segments of {result.info.num_episodes} episodes in {out}: {segments}")


@app.command()
def view(
    corpus: Annotated[str, typer.Argument(help="Latent-skill corpus: folder or Hub id.")],
    videos: Annotated[Path, typer.Option(help="Folder of the videos that the corpus was made from.")],
    out: Out = Path("skills.html"),
    episodes: Annotated[int, typer.Option(help="Number of episodes to show.")] = 20,
) -> None:
    """Draw the skill timelines of a corpus on one page.

    [bold]Example:[/bold] hilam view latent-skills --videos videos --out skills.html
    """
    from .demo.timelines import write_timelines_page

    print(f"wrote {write_timelines_page(corpus, videos, out, max_episodes=episodes)}")


@app.command(name="eval")
def evaluate(
    policy: Annotated[str, typer.Option(help="Policy: Hub id or folder, or 'expert', or 'random'.")],
    out: Out,
    tasks: Tasks = DEMO_TASKS,
    episodes: Annotated[int, typer.Option(help="Episodes of each task.")] = 20,
    seed: Annotated[int, typer.Option(help="Chooses the initial states.")] = 0,
    num_envs: Annotated[int, typer.Option(help="Parallel simulators.")] = 2,
    max_steps: Annotated[int, typer.Option(help="Control steps after which an episode has failed.")] = 200,
    camera: Annotated[str, typer.Option(help="Camera that the policy sees.")] = CAMERA,
    image_size: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = 128,
    videos_per_task: Annotated[int, typer.Option(help="Episodes of each task to film.")] = 1,
    device: Device = "auto",
) -> None:
    """Roll a policy out and count successes: results.json with provenance, videos, a table with intervals.

    [bold]Example:[/bold] hilam eval --policy expert --tasks drawer-open --episodes 10 --out results
    """
    from .evaluation import ExpertPolicy, RandomPolicy, evaluate
    from .models.hierarchical import HierarchicalPolicy

    scripted: dict[str, Any] = {"expert": ExpertPolicy, "random": RandomPolicy}
    actor = scripted[policy]() if policy in scripted else _load(HierarchicalPolicy, policy, device)
    result = evaluate(
        actor,
        _split(tasks),
        episodes_per_task=episodes,
        num_envs=num_envs,
        seed=seed,
        max_steps=max_steps,
        camera=camera,
        image_size=image_size,
        out_dir=out,
        videos_per_task=videos_per_task,
        policy_name=policy,
    )
    for task, rate in result.tasks.items():
        print(f"{task}: {rate}")
    print(f"overall: {result.overall}")


@train_app.command("lam")
def train_lam_command(
    videos: Annotated[Path, typer.Argument(help="Folder of videos.")],
    out: Out,
    overrides: Overrides = None,
    config: ConfigFile = None,
    kind: Annotated[
        str, typer.Option(help="Kind of model: uniskill, uniskill-light, lapa or feature-difference.")
    ] = "uniskill-light",
    stride: Stride = None,
    stride_seconds: StrideSeconds = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the frames that the models see; otherwise the kind's.")
    ] = None,
    model_options: Annotated[
        list[str] | None,
        typer.Option("--model-option", help="KEY=VALUE of a model's configuration: idm.hidden_size=96."),
    ] = None,
    held_out: Annotated[float, typer.Option(help="Fraction of the videos to validate on, with validate_every=N.")] = 0,
    corpus: Annotated[
        str | None, typer.Option(help="Corpus made from these videos (folder or Hub id): use its episodes alone.")
    ] = None,
    resume: Resume = False,
) -> None:
    """Train a latent action model (inverse and forward dynamics) on the frames of a folder of videos.

    The two frames of a pair lie 0.6 seconds apart unless a stride is given.

    [bold]Example:[/bold] hilam train lam videos --stride-seconds 0.6 --out lam max_steps=2000
    """
    from .training import TrainingConfig, load_config
    from .training.lam_models import parse_model_options
    from .training.lam_runs import train_lam_on_videos

    train_lam_on_videos(
        videos,
        load_config(TrainingConfig, config, overrides or ()),
        output_dir=out,
        kind=kind,
        image_size=image_size,
        model_options=parse_model_options(model_options or ()),
        stride=stride,
        stride_seconds=stride_seconds,
        held_out_fraction=held_out,
        corpus=corpus,
        resume=resume,
    )
    print(f"{kind} model in {out}")


@train_app.command("hilam")
def train_hilam_command(
    corpus: Annotated[str, typer.Argument(help="Latent-action corpus: folder or Hub id.")],
    out: Out,
    overrides: Overrides = None,
    config: ConfigFile = None,
    preset: Annotated[str, typer.Option(help="Size of the model: tiny, small, base or large.")] = "tiny",
    model_options: Annotated[
        list[str] | None,
        typer.Option("--model-option", help="KEY=VALUE of the preset: target_ratios=[4,3], routing=identity."),
    ] = None,
    idm: Annotated[
        str | None, typer.Option(help="Inverse dynamics model to keep in the checkpoint, which then takes frames, too.")
    ] = None,
    fdm: Annotated[
        str | None, typer.Option(help="Forward dynamics model for the reconstruction loss; needs --videos.")
    ] = None,
    videos: Annotated[
        Path | None, typer.Option(help="Folder of the videos that the corpus was made from, for --fdm.")
    ] = None,
    resume: Resume = False,
) -> None:
    """Train HiLAM on a corpus of latent actions.

    [bold]Example:[/bold] hilam train hilam latent-actions --out hilam max_steps=2000
    """
    from .data.corpora import CorpusInfo, load_corpus
    from .data.frame_store import FrameStore, VideoSource
    from .models.auto import AutoForwardDynamicsModel, load_latent_action_model
    from .training import TrainingConfig, load_config
    from .training.hilam import new_hilam, parse_model_options, train_hilam

    options = load_config(TrainingConfig, config, overrides or ())
    info = CorpusInfo.from_card(corpus)
    with _seeded(options.seed):
        own = None if idm is None else load_latent_action_model(idm)[0]
        model = new_hilam(info, preset, idm=own, **parse_model_options(model_options or ()))
    rows, forward_dynamics, frames = load_corpus(corpus), None, None
    if (fdm is None) != (videos is None):
        raise ValueError("the reconstruction loss takes both --fdm and --videos; give both or neither")
    if fdm is not None and videos is not None:
        forward_dynamics = AutoForwardDynamicsModel.from_pretrained(fdm)
        sources = [VideoSource(str(videos / row["video"]), row["num_frames"]) for row in rows]
        frames = FrameStore(sources, forward_dynamics.config.image_size)
    train_hilam(
        model, rows, info, options, output_dir=out, forward_dynamics=forward_dynamics, frames=frames, resume=resume
    )
    print(f"model in {out}/hilam")


@train_app.command("policy")
def train_policy_command(
    corpus: Annotated[str, typer.Argument(help="Latent-skill corpus: folder or Hub id.")],
    videos: Annotated[Path, typer.Option(help="Folder of the videos that the corpus was made from.")],
    out: Out,
    overrides: Overrides = None,
    config: ConfigFile = None,
    stage: Annotated[int, typer.Option(help="Stage whose skills the high-level policy predicts.")] = 2,
    camera: Annotated[str, typer.Option(help="Name of the camera that the videos show.")] = CAMERA,
    image_size: Annotated[int, typer.Option(help="Side of the frames that the policy sees.")] = 64,
    resume: Resume = False,
) -> None:
    """Pretrain a hierarchical policy on videos labelled with skills and latent actions.

    [bold]Example:[/bold] hilam train policy latent-skills --videos videos --out pretrained max_steps=2000
    """
    from .data.corpora import CorpusInfo, load_corpus
    from .data.episodes import scan_videos
    from .data.policy_data import PolicyDataset
    from .models.hierarchical import HierarchicalPolicy, HierarchicalPolicyConfig
    from .training import TrainingConfig, load_config
    from .training.policy import pretrain_policy

    options = load_config(TrainingConfig, config, overrides or ())
    info = CorpusInfo.from_card(corpus)
    if stage not in info.skill_dims:
        raise ValueError(f"{corpus} has no skills of stage {stage}; it has those of {sorted(info.skill_dims)}")
    rows, folder = load_corpus(corpus), scan_videos(videos)
    dataset = PolicyDataset.from_skill_corpus(rows, folder.episodes, image_size, stage, info=info, camera=camera)
    trunk = {"cameras": [camera], "image_size": image_size}
    with _seeded(options.seed):
        policy = HierarchicalPolicy(
            HierarchicalPolicyConfig(
                high_config=dict(trunk),
                low_config=dict(trunk),
                skill_dim=info.skill_dims[stage],
                latent_dim=info.vector_dim,
                stage=stage,
            )
        )
    pretrain_policy(policy, dataset, options, output_dir=out, resume=resume)
    print(f"policy in {out}/policy")


@train_app.command("finetune")
def finetune_command(
    policy: Annotated[str, typer.Argument(help="Pretrained policy: Hub id or folder.")],
    demonstrations: Annotated[Path, typer.Option(help="Folder that `hilam record` wrote.")],
    out: Out,
    overrides: Overrides = None,
    config: ConfigFile = None,
    tasks: Annotated[str | None, typer.Option(help="Comma-separated tasks; all that were recorded by default.")] = None,
    per_task: Annotated[int | None, typer.Option(help="Demonstrations of each task; all by default.")] = None,
    chunk_size: Annotated[int, typer.Option(help="Actions predicted at a time.")] = 10,
    resume: Resume = False,
) -> None:
    """Fine-tune the low-level policy on labelled demonstrations, whole or with LoRA (method=lora).

    [bold]Example:[/bold] hilam train finetune pretrained/policy --demonstrations recordings --out finetuned method=lora
    """
    from .data.demonstrations import load_demonstrations
    from .data.policy_data import PolicyDataset
    from .models.hierarchical import HierarchicalPolicy
    from .training import load_config
    from .training.policy import FinetuningConfig, finetune_policy

    options = load_config(FinetuningConfig, config, overrides or ())
    actor = HierarchicalPolicy.from_pretrained(policy)
    rows = load_demonstrations(demonstrations, _split(tasks) if tasks is not None else None, per_task)
    trunk = actor.config.low_config
    dataset = PolicyDataset.from_demonstrations(
        rows, trunk.image_size, chunk_size, root=demonstrations, camera=trunk.cameras[0]
    )
    sample = dataset[0]
    fresh = actor.prepare_for_finetuning(
        action_dim=sample["actions"].shape[-1], chunk_size=chunk_size, agent_pos_dim=sample["agent_pos"].shape[-1]
    )
    print(f"starting fresh: {', '.join(fresh)}")
    finetune_policy(actor, dataset, options, output_dir=out, resume=resume)
    print(f"policy in {out}/policy")


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _load(model_class: Any, name: str, device: str) -> Any:
    return model_class.from_pretrained(name).to(_device(device)).eval()


def _device(name: str) -> str:
    import torch

    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Makes the initial weights a function of the seed."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _list_rejected(rejected: list[Any]) -> None:
    for video in rejected:
        print(f"set aside {video.path}: {video.reason}", file=sys.stderr)
    if rejected:
        print(f"{len(rejected)} files were set aside, listed above", file=sys.stderr)


if __name__ == "__main__":
    main()
