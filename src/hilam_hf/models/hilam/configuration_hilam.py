"""Configuration of HiLAM: the H-Net backbone, the losses, and the latent action models that belong to it."""

from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from ..hnet.configuration_hnet import HNetConfig

_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"arch_layout": ["T1", ["T1", ["T2"], "T1"], "T1"], "width": 128, "heads": 4},
    "small": {"arch_layout": ["T2", ["T2", ["T4"], "T2"], "T2"], "width": 256, "heads": 4},
}


@strict
class HiLAMConfig(PreTrainedConfig):
    """Configuration of `HiLAMModel`.

    Args:
        latent_dim: Width D of a latent action.
        hnet_config: The backbone, an `HNetConfig` or its dictionary.
        idm_config: An inverse dynamics model that belongs to the checkpoint, so that skills can be extracted from
            frames. None: latent actions only.
        fdm_config: A forward dynamics model that belongs to the checkpoint, for the reconstruction loss. None: passed
            to `forward`.
        target_ratios: N of the ratio loss for each chunking stage, outermost first: how many tokens a chunk has on
            average, > 1.
        lambda_rec: Weight of the reconstruction loss (eq. 4).
        lambda_ratio: Weight of the ratio loss (eq. 4), for every stage.
        num_reconstruction_steps: Time steps drawn from each batch for the reconstruction loss, which bounds its memory.
        skill_stage: The stage whose tokens are the skills, 1 being the outermost chunking; 2 in the paper.
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

    latent_dim: int = 64
    hnet_config: HNetConfig | dict | None = None
    idm_config: PreTrainedConfig | dict | None = None
    fdm_config: PreTrainedConfig | dict | None = None
    target_ratios: list[float | int] = field(default_factory=lambda: [4.0, 4.0])
    lambda_rec: float | int = 1.0
    lambda_ratio: float | int = 0.03
    num_reconstruction_steps: int = 16
    skill_stage: int = 2
    stride: int | None = 1
    stride_seconds: float | int | None = None
    initializer_range: float = 0.02

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "HiLAMConfig":
        """A configuration of a known size with two chunking stages.

        | name | layout | width | parameters (latent width 64) |
        | --- | --- | --- | --- |
        | tiny | `["T1", ["T1", ["T2"], "T1"], "T1"]` | 128 | 1.10 M |
        | small | `["T2", ["T2", ["T4"], "T2"], "T2"]` | 256 | 8.30 M |

        Args:
            name: `"tiny"` or `"small"`.
            **overrides: Fields of this class to set, `latent_dim` among them.

        Raises:
            ValueError: If the name is unknown.
        """
        if name not in _PRESETS:
            raise ValueError(f"preset: got {name!r}, expected one of {sorted(_PRESETS)}. Pick one of them.")
        preset = _PRESETS[name]
        width, heads = preset["width"], preset["heads"]
        backbone = HNetConfig(
            arch_layout=preset["arch_layout"],
            d_model=[width] * 3,
            d_intermediate=[2 * width] * 3,
            num_heads=[heads] * 3,
            rotary_emb_dim=[width // heads // 2] * 3,
            window_size=[-1] * 3,
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

    def validate_stages(self) -> None:
        """Checks the target ratios and the skill stage against the backbone's stages."""
        stages = self.num_stages
        if len(self.target_ratios) != stages:
            raise ValueError(
                f"target_ratios: got {len(self.target_ratios)} ({self.target_ratios}), expected {stages}, one for "
                f"each chunking stage of arch_layout {self.backbone.arch_layout}. Add or remove entries."
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
        """Checks that sizes are positive and weights not negative."""
        for name in ("latent_dim", "num_reconstruction_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 1 or more. Raise it.")
        for name in ("lambda_rec", "lambda_ratio"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 or more. Use 0 to leave the term out.")
