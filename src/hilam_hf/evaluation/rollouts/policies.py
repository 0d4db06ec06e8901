"""What a policy has to offer to be evaluated, and two that need no training: the scripted expert and chance."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...acting_spec import ActingSpec
from ...envs.protocols import EvaluationProtocol
from ...envs.registry import get_simulator

HOST_EXTRAS = ("privileged", "expert_action")
"""Extra observations that the simulator's process makes."""
EXTRA_OBSERVATIONS = (*HOST_EXTRAS, "task_name", "episode_seed", "action_dim")
"""What a policy may ask for besides pictures, `agent_pos` and the instruction."""


@runtime_checkable
class Policy(Protocol):
    """Anything that turns observations into actions; these two methods are enough.

    A batch of B observations is `{"pixels": {camera: uint8 (B, H, W, 3)}, "agent_pos": float32 (B, P),
    "task": list[str]}`, where `task` is the instruction in words. Its arrays are used again for the next batch: copy
    what has to be kept.

    A policy may say more of itself in `acting_spec`, an [`ActingSpec`], which is checked before the first episode and
    recorded. What it asks for in `extra_observations` comes with the batch: `expert_action` (float32 (B, A), what the
    simulator's scripted expert does), `privileged` (float64 (B, N), the simulator's whole state), `task_name`
    (list[str]), `episode_seed` (int64 (B,)), `action_dim` (A, one number).

    `select_action` may have a second parameter `active`, a list of rows: only these take a step, the others wait for
    their simulators, and must be neither looked at nor advanced. A policy without it is called only once all
    simulators have answered, so that the slowest sets the pace.

    What else a policy may offer: [`ReadsSelectively`], [`ExecutesChunks`], [`PredictsInBatches`].
    """

    def reset(self, indices: Sequence[int] | None = None) -> None:
        """Forget the episode of these rows of the batch; None forgets everything."""

    def select_action(self, observation: dict[str, Any]) -> NDArray[np.float32]:
        """Return float32 (B, A) in the environment's units for a batch, (A,) for one observation."""


@runtime_checkable
class ReadsSelectively(Protocol):
    """A policy that does not look at every picture, so that the others need not be drawn."""

    def reads_next(self) -> Sequence[bool] | NDArray[np.bool_]:
        """Return (B,), which rows look at pictures in their next step; the others see the last ones again."""


@runtime_checkable
class ExecutesChunks(Protocol):
    """A policy that can be told how many actions of each predicted chunk it executes."""

    def execute_chunks(self, length: int | None) -> None:
        """Execute `length` actions of each chunk; None goes back to the policy's own number."""


@runtime_checkable
class PredictsInBatches(Protocol):
    """A policy that can be told how many rows it predicts at once, which then decides nothing else."""

    acting_batch_size: int | None

    def predict_in_batches(self, size: int | None) -> None:
        """Set `acting_batch_size`; None predicts all rows together."""


class ExpertPolicy:
    """The simulator's scripted experts as a policy; they run beside the simulator, whose whole state they see.

    Args:
        noise: Standard deviation of the noise on their actions. It depends on the episode's seed alone.
    """

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise

    @property
    def acting_spec(self) -> ActingSpec:
        """What the experts look at, and what is recorded of them."""
        return ActingSpec(
            name="expert",
            cameras=(),
            extra_observations=("expert_action",),
            expert_noise=self.noise,
            has_chunks=False,
            settings={"noise": self.noise},
        )

    def reset(self, indices: Sequence[int] | None = None) -> None:
        """Do nothing: an expert begins anew with each episode."""

    def select_action(self, observation: dict[str, Any], active: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return the experts' actions, float32 (B, A)."""
        return np.asarray(observation["expert_action"], dtype=np.float32)


class RandomPolicy:
    """Actions drawn uniformly from [-1, 1]; the draws depend on the policy's and the episode's seed alone.

    Args:
        action_dim: Numbers in an action; None for as many as the environment takes.
        seed: The policy's own seed.
    """

    def __init__(self, action_dim: int | None = None, seed: int = 0) -> None:
        self.action_dim = action_dim
        self.seed = seed
        self._generators: dict[int, np.random.Generator] = {}

    @property
    def acting_spec(self) -> ActingSpec:
        """What the policy looks at, and what is recorded of it."""
        return ActingSpec(
            name="random",
            cameras=(),
            action_dim=self.action_dim,
            extra_observations=("episode_seed", "action_dim"),
            has_chunks=False,
            settings={"seed": self.seed},
        )

    def reset(self, indices: Sequence[int] | None = None) -> None:
        """Start the draws of these rows anew."""
        for row in list(self._generators) if indices is None else indices:
            self._generators.pop(row, None)

    def select_action(self, observation: dict[str, Any], active: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return random actions, float32 (B, A), zeros for rows that wait."""
        seeds = observation["episode_seed"]
        actions = np.zeros((len(seeds), self.action_dim or observation["action_dim"]), dtype=np.float32)
        for row in range(len(seeds)) if active is None else active:
            actions[row] = self._draw(row, int(seeds[row]), actions.shape[1])
        return actions

    def _draw(self, row: int, episode_seed: int, action_dim: int) -> NDArray[np.float64]:
        if row not in self._generators:
            self._generators[row] = np.random.default_rng((self.seed, episode_seed))
        return self._generators[row].uniform(-1.0, 1.0, action_dim)


def spec_of(policy: Policy) -> ActingSpec:
    """Return what a policy says of itself in `acting_spec`; of one without it nothing is known.

    Raises:
        ValueError: It has no actions yet, or asks for an observation that there is not.
    """
    spec: ActingSpec = getattr(policy, "acting_spec", None) or ActingSpec()
    if unknown := sorted(set(spec.extra_observations) - set(EXTRA_OBSERVATIONS)):
        raise ValueError(
            f"{type(policy).__name__}: extra_observations asks for {', '.join(unknown)}; "
            f"there are {', '.join(EXTRA_OBSERVATIONS)}"
        )
    return spec


def takes_active_rows(policy: Policy) -> bool:
    """Return whether a policy can take steps of some rows while others wait."""
    parameters = inspect.signature(policy.select_action).parameters.values()
    return any(item.name == "active" or item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters)


def looks_at_pictures(policy: Policy) -> bool:
    """Return whether a policy looks at pictures at all; one that says nothing of its cameras may."""
    cameras = spec_of(policy).cameras
    return cameras is None or bool(cameras)


@contextmanager
def acting_as_evaluated(policy: Policy, protocol: EvaluationProtocol, batch_size: int | None) -> Iterator[None]:
    """Within it a policy executes chunks as a protocol says, and predicts in batches of a fixed size.

    One on a CPU uses a single thread: the simulators take the other cores, and its numbers then do not depend on how
    many there are.

    Args:
        policy: The policy.
        protocol: Whose `executed_chunk_length` holds, if it has one.
        batch_size: Rows that are predicted at once; None leaves it to the policy.

    Raises:
        ValueError: The policy cannot.
    """
    with _executed_chunks(policy, protocol), _batch_size(policy, batch_size), _single_thread(policy):
        yield


@contextmanager
def _executed_chunks(policy: Policy, protocol: EvaluationProtocol) -> Iterator[None]:
    length, spec = protocol.executed_chunk_length, spec_of(policy)
    if length is None or spec.has_chunks is False:
        yield
    elif isinstance(policy, ExecutesChunks):
        policy.execute_chunks(length)
        try:
            yield
        finally:
            policy.execute_chunks(None)
    elif spec.executed_chunk_length == length:
        yield
    else:
        raise ValueError(
            f"protocol {protocol.name} executes {length} actions of each chunk, which {type(policy).__name__} cannot "
            f"be told: it has no execute_chunks(); leave executed_chunk_length to the policy"
        )


@contextmanager
def _batch_size(policy: Policy, size: int | None) -> Iterator[None]:
    if size is None or not isinstance(policy, PredictsInBatches):
        yield
        return
    before = policy.acting_batch_size
    policy.predict_in_batches(size)
    try:
        yield
    finally:
        policy.predict_in_batches(before)


@contextmanager
def _single_thread(policy: Policy) -> Iterator[None]:
    if spec_of(policy).device != "cpu":
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prediction_batch_size(policy: Policy, wanted: int | None = None) -> int | None:
    """Return the rows that a policy predicts at once: by default 1 on a CPU and 16 elsewhere.

    Args:
        policy: The policy; None comes back for one without `predict_in_batches`.
        wanted: Another number.

    Raises:
        ValueError: The number is below 1, or the policy cannot be told.
    """
    adjustable = isinstance(policy, PredictsInBatches)
    if wanted is not None and (wanted < 1 or not adjustable):
        reason = "must be at least 1" if wanted < 1 else f"is not for {type(policy).__name__}, which fixes its own"
        raise ValueError(f"policy_batch_size {reason}, got {wanted}")
    if not adjustable or wanted is not None:
        return wanted
    return 1 if spec_of(policy).device in (None, "cpu") else 16


def check_fit(policy: Policy, protocol: EvaluationProtocol, *, render: bool) -> None:
    """See that a policy's cameras and actions, and what it learnt to see and feel, are those of a protocol.

    Raises:
        ValueError: They are not; the message names both sides and what to do.
    """
    name, spec = type(policy).__name__, spec_of(policy)
    cameras = spec.cameras or ()
    if cameras and not render:
        raise ValueError(f"{name} looks at {', '.join(cameras)}, but nothing is drawn; leave out render=False")
    if missing := [camera for camera in cameras if camera not in protocol.cameras]:
        raise ValueError(
            f"{name} looks at camera {', '.join(missing)}, but protocol {protocol.name} gives "
            f"{', '.join(protocol.cameras)}; choose the protocol's with protocol.with_options(cameras=...), or name "
            f"the policy's after them with prepare_for_finetuning(rename_cameras=...)"
        )
    for choice in ("image_transform", "proprioception"):
        learnt, given = (spec.training_data or {}).get(choice), getattr(protocol, choice)
        if learnt not in (None, given):
            raise ValueError(
                f"{name} was trained with {choice} {learnt}, but protocol {protocol.name} has {given}; choose another "
                f"protocol, or change this one with protocol.with_options({choice}={learnt!r})"
            )
    expected = environment_action_dim(protocol)
    if spec.action_dim not in (None, expected):
        raise ValueError(
            f"{name} gives actions of {spec.action_dim} numbers, but {protocol.simulator} takes {expected}; evaluate a "
            f"policy that was fine-tuned on demonstrations from {protocol.simulator}"
        )


def check_agent_pos(policy: Policy, protocol: EvaluationProtocol, agent_pos: NDArray[np.float32]) -> None:
    """See that the proprioception of an observation is what a policy takes.

    Raises:
        ValueError: It has another length.
    """
    size = spec_of(policy).agent_pos_dim
    if size is not None and agent_pos.shape != (size,):
        raise ValueError(
            f"{type(policy).__name__} takes agent_pos of {size} numbers, but protocol {protocol.name} gives "
            f"{len(agent_pos)} ({protocol.proprioception}); choose the layout that the policy was trained with, by "
            f"protocol.with_options(proprioception=...)"
        )


def environment_action_dim(protocol: EvaluationProtocol) -> int:
    """Return the numbers in an action of a protocol's simulator."""
    return get_simulator(protocol.simulator).robot.action_dim
