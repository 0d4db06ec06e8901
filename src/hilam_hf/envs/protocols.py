"""Evaluation protocols by name: every choice that decides what a success rate means, in one record each.

The same record sets up environments for recording and for evaluation, and is quoted whole in every `results.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..libero_conventions import CAMERAS, ProprioceptionLayout
from ..video.orientation import ImageTransform
from .seeds import evaluation_seed

Simulator = Literal["libero", "metaworld"]
InitialStates = Literal["fixed", "random"]

_OPEN = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
_STILL = (0.0,) * 7


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How episodes start, what a policy sees, and when an episode has failed.

    Attributes:
        name: Name of the protocol.
        simulator: Which simulator it is for.
        source: Where its figures come from.
        episodes_per_task: Episodes of each task.
        initial_states: `fixed`: the benchmark's own, numbered from 0; `random`: drawn by the environment's reset.
        settle_steps: Steps before the first observation, in which objects come to rest; they do not count.
        settle_action: The action of these steps, (A,).
        max_steps: Steps after which an episode has failed, by suite; the key "" holds for any other.
        image_size: Height and width of pictures in pixels.
        image_transform: What is done to LIBERO's pictures, which come with the bottom row first: `flip_vertical` puts
            them upright, `rotate_180` does too but mirrors left and right, `none` leaves them upside down.
        cameras: The cameras that a policy sees.
        proprioception: What `agent_pos` is made of, see `layouts` of `hilam_hf.libero_conventions.PANDA`; Meta-World
            has `ee_gripper` only.
        executed_chunk_length: Actions executed of each predicted chunk; None leaves it to the policy.
        seed: Seed that is used where none is given.
    """

    name: str
    simulator: Simulator
    source: str
    episodes_per_task: int
    initial_states: InitialStates
    settle_steps: int
    settle_action: tuple[float, ...]
    max_steps: Mapping[str, int]
    image_size: int
    image_transform: ImageTransform
    cameras: tuple[str, ...]
    proprioception: ProprioceptionLayout | Literal["ee_gripper"]
    executed_chunk_length: int | None = None
    seed: int = 0

    def steps_of(self, suite: str) -> int:
        """Return the steps after which an episode of a suite has failed.

        Raises:
            ValueError: The protocol says nothing of that suite.
        """
        steps = self.max_steps.get(suite, self.max_steps.get(""))
        if steps is None:
            raise ValueError(f"protocol {self.name} is for {', '.join(self.max_steps)}; got {suite!r}")
        return steps

    def episode_seed(self, episode: int, seed: int | None = None) -> int:
        """Return the seed of an episode's reset.

        With fixed initial states it draws what these leave open, the poses of fixtures, and episode i has
        `seed + i`; with random ones it draws everything, and is one that no demonstration has.

        Args:
            episode: Number of the episode, which is that of its initial state where these are fixed.
            seed: Seed of the evaluation; None for the protocol's.
        """
        base = self.seed if seed is None else seed
        return base + episode if self.initial_states == "fixed" else evaluation_seed(base, episode)

    def with_options(self, **options: Any) -> Protocol:
        """Return the protocol with some choices changed, under the name `<name>+` and their names.

        Args:
            options: Attributes to change; None leaves one as it is.

        Raises:
            ValueError: There is no such attribute.

        Example:
            >>> get_protocol("openvla").with_options(image_size=128).name
            'openvla+image_size'
        """
        unknown = sorted(set(options) - set(self.__dataclass_fields__))
        if unknown:
            raise ValueError(f"a protocol has no {', '.join(unknown)}; it has {', '.join(self.__dataclass_fields__)}")
        changed = {key: value for key, value in options.items() if value is not None and value != getattr(self, key)}
        return replace(self, **changed, name="+".join([self.name, *changed])) if changed else self

    def to_dict(self) -> dict[str, Any]:
        """Return what records hold of the protocol."""
        return asdict(self) | {"max_steps": dict(self.max_steps)}


_OPENVLA = Protocol(
    name="openvla",
    simulator="libero",
    source="Kim et al. 2024, OpenVLA (arXiv:2406.09246): experiments/robot/libero/run_libero_eval.py",
    episodes_per_task=50,
    initial_states="fixed",
    settle_steps=10,
    settle_action=_OPEN,
    max_steps={"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400},
    image_size=256,
    image_transform="rotate_180",
    cameras=CAMERAS,
    proprioception="ee_axis_angle_gripper",
    seed=7,
)
_LEROBOT = replace(
    _OPENVLA,
    name="lerobot",
    source="Hugging Face LeRobot: src/lerobot/envs/libero.py",
    max_steps={**_OPENVLA.max_steps, "libero_spatial": 280},
    seed=1000,
)
_LIBERO = Protocol(
    name="libero",
    simulator="libero",
    source="Liu et al. 2023, LIBERO (arXiv:2306.03310): libero/lifelong/metric.py",
    episodes_per_task=20,
    initial_states="fixed",
    settle_steps=5,
    settle_action=_STILL,
    max_steps={"": 600},
    image_size=128,
    image_transform="none",
    cameras=CAMERAS,
    proprioception="gripper_joints",
    seed=10000,
)
_BAKU = replace(
    _LIBERO,
    name="baku",
    source="Haldar et al. 2024, BAKU (arXiv:2406.07539): baku/suite/libero.py; most steps as in LIBERO's own",
    episodes_per_task=10,
    initial_states="random",
    settle_steps=0,
    image_transform="flip_vertical",
    proprioception="joints_gripper",
    seed=2,
)
_METAWORLD = Protocol(
    name="metaworld",
    simulator="metaworld",
    source="hilam-hf: initial states by seed, success at any step ends the episode",
    episodes_per_task=20,
    initial_states="random",
    settle_steps=0,
    settle_action=(0.0,) * 4,
    max_steps={"": 200},
    image_size=128,
    image_transform="none",
    cameras=("corner2",),
    proprioception="ee_gripper",
)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol for protocol in (_OPENVLA, _LEROBOT, _LIBERO, _BAKU, _METAWORLD)
}
"""The protocols, by name."""


def get_protocol(protocol: str | Protocol) -> Protocol:
    """Return a protocol by its name, or the one that is given.

    Raises:
        ValueError: There is no such protocol.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]


@dataclass(frozen=True)
class EpisodeSpec:
    """Which episode: with the protocol, all that decides how it starts.

    Attributes:
        task: Name of the task, such as `libero_goal/3` or `drawer-open`.
        index: Number of the episode among those of its task.
        seed: Seed of the reset.
        initial_state: Number of the benchmark's initial state, or None where the seed draws it.
    """

    task: str
    index: int
    seed: int
    initial_state: int | None = None

    def __str__(self) -> str:
        state = "" if self.initial_state is None else f", initial state {self.initial_state}"
        return f"{self.task}{state}, seed {self.seed}"


def plan_episodes(
    protocol: Protocol,
    tasks: Sequence[str],
    *,
    seed: int | None = None,
    episodes: Sequence[int] | None = None,
) -> list[EpisodeSpec]:
    """List the episodes of an evaluation, task by task.

    Args:
        protocol: The protocol.
        tasks: Names of tasks.
        seed: Seed of the evaluation; None for the protocol's.
        episodes: Numbers of the episodes of each task, which are those of the initial states where these are fixed;
            None for 0 to the protocol's `episodes_per_task - 1`.

    Raises:
        ValueError: There are no tasks or episodes, or a number is negative or given twice.
    """
    numbers = list(range(protocol.episodes_per_task)) if episodes is None else list(episodes)
    if not tasks or not numbers:
        raise ValueError("tasks and episodes: got none, expected at least one of each")
    if min(numbers) < 0 or len(set(numbers)) != len(numbers):
        raise ValueError(f"episodes: got {numbers}, expected different numbers from 0 on")
    fixed = protocol.initial_states == "fixed"
    return [
        EpisodeSpec(task, number, protocol.episode_seed(number, seed), number if fixed else None)
        for task in tasks
        for number in numbers
    ]
