"""Commands that need a simulator: recording scripted experts, evaluating policies."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Device, Out, load_model, split
from .protocols import ProtocolName, SimulatorName, Suite, choose_protocol, choose_tasks, parse_numbers, with_cameras

Tasks = Annotated[
    str | None,
    typer.Option(help="Comma-separated tasks: numbers with --suite, otherwise names, of Meta-World three by default."),
]
InitialStates = Annotated[
    str | None, typer.Option("--init-states", help="Numbers of LIBERO's initial states, such as 0-49 or 0,3,7.")
]
Camera = Annotated[
    str | None, typer.Option(help="Comma-separated cameras; otherwise the protocol's, of Meta-World 'workspace'.")
]
Assets = Annotated[
    Path | None,
    typer.Option(help="Folder of LIBERO's assets; otherwise HILAM_LIBERO_ASSETS, the extra's, or the Hub's."),
]
Quality = Annotated[
    str | None, typer.Option(help="Rendering quality, exact or fast; exact for LIBERO and fast for Meta-World.")
]


def record(
    out: Out,
    simulator: SimulatorName = None,
    suite: Suite = None,
    tasks: Tasks = None,
    episodes: Annotated[int, typer.Option(help="Episodes of each task.")] = 30,
    protocol: ProtocolName = None,
    initial_states: InitialStates = None,
    image_size: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = 128,
    camera: Camera = None,
    quality: Quality = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="What to write, comma-separated: hdf5 (LIBERO's), lerobot (LIBERO's), videos; by default both of the "
            "first for LIBERO, and videos for Meta-World.",
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(help="Standard deviation of the noise on actions (0.1; of LIBERO 0.05)."),
    ] = None,
    action_labels: Annotated[
        str | None,
        typer.Option(help="executed, with the noise (LIBERO's default), or expert, before it (Meta-World's)."),
    ] = None,
    assets: Assets = None,
    workers: Annotated[int, typer.Option(help="Parallel simulators.")] = 2,
    seed: Annotated[int, typer.Option(help="Chooses the initial states.")] = 0,
) -> None:
    """Record a simulator's scripted experts.

    Meta-World's become videos with the actions kept apart, LIBERO's HDF5 and LeRobot files.

    A recording that was interrupted goes on where it stopped.

    [bold]Example:[/bold] hilam record --tasks drawer-open,door-open --episodes 20 --out recordings

    [bold]Example:[/bold] hilam record --suite libero_10 --episodes 50 --out libero-10
    """
    from .. import recording

    chosen = with_cameras(choose_protocol(simulator, suite, protocol), camera)
    how: dict[str, Any] = {"noise": noise, "action_labels": action_labels}
    print(
        recording.record(
            out,
            chosen.simulator,
            choose_tasks(chosen, tasks, suite),
            episodes,
            protocol=chosen,
            suite=suite,
            initial_states=None if initial_states is None else parse_numbers(initial_states, "--init-states"),
            image_size=image_size,
            quality=quality,
            formats=None if formats is None else split(formats),
            seed=seed,
            assets=assets,
            num_workers=workers,
            **{name: value for name, value in how.items() if value is not None},
        )
    )


def evaluate(
    policy: Annotated[str | None, typer.Option(help="Policy: Hub id or folder, or 'expert', or 'random'.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write to.")] = None,
    simulator: SimulatorName = None,
    suite: Suite = None,
    tasks: Tasks = None,
    initial_states: InitialStates = None,
    episodes: Annotated[int | None, typer.Option(help="Episodes of each task; otherwise the protocol's.")] = None,
    protocol: ProtocolName = None,
    seed: Annotated[int | None, typer.Option(help="Chooses initial states, or what fixed ones leave open.")] = None,
    num_envs: Annotated[int, typer.Option(help="Parallel simulators.")] = 2,
    quality: Quality = None,
    camera: Camera = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the pictures; otherwise the protocol's.")] = None,
    image_transform: Annotated[
        str | None, typer.Option(help="none, flip_vertical or rotate_180; otherwise the protocol's.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="Steps of an episode; otherwise the protocol's.")] = None,
    chunk_length: Annotated[
        int | None, typer.Option(help="Actions executed of each predicted chunk; otherwise the policy's.")
    ] = None,
    videos_per_task: Annotated[int, typer.Option(help="Episodes of each task to film.")] = 1,
    assets: Assets = None,
    render_gpus: Annotated[
        str | None, typer.Option(help="Numbers of the GPUs that draw, such as 0,1, taken in turns by the simulators.")
    ] = None,
    device: Device = "auto",
    policy_batch_size: Annotated[
        int | None, typer.Option(help="Rows predicted at once: 1 on a CPU, 16 elsewhere, unless given.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove an evaluation that --out holds.")] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Compare two evaluations, episode by episode, instead of making one."),
    ] = None,
) -> None:
    """Roll a policy out and count successes: results.json with provenance, videos, a table with intervals.

    A run that was interrupted goes on where it stopped.

    [bold]Example:[/bold] hilam eval --policy expert --tasks drawer-open --episodes 10 --out results

    [bold]Example:[/bold] hilam eval --policy org/policy --suite libero_goal --tasks 0,3 --init-states 0-9 --out results

    [bold]Example:[/bold] hilam eval --compare results-a results-b
    """
    from .. import evaluation

    if compare is not None:
        if policy is not None or out is not None:
            raise ValueError("--compare reads two evaluations and makes none: leave out --policy and --out")
        print(evaluation.compare(*compare))
        return
    if policy is None or out is None:
        raise ValueError("an evaluation needs --policy and --out; to compare two, give --compare A B")
    chosen = with_cameras(choose_protocol(simulator, suite, protocol), camera).with_options(
        image_size=image_size,
        image_transform=image_transform,
        max_steps=None if max_steps is None else {"": max_steps},
        executed_chunk_length=chunk_length,
    )
    if initial_states is not None and chosen.initial_states != "fixed":
        raise ValueError(
            f"--init-states: protocol {chosen.name} has no fixed initial states, it draws them by the seed; "
            "choose --seed and --episodes"
        )
    result = evaluation.evaluate(
        _actor(policy, device),
        choose_tasks(chosen, tasks, suite),
        protocol=chosen,
        suite=suite,
        episodes=episodes if initial_states is None else parse_numbers(initial_states, "--init-states"),
        num_envs=num_envs,
        seed=seed,
        quality=quality,
        out_dir=out,
        videos_per_task=videos_per_task,
        policy_name=policy,
        policy_batch_size=policy_batch_size,
        assets=assets,
        render_gpus=() if render_gpus is None else parse_numbers(render_gpus, "--render-gpus"),
        overwrite=overwrite,
    )
    for task, rate in result.tasks.items():
        print(f"{task}: {rate}")
    print(f"overall: {result.overall}")
    run = result.provenance["run"]
    memory = max((size for size in run["worker_memory_bytes"] if size is not None), default=0) / 2**20
    rate = run["environment_steps_per_second"]
    print(f"{rate} environment steps/s, {memory:.0f} MiB an environment, faults of the simulator: {len(result.faults)}")


def _actor(policy: str, device: str) -> Any:
    from ..evaluation import ExpertPolicy, RandomPolicy
    from ..models.hierarchical import HierarchicalPolicy

    scripted: dict[str, Any] = {"expert": ExpertPolicy, "random": RandomPolicy}
    return scripted[policy]() if policy in scripted else load_model(HierarchicalPolicy, policy, device)
