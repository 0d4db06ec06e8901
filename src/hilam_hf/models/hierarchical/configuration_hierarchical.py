"""Configuration of the hierarchical policy."""

from dataclasses import field
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import SubConfigSpec

from ..acting.configuration_acting import ActingConfig, check_n_action_steps
from ..acting.language import fitting_language_dim
from ..baku.configuration_baku import BakuConfig
from ..limits import check_limits

RegressionLoss = Literal["mse", "l1", "smooth_l1"]


@strict
class HierarchicalPolicyConfig(ActingConfig):
    """Two BAKU trunks and what flows between them.

    Given as dicts, the trunks' configs need only what is particular: what follows from `skill_dim`, `latent_dim` and
    `action_dim` is filled in. pi^l then takes the skill as its condition token and for FiLM, and no language. How
    the policy acts (`language_encoder`, `execution`, ...) is said here, not in the trunks' configs.

    Args:
        high_config: Trunk of pi^h, which predicts one skill per step.
        low_config: Trunk of pi^l, which predicts latent actions and, after `prepare_for_finetuning`, action chunks.
        skill_dim: Length of a latent skill z^h.
        latent_dim: Length of a latent action z^l.
        action_dim: Length of a robot action; None until the policy has been prepared for fine-tuning.
        stage: HiLAM stage that the skills come from, for the record (2 in the paper).
        skill_loss, latent_loss, action_loss: Regression losses on normalised targets.
        skill_loss_weight, latent_loss_weight: Their weights in pretraining.
        detach_skill: No gradient from pi^l's loss into pi^h.
        share_vision_encoder: pi^l takes pi^h's camera tokens rather than encoding the frames itself.
        high_level_frozen: pi^h takes no part in training; see `HierarchicalPolicy.freeze_high_level`.
        fresh_modules: Modules of pi^l that pretraining did not train; kept by `prepare_for_finetuning`.

    Example:
        >>> trunk = {"cameras": ["front"], "image_size": 64, "vision_widths": [32, 64], "hidden_size": 128}
        >>> config = HierarchicalPolicyConfig(high_config=trunk, low_config=trunk, skill_dim=32, latent_dim=16)
        >>> config.high_config.action_dim, config.low_config.condition_dim
        (32, 32)
    """

    model_type = "hierarchical_policy"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "high_config": SubConfigSpec(BakuConfig),
        "low_config": SubConfigSpec(BakuConfig),
    }

    high_config: BakuConfig | dict | None = None
    low_config: BakuConfig | dict | None = None
    skill_dim: int = 64
    latent_dim: int = 64
    action_dim: int | None = None
    stage: int = 2
    skill_loss: RegressionLoss = "mse"
    latent_loss: RegressionLoss = "mse"
    action_loss: RegressionLoss = "mse"
    skill_loss_weight: float | int = 1.0
    latent_loss_weight: float | int = 1.0
    detach_skill: bool = True
    share_vision_encoder: bool = False
    high_level_frozen: bool = False
    fresh_modules: list[str] = field(default_factory=list)

    def __post_init__(self, **kwargs: Any) -> None:
        high = {"action_dim": self.skill_dim, "chunk_size": 1, "use_tanh": False}
        low = {
            "action_dim": self.latent_dim if self.action_dim is None else self.action_dim,
            "chunk_size": 1,
            "use_tanh": self.action_dim is not None,
            "condition_dim": self.skill_dim,
            "language_dim": None,
            "film_source": None if self.share_vision_encoder else "condition",
            "has_vision_encoder": not self.share_vision_encoder,
        }
        if not isinstance(self.high_config, BakuConfig):
            self.high_config = high | (self.high_config or {})
        if not isinstance(self.low_config, BakuConfig):
            self.low_config = low | (self.low_config or {})
        super().__post_init__(**kwargs)
        for trunk in (self.high_config, self.low_config):
            trunk.language_dim = fitting_language_dim(self.language_encoder, trunk.language_dim)

    def validate_dimensions(self) -> None:
        """The trunks predict and take what the dimensions say, and these are within bounds."""
        check_limits(self, sizes=("skill_dim", "latent_dim", "action_dim"))
        low_action_dim = self.latent_dim if self.action_dim is None else self.action_dim
        low_action_name = "latent_dim" if self.action_dim is None else "action_dim"
        for name, got, source, expected in (
            ("high_config.action_dim", self.high_config.action_dim, "skill_dim", self.skill_dim),
            ("high_config.chunk_size", self.high_config.chunk_size, "one skill a step", 1),
            ("high_config.condition_dim", self.high_config.condition_dim, "no condition", None),
            ("low_config.condition_dim", self.low_config.condition_dim, "skill_dim", self.skill_dim),
            ("low_config.action_dim", self.low_config.action_dim, low_action_name, low_action_dim),
        ):
            if got != expected:
                raise ValueError(f"{name} must be {expected} ({source}), got {got}.")
        if self.high_config.use_tanh:
            raise ValueError("high_config.use_tanh must be False: standardised skills are not bounded.")
        if self.action_dim is None and self.low_config.use_tanh:
            raise ValueError("low_config.use_tanh must be False in pretraining: latent actions are not bounded.")
        for name in ("proprioception_dim", "language_dim"):
            high, low = getattr(self.high_config, name), getattr(self.low_config, name)
            if None not in (high, low) and high != low:
                raise ValueError(f"high_config and low_config disagree on {name}: {high} and {low}.")

    def validate_sharing(self) -> None:
        """With a shared vision encoder, pi^l has none of its own and takes tokens that fit."""
        if self.low_config.has_vision_encoder == self.share_vision_encoder:
            raise ValueError("low_config.has_vision_encoder must be the opposite of share_vision_encoder.")
        if not self.share_vision_encoder:
            return
        if not self.high_config.share_camera_encoder or self.high_config.film_source == "condition":
            raise ValueError("share_vision_encoder needs a high_config with share_camera_encoder=True.")
        for name in ("image_size", "token_dim"):
            if getattr(self.high_config, name) != getattr(self.low_config, name):
                raise ValueError(f"share_vision_encoder needs the same {name} in high_config and low_config.")

    def validate_execution(self) -> None:
        """A chunk holds as many actions as are executed of it."""
        if self.action_dim is not None:
            check_n_action_steps(self.n_action_steps, self.low_config.chunk_size)
