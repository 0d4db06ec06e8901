"""Configuration of the BAKU trunk and of the policy that acts with it (Haldar et al., 2024)."""

from dataclasses import field
from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from ..acting.configuration_acting import ActingConfig, check_n_action_steps, require_positive
from ..acting.language import DEFAULT_LANGUAGE_DIM, fitting_language_dim
from ..limits import MAX_STAGES, check_limit, check_limits

_SIZES = (
    *("image_size", "vision_widths", "num_keypoints", "token_dim", "proprioception_dim", "language_dim"),
    *("condition_dim", "hidden_size", "num_heads", "max_positions", "action_dim", "chunk_size"),
)


@strict
class BakuConfig(ActingConfig):
    """Shape of a [`BakuModel`], and how a [`BakuPolicy`] acts with it; the defaults are the published LIBERO settings.

    Every modality is optional and brings its own token. The sequence is: language, then per step the cameras in
    their order, proprioception, condition and the learned action token.

    Args:
        cameras: Names of the cameras, in token order.
        image_size: Height and width of the frames that the encoder takes, in pixels.
        vision_widths: Channels of each residual stage; the stem has the first.
        vision_groups: Groups of every group norm; must divide every width.
        num_keypoints: Maps of the spatial softmax, each giving one (row, column) point.
        token_dim: Width of every token before the transformer.
        film_source: What modulates the vision encoder: the language token, the condition token, or nothing.
        share_camera_encoder: One vision encoder for all cameras rather than one each.
        has_vision_encoder: False for a model that is handed finished camera tokens.
        proprioception_dim: Length of `agent_pos`; None for no such token.
        language_dim: Length of the instruction embedding; None for no such token. Where `language_encoder` is set and
            this is not, it is read from the encoder's configuration.
        condition_dim: Length of the extra condition vector, such as a predicted skill; None for no such token.
        hidden_size, num_layers, num_heads, max_positions, dropout: The transformer.
        history: Observations that the policy keeps while acting, the current one included.
        action_dim, chunk_size: A and Q: each step predicts Q vectors of length A.
        use_tanh: Bound the predictions to (-1, 1), for targets normalised to that range.
        action_std: Fixed standard deviation of the Gaussian whose negative log-likelihood is the loss.
    """

    model_type = "baku"

    cameras: list[str] = field(default_factory=lambda: ["pixels", "pixels_egocentric"])
    image_size: int = 128
    vision_widths: list[int] = field(default_factory=lambda: [64, 128])
    vision_groups: int = 8
    num_keypoints: int = 256
    token_dim: int = 512
    film_source: Literal["language", "condition"] | None = "language"
    share_camera_encoder: bool = True
    has_vision_encoder: bool = True
    proprioception_dim: int | None = None
    language_dim: int | None = DEFAULT_LANGUAGE_DIM
    condition_dim: int | None = None
    hidden_size: int = 256
    num_layers: int = 8
    num_heads: int = 4
    max_positions: int = 65
    dropout: float | int = 0.1
    history: int = 1
    action_dim: int = 7
    chunk_size: int = 10
    use_tanh: bool = True
    action_std: float | int = 0.1

    def __post_init__(self, **kwargs: Any) -> None:
        self.language_dim = fitting_language_dim(self.language_encoder, self.language_dim)
        super().__post_init__(**kwargs)

    @property
    def step_tokens(self) -> list[str]:
        """Names of the tokens of one step, in order, the action token last."""
        optional = {"agent_pos": self.proprioception_dim, "condition": self.condition_dim}
        return [*self.cameras, *(name for name, size in optional.items() if size is not None), "action"]

    def token_layout(self, num_steps: int) -> list[tuple[int | None, str]]:
        """(step, token name) of every position of a sequence of `num_steps` steps; the step of language is None."""
        prompt: list[tuple[int | None, str]] = [] if self.language_dim is None else [(None, "language")]
        return prompt + [(step, name) for step in range(num_steps) for name in self.step_tokens]

    def validate_sizes(self) -> None:
        """Every size is positive and within bounds, and heads and groups divide what they split."""
        check_limits(self, layers=("num_layers", "history"), sizes=_SIZES)
        check_limit("vision_widths", len(self.vision_widths), MAX_STAGES)
        for name in ("image_size", "vision_groups", "num_keypoints", "token_dim", "hidden_size", "num_layers"):
            require_positive(name, getattr(self, name))
        for name in ("num_heads", "max_positions", "history", "action_dim", "chunk_size", "action_std"):
            require_positive(name, getattr(self, name))
        for name in ("proprioception_dim", "language_dim", "condition_dim"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}; change one of them."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}.")

    def validate_cameras(self) -> None:
        """Camera names are distinct and usable as module names; widths fit the group norm."""
        reserved = {"agent_pos", "condition", "action"}.intersection(self.cameras)
        if reserved or len(set(self.cameras)) != len(self.cameras) or any("." in c or not c for c in self.cameras):
            raise ValueError(
                f"cameras must be distinct non-empty names without dots, other than agent_pos, condition and action; "
                f"got {self.cameras}."
            )
        bad = [width for width in self.vision_widths if width < 1 or width % self.vision_groups]
        if bad or not self.vision_widths:
            raise ValueError(
                f"vision_widths must be one or more multiples of vision_groups ({self.vision_groups}), "
                f"got {self.vision_widths}."
            )

    def validate_tokens(self) -> None:
        """There is something to see, FiLM has its source, and the sequence fits the position table."""
        if len(self.step_tokens) == 1:
            raise ValueError(
                "A policy needs an observation: set cameras, proprioception_dim or condition_dim (all are absent)."
            )
        source_size = {"language": self.language_dim, "condition": self.condition_dim}
        if self.film_source is not None and source_size[self.film_source] is None:
            raise ValueError(
                f"film_source={self.film_source!r} needs {self.film_source}_dim; set it, or film_source=None."
            )
        length = len(self.token_layout(self.history))
        if length > self.max_positions:
            raise ValueError(
                f"history={self.history} makes sequences of {length} tokens but max_positions is "
                f"{self.max_positions}; raise max_positions or shorten history."
            )

    def validate_n_action_steps(self) -> None:
        """A chunk holds as many actions as are executed of it."""
        check_n_action_steps(self.n_action_steps, self.chunk_size)
