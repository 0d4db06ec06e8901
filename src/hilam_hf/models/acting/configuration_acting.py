"""How a policy acts, and what acting has to know of the networks in it."""

from typing import Any, Literal, Protocol

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


class TrunkConfig(Protocol):
    """What acting asks of the config of a trunk: a network that observes and, if it is the last, predicts chunks.

    Attributes:
        cameras: Names of the cameras that it looks at.
        image_size: Height and width of the frames that it takes, in pixels.
        proprioception_dim: Length of `agent_pos`; None where it takes none.
        language_dim: Length of the instruction's vector; None where it takes no instruction.
        history: Observations that it sees, the current one included.
        action_dim: Length of a vector of its chunks.
        chunk_size: Q, vectors that it predicts at a time.
    """

    cameras: list[str]
    image_size: int
    proprioception_dim: int | None
    language_dim: int | None
    history: int
    action_dim: int
    chunk_size: int


@strict
class ActingConfig(PreTrainedConfig):
    """How a policy turns instructions into vectors and predicted chunks into actions.

    Args:
        language_encoder: Hub id or folder of the frozen text encoder (see [`LanguageEncoder`]).
        execution: "temporal_aggregation" predicts a chunk at every step and averages the predictions for that step;
            "open_loop" executes the first `n_action_steps` of a chunk before it predicts again.
        n_action_steps: Actions executed of each chunk under "open_loop"; None for the whole chunk.
        aggregation_decay: m in the weights exp(-m i), i counting from the oldest prediction.
        training_data: What the demonstrations were like that the policy learnt to act from: how pictures were drawn
            (`mujoco`, its version) and turned (`image_transform`), what `agent_pos` is made of (`proprioception`), and
            whatever else is known. Evaluation compares it with its own; None where nothing is known.
    """

    language_encoder: str = "all-MiniLM-L6-v2"
    execution: Literal["temporal_aggregation", "open_loop"] = "temporal_aggregation"
    n_action_steps: int | None = None
    aggregation_decay: float | int = 0.01
    training_data: dict[str, Any] | None = None

    def validate_acting(self) -> None:
        """The execution options are in range."""
        if self.n_action_steps is not None:
            require_positive("n_action_steps", self.n_action_steps)
        if self.aggregation_decay < 0:
            raise ValueError(f"aggregation_decay must be 0 or more, got {self.aggregation_decay}.")


def check_n_action_steps(n_action_steps: int | None, chunk_size: int) -> None:
    """Raises ValueError where more actions of a chunk are to be executed than it holds."""
    if n_action_steps is not None and n_action_steps > chunk_size:
        raise ValueError(f"n_action_steps={n_action_steps} exceeds chunk_size={chunk_size}; lower it.")


def require_positive(name: str, value: float | int) -> None:
    """Raises ValueError where an option is 0 or less."""
    if value <= 0:
        raise ValueError(f"{name} must be greater than 0, got {value}.")
