"""Configuration of HiLAM: the H-Net backbone, the losses, and the latent action models that belong to it."""

from dataclasses import field
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from ..hnet.configuration_hnet import HNetConfig
from ..latent_actions.auto import register_kinds_of_other_packages
from ..limits import check_limits

_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"arch_layout": ["T1", ["T1", ["T2"], "T1"], "T1"], "widths": [128, 128, 128], "head_width": 32},
    "small": {"arch_layout": ["T2", ["T2", ["T4"], "T2"], "T2"], "widths": [256, 256, 256], "head_width": 64},
    "base": {"arch_layout": ["T4", ["T4", ["T8"], "T4"], "T4"], "widths": [384, 512, 768], "head_width": 64},
    "large": {"arch_layout": ["T4", ["T4", ["T16"], "T4"], "T4"], "widths": [512, 768, 1280], "head_width": 64},
}
_PRESET_WINDOWS = [63, 63, 255]


@strict
class HiLAMConfig(PreTrainedConfig):
    """Configuration of `HiLAMModel`.

    Args:
        latent_type: `"continuous"` latent actions are vectors, standardised and compared by L1; `"discrete"` ones are
            code indices, embedded and compared by cross-entropy.
        latent_dim: Width D of a latent action. It follows `num_codes` where latent actions are discrete.
        num_codes: Codes of a discrete latent action, one a position (4 in LAPA).
        codebook_size: Values that each code can take (8 in LAPA).
        code_dim: Width of the vectors that the codes stand for, in the codebook that the checkpoint keeps for the
            reconstruction loss. None: no codebook yet; `HiLAMModel.set_codebook` sets both.
        hnet_config: The backbone, an `HNetConfig` or its dictionary.
        idm_config: An inverse dynamics model that belongs to the checkpoint, so that skills can be extracted from
            frames. None: latent actions only.
        fdm_config: A forward dynamics model that belongs to the checkpoint, for the reconstruction loss. None: passed
            to `forward`.
        target_ratios: N of the ratio loss for each chunking stage, outermost first: how many tokens a chunk has on
            average, > 1.
        lambda_rec: Weight of the reconstruction loss (eq. 4).
        lambda_ratio: Weight of the ratio loss (eq. 4): one number for every stage, or one for each.
        num_reconstruction_steps: Time steps drawn of each sequence for the reconstruction loss, all of one that has
            fewer; bounds its memory.
        skill_stage: The stage whose tokens are the skills, 1 being the outermost chunking; 2 in the paper.
        skill_token: Which of a segment's encoder features is its skill: the `"first"` (the paper, and what the network
            itself passes inwards), the `"last"`, or their `"mean"`.
        idm_fingerprint: `weights_fingerprint` of the inverse dynamics model whose latent actions the model is trained
            on. None: not known.
        stride: k, the number of frames between the two frames of a latent action. None: `stride_seconds` says it.
        stride_seconds: k in seconds, for corpora whose episodes differ in rate.
        initializer_range: Standard deviation of the fresh input and output projections.

    Raises:
        StrictDataclassError: If a value has the wrong type or form; the message says what was expected.

    Example:
        >>> HiLAMConfig.preset("tiny", latent_dim=32, stride=5).hnet_config.d_model
        [128, 128, 128]
    """

    model_type = "hilam"
    sub_configs_defaults = {  # noqa: RUF012 - the base class turns this into a ClassVar
        "hnet_config": SubConfigSpec(HNetConfig),
        "idm_config": SubConfigSpec(AutoConfig, model_type="uniskill_idm", optional=True),
        "fdm_config": SubConfigSpec(AutoConfig, model_type="regression_fdm", optional=True),
    }

    latent_type: Literal["continuous", "discrete"] = "continuous"
    latent_dim: int = 64
    num_codes: int = 4
    codebook_size: int = 8
    code_dim: int | None = None
    hnet_config: HNetConfig | dict | None = None
    idm_config: PreTrainedConfig | dict | None = None
    fdm_config: PreTrainedConfig | dict | None = None
    target_ratios: list[float | int] = field(default_factory=lambda: [4.0, 4.0])
    lambda_rec: float | int = 1.0
    lambda_ratio: float | int | list[float | int] = 0.03
    num_reconstruction_steps: int = 1
    skill_stage: int = 2
    skill_token: Literal["first", "last", "mean"] = "first"
    idm_fingerprint: str | None = None
    stride: int | None = 1
    stride_seconds: float | int | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if self.latent_type == "discrete":
            self.latent_dim = self.num_codes
        if isinstance(self.idm_config, dict) or isinstance(self.fdm_config, dict):
            register_kinds_of_other_packages()
        super().__post_init__(**kwargs)

    @classmethod
    def preset(
        cls, name: str, *, routing: Literal["learned", "identity"] = "learned", **overrides: Any
    ) -> "HiLAMConfig":
        """A configuration of a known size with two chunking stages.

        | name | layout | widths | parameters (latent width 64) |
        | --- | --- | --- | --- |
        | tiny | `["T1", ["T1", ["T2"], "T1"], "T1"]` | 128, 128, 128 | 1.10 M |
        | small | `["T2", ["T2", ["T4"], "T2"], "T2"]` | 256, 256, 256 | 8.30 M |
        | base | `["T4", ["T4", ["T8"], "T4"], "T4"]` | 384, 512, 768 | 81.26 M |
        | large | `["T4", ["T4", ["T16"], "T4"], "T4"]` | 512, 768, 1280 | 332.99 M |

        Heads are 64 wide (32 in tiny), half of it rotated. A position sees the 63 latent actions before it, the 63
        chunks of stage 1, and the 255 chunks of stage 2: cost is linear in the length, and constant per step when
        streaming.

        Args:
            name: `"tiny"`, `"small"`, `"base"` or `"large"`.
            routing: What boundaries compare, see `HNetConfig`. Learned projections, as published, predict better; with
                `"identity"` and `lambda_ratio` of 1 or more, boundaries follow changes of motion
                (`docs/segmentation.md`).
            **overrides: Fields of this class to set, `latent_dim` among them.

        Raises:
            ValueError: If the name is unknown.
        """
        if name not in _PRESETS:
            raise ValueError(f"preset: got {name!r}, expected one of {sorted(_PRESETS)}. Pick one of them.")
        preset = _PRESETS[name]
        widths, head_width = preset["widths"], preset["head_width"]
        backbone = HNetConfig(
            arch_layout=preset["arch_layout"],
            d_model=list(widths),
            d_intermediate=[2 * width for width in widths],
            num_heads=[width // head_width for width in widths],
            rotary_emb_dim=[head_width // 2] * len(widths),
            window_size=list(_PRESET_WINDOWS),
            routing=routing,
        )
        return cls(**{"hnet_config": backbone, **overrides})

    @property
    def num_stages(self) -> int:
        """Number of chunking stages, and so of stages that have skills."""
        return self.backbone.num_chunking_stages

    @property
    def backbone(self) -> "HNetConfig":
        """`hnet_config`, which is an `HNetConfig` once this configuration is made."""
        assert isinstance(self.hnet_config, HNetConfig)
        return self.hnet_config

    @property
    def is_discrete(self) -> bool:
        """Whether latent actions are code indices."""
        return self.latent_type == "discrete"

    @property
    def ratio_weights(self) -> list[float]:
        """Weight of each stage's ratio loss, outermost first."""
        weights = self.lambda_ratio
        return [float(weight) for weight in (weights if isinstance(weights, list) else [weights] * self.num_stages)]

    def validate_stages(self) -> None:
        """Checks the target ratios, their weights and the skill stage against the backbone's stages."""
        stages = self.num_stages
        per_stage = {"target_ratios": self.target_ratios, "lambda_ratio": self.lambda_ratio}
        for name, values in per_stage.items():
            if isinstance(values, list) and len(values) != stages:
                raise ValueError(
                    f"{name}: got {len(values)} ({values}), expected {stages}, one for each chunking stage of "
                    f"arch_layout {self.backbone.arch_layout}. Add or remove entries."
                )
        if any(ratio <= 1 for ratio in self.target_ratios):
            raise ValueError(
                f"target_ratios: got {self.target_ratios}, expected values above 1 (tokens per chunk). Use 2 or more."
            )
        if not 0 <= self.skill_stage <= stages:
            raise ValueError(
                f"skill_stage: got {self.skill_stage}, expected 0 (the latent actions) to {stages}, the number of "
                "chunking stages. Lower it, or use a deeper arch_layout."
            )

    def stride_at(self, fps: float | None) -> int:
        """k in frames for a video of `fps` frames a second, at least 1.

        Raises:
            ValueError: If k is given in seconds and the rate is not known.
        """
        if self.stride is not None:
            return self.stride
        if fps is None:
            raise ValueError(
                f"fps: got none, but this model's stride is {self.stride_seconds} s. Give the video's rate."
            )
        assert self.stride_seconds is not None
        return max(1, round(self.stride_seconds * fps))

    def validate_stride(self) -> None:
        """Checks that the stride is given once, in frames or in seconds, and is positive."""
        if (self.stride is None) == (self.stride_seconds is None):
            raise ValueError(
                f"stride: got {self.stride} frames and {self.stride_seconds} seconds, expected one of them. "
                "Set the other to None."
            )
        value = self.stride_seconds if self.stride is None else self.stride
        if value is not None and value <= 0:
            raise ValueError(f"stride: got {value}, expected a number above 0. Raise it.")

    def validate_sizes(self) -> None:
        """Checks that sizes are positive and within bounds, and weights not negative."""
        check_limits(self, sizes=("latent_dim", "num_codes", "codebook_size", "code_dim", "num_reconstruction_steps"))
        minima = {"latent_dim": 1, "num_codes": 1, "codebook_size": 2, "code_dim": 1, "num_reconstruction_steps": 1}
        for name, least in minima.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}: got {value}, expected {least} or more. Raise it.")
        for name, weights in (("lambda_rec", [self.lambda_rec]), ("lambda_ratio", self.ratio_weights)):
            if any(weight < 0 for weight in weights):
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 or more. Use 0 to leave the term out.")
