"""Evaluation protocols: every choice that decides what a success rate means, in one record each; and episodes.

The same record sets up environments for recording and for evaluation, and is quoted whole in every `results.json`.
Each simulator brings its own (`hilam_hf.envs.libero.protocols`); `hilam_hf.envs.get_protocol` finds them by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from ..video.orientation import ImageTransform
from .seeds import evaluation_seed

InitialStates = Literal["fixed", "random"]
_CHOICES = {"initial_states": get_args(InitialStates)}
_LEAST = {"episodes_per_task": 1, "settle_steps": 0, "image_size": 1, "seed": 0}


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """How episodes start, what a policy sees, and when an episode has failed.

    Attributes:
        name: Name of the protocol.
        simulator: Name of the simulator that it is for.
        source: Where its figures come from.
        episodes_per_task: Episodes of each task.
        initial_states: `fixed`: the benchmark's own, numbered from 0; `random`: drawn by the environment's reset.
        settle_steps: Steps before the first observation, in which objects come to rest; they do not count.
        settle_action: The action of these steps, (A,).
        max_steps: Steps after which an episode has failed, by suite; the key "" holds for any other.
        image_size: Height and width of pictures in pixels.
        image_transform: What is done to the pictures that the simulator gives, of its robot's `image_transforms`.
            Where they come with the bottom row first, `flip_vertical` puts them upright, `rotate_180` does too but
            mirrors left and right, and `none` leaves them upside down.
        cameras: The cameras that a policy sees.
        proprioception: What `agent_pos` is made of, of the `layouts` of the simulator's robot.
        executed_chunk_length: Actions executed of each predicted chunk; None leaves it to the policy.
        seed: Seed that is used where none is given.

    Raises:
        ValueError: A value is of another type, or out of range; the message names the attribute.
    """

    name: str
    simulator: str
    source: str
    episodes_per_task: int
    initial_states: InitialStates
    settle_steps: int
    settle_action: tuple[float, ...]
    max_steps: Mapping[str, int]
    image_size: int
    image_transform: ImageTransform
    cameras: tuple[str, ...]
    proprioception: str
    executed_chunk_length: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for attribute in ("name", "simulator", "source", "image_transform", "proprioception"):
            self._check(attribute, isinstance(getattr(self, attribute), str), "text")
        for attribute, choices in _CHOICES.items():
            self._check(attribute, getattr(self, attribute) in choices, f"one of {', '.join(choices)}")
        for attribute, least in _LEAST.items():
            self._check(attribute, _is_whole(getattr(self, attribute), least), f"a whole number of at least {least}")
        length = self.executed_chunk_length
        self._check(
            "executed_chunk_length", length is None or _is_whole(length, 1), "a whole number of at least 1, or None"
        )
        steps = self.max_steps
        self._check(
            "max_steps",
            isinstance(steps, Mapping) and len(steps) > 0 and all(_is_whole(value, 1) for value in steps.values()),
            'a mapping from suites to whole numbers of at least 1, such as {"": 200} for any',
        )
        numbers = self.settle_action
        self._check("settle_action", all(isinstance(number, int | float) for number in numbers), "a tuple of numbers")
        self._check(
            "cameras",
            not isinstance(self.cameras, str) and all(isinstance(camera, str) for camera in self.cameras),
            "a tuple of names",
        )

    def _check(self, attribute: str, fits: bool, expected: str) -> None:
        if not fits:
            got = getattr(self, attribute)
            raise ValueError(f"protocol {self.name}: {attribute}: got {got!r}, expected {expected}")

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

    def with_options(self, **options: Any) -> EvaluationProtocol:
        """Return the protocol with some choices changed, under the name `<name>+` and their names.

        Args:
            options: Attributes to change; None leaves one as it is.

        Raises:
            ValueError: There is no such attribute, or a value does not fit it.

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


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def plan_episodes(
    protocol: EvaluationProtocol,
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
