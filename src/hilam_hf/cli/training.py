"""Commands that train one stage on its own; the scripts in `examples` are the same functions, for many devices."""

from pathlib import Path
from typing import Annotated

import typer

from ..plugins import DEFAULT_LATENT_ACTION_KIND, LATENT_ACTION_KINDS
from .options import (
    CAMERA,
    ConfigFile,
    HeldOut,
    Out,
    Overrides,
    Overwrite,
    Resume,
    Stride,
    StrideSeconds,
    split,
    tell,
)
from .protocols import SimulatorName, Suite, choose_protocol, parse_tasks


def train_lam_command(
    videos: Annotated[Path, typer.Argument(help="Folder of videos.")],
    out: Out,
    overrides: Overrides = None,
    config: ConfigFile = None,
    kind: Annotated[
        str, typer.Option(help=f"Kind of model: {', '.join(LATENT_ACTION_KINDS.names())}.")
    ] = DEFAULT_LATENT_ACTION_KIND,
    stride: Stride = None,
    stride_seconds: StrideSeconds = None,
    stride_range: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="LOW HIGH", help="Smallest and largest stride in frames; each pair draws its own."),
    ] = None,
    stride_seconds_range: Annotated[
        tuple[float, float] | None,
        typer.Option("--seconds-range", metavar="LOW HIGH", help="The same in seconds, whatever the rate."),
    ] = None,
    skip_front: Annotated[
        float, typer.Option(help="Fraction of each video's frames to leave out at its front, such as 0.4.")
    ] = 0,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the frames that the models see; otherwise the kind's.")
    ] = None,
    model_options: Annotated[
        list[str] | None,
        typer.Option("--model-option", help="KEY=VALUE of a model's configuration: idm.hidden_size=96."),
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="Corpus made from these videos (folder or Hub id): use its episodes alone.")
    ] = None,
    held_out: HeldOut = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a latent action model (inverse and forward dynamics) on the frames of a folder of videos.

    The two frames of a pair lie 0.6 seconds apart unless a stride is given. Training options that are not given are
    those of the kind.

    [bold]Example:[/bold] hilam train lam videos --stride-seconds 0.6 --out lam max_steps=2000

    [bold]Example:[/bold] hilam train lam clips --kind uniskill --stride-range 10 30 --skip-front 0.4 --out lam
    """
    from ..models.latent_actions.kinds import get_latent_action_kind
    from ..training import TrainingConfig, load_config
    from ..training.lam.runs import train_lam_on_videos
    from ..training.model_options import parse_model_options

    train_lam_on_videos(
        videos,
        load_config(TrainingConfig, config, overrides or (), defaults=get_latent_action_kind(kind).training),
        output_dir=out,
        kind=kind,
        image_size=image_size,
        model_options=parse_model_options(model_options or ()),
        stride=stride,
        stride_seconds=stride_seconds,
        stride_range=stride_range,
        stride_seconds_range=stride_seconds_range,
        skip_front=skip_front,
        held_out_fraction=held_out,
        corpus=corpus,
        resume=resume,
        overwrite=overwrite,
    )
    tell(f"{kind} model in {out}")


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
    held_out: HeldOut = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train HiLAM on a corpus of latent actions.

    [bold]Example:[/bold] hilam train hilam latent-actions --out hilam max_steps=2000
    """
    from ..training import load_config
    from ..training.hilam import HiLAMTrainingConfig
    from ..training.hilam.models import parse_hilam_options
    from ..training.hilam.runs import train_hilam_on_corpus

    train_hilam_on_corpus(
        corpus,
        load_config(HiLAMTrainingConfig, config, overrides or ()),
        output_dir=out,
        preset=preset,
        model_options=parse_hilam_options(model_options or ()),
        idm=idm,
        fdm=fdm,
        videos=videos,
        held_out_fraction=held_out,
        resume=resume,
        overwrite=overwrite,
    )
    tell(f"model in {out}/hilam")


def train_policy_command(
    corpus: Annotated[str, typer.Argument(help="Latent-skill corpus: folder or Hub id.")],
    videos: Annotated[Path, typer.Option(help="Folder of the videos that the corpus was made from.")],
    out: Out,
    overrides: Overrides = None,
    config: ConfigFile = None,
    stage: Annotated[int, typer.Option(help="Stage whose skills the high-level policy predicts.")] = 2,
    camera: Annotated[str, typer.Option(help="Name of the camera that the videos show.")] = CAMERA,
    image_size: Annotated[int, typer.Option(help="Side of the frames that the policy sees.")] = 64,
    held_out: HeldOut = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Pretrain a hierarchical policy on videos labelled with skills and latent actions.

    Training options that are not given are those published with BAKU.

    [bold]Example:[/bold] hilam train policy latent-skills --videos videos --out pretrained max_steps=2000
    """
    from ..training import TrainingConfig, load_config
    from ..training.policy.runs import pretrain_on_corpus
    from ..training.policy.train import BAKU_TRAINING

    pretrain_on_corpus(
        corpus,
        videos,
        load_config(TrainingConfig, config, overrides or (), defaults=BAKU_TRAINING),
        output_dir=out,
        stage=stage,
        camera=camera,
        image_size=image_size,
        held_out_fraction=held_out,
        resume=resume,
        overwrite=overwrite,
    )
    tell(f"policy in {out}/policy")


def finetune_command(
    policy: Annotated[str, typer.Option(help="Pretrained policy: Hub id or folder.")],
    demonstrations: Annotated[
        str, typer.Option(help="Folder that `hilam record` wrote, LIBERO's HDF5 files, or a LeRobot dataset of LIBERO.")
    ],
    out: Out,
    overrides: Overrides = None,
    config: ConfigFile = None,
    simulator: SimulatorName = None,
    suite: Suite = None,
    tasks: Annotated[
        str | None, typer.Option(help="Comma-separated tasks: numbers with --suite, otherwise names; all by default.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Protocol of the evaluation to come: pictures and agent_pos are made as it has them."),
    ] = None,
    per_task: Annotated[int | None, typer.Option(help="Demonstrations of each task; all by default.")] = None,
    chunk_size: Annotated[int, typer.Option(help="Actions predicted at a time.")] = 10,
    cameras: Annotated[
        str | None, typer.Option(help="Comma-separated cameras that the policy sees; all of the robot's by default.")
    ] = None,
    rename_camera: Annotated[
        list[str] | None, typer.Option(help="OLD=NEW name of a camera of the pretrained policy; may be repeated.")
    ] = None,
    image_transform: Annotated[
        str | None,
        typer.Option(help="How pictures lie: rotate_180 (LIBERO's usual), flip_vertical, none; as in the protocol."),
    ] = None,
    proprioception: Annotated[
        str | None,
        typer.Option(
            help="Layout of agent_pos, of LIBERO ee_axis_angle_gripper (its usual one), joints_gripper, "
            "gripper_joints; as in the protocol."
        ),
    ] = None,
    gripper: Annotated[
        str | None,
        typer.Option(help="For a gripper of 0 to 1, what 1 means: one_opens (OpenVLA, Open X-Embodiment), one_closes."),
    ] = None,
    action_scale: Annotated[
        float | None, typer.Option(help="Factor of all numbers of an action but the gripper, to the robot's range.")
    ] = None,
    held_out: HeldOut = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune the low-level policy on labelled demonstrations, whole or with LoRA (method=lora).

    Training options that are not given are those published with BAKU.

    [bold]Example:[/bold] hilam train finetune --policy pretrained/policy --demonstrations recordings --out finetuned

    [bold]Example:[/bold] hilam train finetune --policy org/policy --demonstrations recordings --suite goal --tasks 0-3
    --protocol openvla --out finetuned max_steps=5000 method=lora
    """
    from ..training import load_config
    from ..training.policy.runs import finetune_on_demonstrations, parse_renames
    from ..training.policy.train import BAKU_TRAINING, FinetuningConfig

    named = any(name is not None for name in (simulator, suite, protocol))
    finetune_on_demonstrations(
        policy,
        demonstrations,
        load_config(FinetuningConfig, config, overrides or (), defaults=BAKU_TRAINING),
        output_dir=out,
        protocol=choose_protocol(simulator, suite, protocol) if named else None,
        suite=suite,
        tasks=parse_tasks(tasks, suite),
        per_task=per_task,
        chunk_size=chunk_size,
        cameras=split(cameras) if cameras is not None else None,
        rename_cameras=parse_renames(rename_camera or ()),
        image_transform=image_transform,  # type: ignore[arg-type]
        proprioception=proprioception,
        gripper=gripper,  # type: ignore[arg-type]
        action_scale=action_scale,
        held_out_fraction=held_out,
        resume=resume,
        overwrite=overwrite,
    )
    tell(f"policy in {out}/policy")
