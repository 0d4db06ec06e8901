"""What a policy says of itself to whoever rolls it out. Models and evaluation share it; it needs neither."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ActingSpec:
    """What a policy looks at, what it gives, and what is recorded of it. Everything is optional.

    Attributes:
        cameras: Names of the cameras that it looks at; none where it looks at no pictures; None where it does not say.
        agent_pos_dim: P, the length of the proprioception that it takes; None for any.
        action_dim: A, the length of its actions; None for as many as the environment takes.
        extra_observations: What it sees besides pictures, `agent_pos` and the instruction, of
            `hilam_hf.evaluation.rollouts.policies.EXTRA_OBSERVATIONS`.
        expert_noise: Standard deviation of the noise on `expert_action`, if that is among `extra_observations`.
        has_chunks: Whether it predicts chunks of actions; None where it does not say.
        executed_chunk_length: Actions that are executed of each chunk; None without chunks.
        image_transform: How the pictures that it takes differ from those of the renderer, for the record.
        training_data: What is known of the demonstrations that it learnt from; evaluation compares `image_transform`,
            `proprioception` and `mujoco` with its own.
        settings: What decides its actions besides weights and chunk length, for the record.
        name: Its name, folder or Hub id.
        revision: Commit of the Hub that it was loaded from.
        device: Type of the device on which it computes, such as "cpu".
    """

    cameras: tuple[str, ...] | None = None
    agent_pos_dim: int | None = None
    action_dim: int | None = None
    extra_observations: tuple[str, ...] = ()
    expert_noise: float = 0.0
    has_chunks: bool | None = None
    executed_chunk_length: int | None = None
    image_transform: str | None = None
    training_data: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None
    name: str | None = None
    revision: str | None = None
    device: str | None = None
