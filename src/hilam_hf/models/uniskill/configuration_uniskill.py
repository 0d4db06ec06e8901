"""Configurations of UniSkill's inverse dynamics model (IDM) and of the forward dynamics model (FDM) beside it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import field
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, ResNetConfig
from transformers.configuration_utils import SubConfigSpec

from ..limits import check_limits

DEPTH_MODEL = "depth-anything/Depth-Anything-V2-Small-hf"
"""Hub id of the depth network with which UniSkill is trained."""

_RESNET_18: dict[str, Any] = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 64,
    "hidden_sizes": [64, 128, 256, 512],
    "depths": [2, 2, 2, 2],
}
_IDM_PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "small": {
        "image_size": 96,
        "backbone_config": _RESNET_18 | {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 128]},
        "depth_model": None,
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "linear_initializer_range": None,
    },
    "light": {
        "image_size": 64,
        "patch_size": 8,
        "backbone_config": None,
        "depth_model": None,
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "linear_initializer_range": None,
        "initializer_range": 0.02,
    },
}
# Stable Diffusion 1.5 as InstructPix2Pix (Brooks et al. 2023) extends it: four more input channels for the image.
_PUBLISHED_UNET: dict[str, Any] = {
    "sample_size": 32,
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
_PUBLISHED_VAE: dict[str, Any] = {
    "sample_size": 256,
    "latent_channels": 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "scaling_factor": 0.18215,
}
_PUBLISHED_SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}

Sampler = Literal["ddim", "ddpm", "euler_discrete"]


@strict
class UniSkillIDMConfig(PreTrainedConfig):
    """Configuration of [`UniSkillIDM`]. The defaults are the published model; see `preset` for smaller ones.

    What a patch token is made of: ResNet features and depth (published), ResNet features alone (`depth_model=None`), or
    the pixels themselves (`backbone_config=None`), with depth or without.

    Args:
        image_size: Side in pixels of the square frames that the model sees.
        patch_size: Side in pixels of the cell that a token stands for; must divide `image_size`.
        num_channels: Colour channels of a frame; 3 with a ResNet or depth.
        backbone_config: The ResNet, a transformers `ResNetConfig` or its dictionary, whose last feature map is resized
            to the grid of patches. None: a linear projection of each patch's pixels in its place.
        depth_model: Hub id or folder of the depth network, which is loaded when it is first used and kept in no
            checkpoint. None: no depth.
        depth_batch_size: Frames that the depth network takes at a time, which bounds its memory.
        hidden_size: Width of the spatio-temporal transformer.
        num_hidden_layers: Number of spatio-temporal blocks.
        num_attention_heads: Attention heads; must divide `hidden_size`.
        mlp_ratio: Hidden width of a block's MLP as a multiple of `hidden_size`.
        latent_dim: Width of the latent action (UniSkill's skill).
        layer_norm_eps: Epsilon of every layer norm.
        initializer_range: Standard deviation of the initial position vectors.
        linear_initializer_range: Standard deviation of the initial weights of linear layers. None: 1 / sqrt(fan-in), as
            the published value would leave layers narrower than the published ones almost silent.

    Raises:
        StrictDataclassError: If a value has the wrong type, or the parts don't fit; the message says what was expected.

    Example:
        >>> UniSkillIDMConfig().num_patches
        196
    """

    model_type = "uniskill_idm"
    sub_configs_defaults = {  # noqa: RUF012 - the base class turns this into a ClassVar
        "backbone_config": SubConfigSpec(ResNetConfig, optional=True)
    }

    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    backbone_config: ResNetConfig | dict | None = field(default_factory=lambda: deepcopy(_RESNET_18))
    depth_model: str | None = DEPTH_MODEL
    depth_batch_size: int = 16
    hidden_size: int = 256
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    mlp_ratio: int = 4
    latent_dim: int = 64
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.0
    linear_initializer_range: float | None = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.backbone_config, dict):
            # The base class demands a model type of every backbone.
            self.backbone_config = {"model_type": ResNetConfig.model_type, **deepcopy(self.backbone_config)}
            found = self.backbone_config["model_type"]
            if found != ResNetConfig.model_type:
                raise ValueError(
                    f"backbone_config: got model_type {found!r}, expected 'resnet'. Give a ResNet, or None."
                )
        super().__post_init__(**kwargs)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "UniSkillIDMConfig":
        """A configuration of a known size.

        | name | frames | a token is made of | width, blocks | parameters |
        | --- | --- | --- | --- | --- |
        | published | 224 px | ResNet-18 features and depth, 16 px cells | 256, 8 | 20.0 M |
        | small | 96 px | features of a narrow ResNet, 16 px cells | 128, 4 | 1.8 M |
        | light | 64 px | pixels, 8 px cells | 128, 4 | 1.1 M |

        The last two train on two CPU cores. `preset("small", depth_model="...")` adds depth.

        Args:
            name: `"published"`, `"small"` or `"light"`.
            **changes: Fields of this class to set.

        Raises:
            ValueError: If the name is unknown.
        """
        if name not in _IDM_PRESETS:
            raise ValueError(f"preset: got {name!r}, expected one of {sorted(_IDM_PRESETS)}. Pick one of them.")
        return cls(**_IDM_PRESETS[name] | changes)

    @property
    def num_patches(self) -> int:
        """Number of patches of one frame."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def visual_dim(self) -> int:
        """Width of what a token gets from the colours: the ResNet's last, or that of the transformer."""
        return self.hidden_size if self.backbone_config is None else self.backbone_config.hidden_sizes[-1]

    def validate_sizes(self) -> None:
        """Every size is positive and within bounds."""
        check_limits(
            self,
            layers=("num_hidden_layers", "mlp_ratio"),
            sizes=("image_size", "num_channels", "depth_batch_size", "hidden_size", "latent_dim"),
        )
        if self.backbone_config is not None:
            check_limits(self.backbone_config, layers=["depths"], sizes=("embedding_size", "hidden_sizes"))
        names = (
            "depth_batch_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "mlp_ratio",
            "latent_dim",
        )
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 1 or more. Raise it.")

    def validate_patches(self) -> None:
        """Patches tile a frame."""
        if self.patch_size <= 0 or self.image_size <= 0 or self.image_size % self.patch_size:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of patch_size ({self.patch_size}); "
                "choose a patch_size that divides image_size"
            )

    def validate_heads(self) -> None:
        """Heads divide the width."""
        if self.hidden_size % max(self.num_attention_heads, 1):
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads})"
            )

    def validate_streams(self) -> None:
        """What looks at colour gets colour, and depth comes from somewhere."""
        if self.depth_model == "":
            raise ValueError("depth_model: got '', expected a Hub id, a folder, or None for no depth.")
        needs_colour = self.backbone_config is not None or self.depth_model is not None
        channels = 3 if self.backbone_config is None else self.backbone_config.num_channels
        if needs_colour and (self.num_channels != 3 or channels != 3):
            raise ValueError(
                f"num_channels: got {self.num_channels} and {channels} in backbone_config, expected 3, as ResNet and "
                "depth network see colour. Set backbone_config=None and depth_model=None for other channels."
            )


@strict
class UniSkillFDMConfig(PreTrainedConfig):
    """Configuration of [`UniSkillFDM`], UniSkill's diffusion forward dynamics model (Kim et al. 2025).

    The defaults are the published architecture (860 M parameters), and sampling with few steps. UniSkill itself
    samples with `sampler="ddpm"` and `num_inference_steps=30`.

    Args:
        image_size: Side in pixels of the square frames; must be a multiple of the autoencoder's scale factor.
        latent_dim: Width of the latent actions (UniSkill's skill, 64 as published).
        unet_config: Arguments of diffusers' `UNet2DConditionModel`. Its `in_channels` are the noisy next latents and
            those of the current frame; its `cross_attention_dim` is the width of the condition.
        vae_config: Arguments of diffusers' `AutoencoderKL`.
        scheduler_config: The noise schedule, as diffusers' `DDPMScheduler` takes it; `prediction_type` is `"epsilon"`
            or `"v_prediction"`.
        conditioning_dropout: u, the probability in training of dropping the latent action alone, the image alone, and
            both: 3 u in all.
        sampler: Sampler of `predict`.
        num_inference_steps: Denoising steps of `predict`.
        guidance_scale: Guidance towards the latent action; guidance is off unless it is above 1.
        image_guidance_scale: Guidance towards the current frame; guidance is off unless it is at least 1.
        layer_norm_eps: Epsilon of the norm in front of the condition's projection.

    Example:
        >>> UniSkillFDMConfig(latent_dim=32).condition_dim
        768
    """

    model_type = "uniskill_fdm"

    image_size: int = 256
    latent_dim: int = 64
    unet_config: dict[str, Any] = field(default_factory=lambda: dict(_PUBLISHED_UNET))
    vae_config: dict[str, Any] = field(default_factory=lambda: dict(_PUBLISHED_VAE))
    scheduler_config: dict[str, Any] = field(default_factory=lambda: dict(_PUBLISHED_SCHEDULER))
    conditioning_dropout: float = 0.05
    sampler: Sampler = "ddim"
    num_inference_steps: int = 10
    guidance_scale: float | int = 7.5
    image_guidance_scale: float | int = 2.5
    layer_norm_eps: float = 1e-5

    @classmethod
    def from_diffusers(cls, name_or_path: str, *, revision: str | None = None, **changes: Any) -> "UniSkillFDMConfig":
        """The configuration of an image-editing pipeline such as InstructPix2Pix, with the defaults of this class.

        Args:
            name_or_path: Hub id or folder of a diffusers pipeline with `unet`, `vae` and `scheduler`.
            revision: Branch, tag or commit on the Hub.
            **changes: Fields of this class to set; a part's configuration that is given is not read from the pipeline.

        Raises:
            OSError: If there is no such pipeline.
            StrictDataclassError: If its UNet takes no image beside the noisy one, or the parts do not fit.
        """
        from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

        parts = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "scheduler": DDPMScheduler}
        for name, part in parts.items():
            if f"{name}_config" in changes:
                continue
            with without_symlink_warning():
                loaded = part.load_config(name_or_path, subfolder=name, revision=revision)
            # The class's name stays: another scheduler's configuration is read by it.
            values = {key: loaded[key] for key in loaded if key not in ("_diffusers_version", "_name_or_path")}
            changes[f"{name}_config"] = values
        return cls(**changes)

    @property
    def condition_dim(self) -> int:
        """Width of the condition to which the UNet attends (768 as published)."""
        return self.unet_config["cross_attention_dim"]

    @property
    def num_channels(self) -> int:
        """Colour channels of a frame."""
        return self.vae_config.get("in_channels", 3)

    @property
    def vae_scale_factor(self) -> int:
        """Pixels to a side of one cell of the autoencoder's latents."""
        return 2 ** (len(self.vae_config["block_out_channels"]) - 1)

    @property
    def latents_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the autoencoder's latents of one frame."""
        side = self.image_size // self.vae_scale_factor
        return (self.vae_config.get("latent_channels", 4), side, side)

    def validate_parts(self) -> None:
        """Checks that the parts say their sizes, and that these fit each other and are within bounds."""
        check_limits(self, sizes=("image_size", "latent_dim", "num_inference_steps"))
        for part in (self.unet_config, self.vae_config):
            check_limits(part, layers=[name for name in part if "layers" in name])
            check_limits(part, sizes=[name for name in part if "layers" not in name])
        for name, key in (("unet_config", "cross_attention_dim"), ("vae_config", "block_out_channels")):
            if key not in getattr(self, name):
                raise ValueError(f"{name}: got no {key}, expected it. Add it, or take a checkpoint's.")
        channels = self.vae_config.get("latent_channels", 4)
        found = (self.unet_config.get("in_channels", 4), self.unet_config.get("out_channels", 4))
        if found != (2 * channels, channels):
            raise ValueError(
                f"unet_config: got in_channels {found[0]} and out_channels {found[1]}, expected {2 * channels} (noisy "
                f"and current latents) and {channels}, as the autoencoder has {channels}. Take a UNet of "
                "InstructPix2Pix's kind."
            )
        if self.image_size <= 0 or self.image_size % self.vae_scale_factor:
            raise ValueError(
                f"image_size: got {self.image_size}, expected a multiple of the autoencoder's scale factor "
                f"{self.vae_scale_factor}."
            )

    def validate_diffusion(self) -> None:
        """Checks the training objective and the sampling defaults."""
        prediction_type = self.scheduler_config.get("prediction_type", "epsilon")
        if prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"prediction_type: got {prediction_type!r}, expected 'epsilon' or 'v_prediction'.")
        if not 0 <= self.conditioning_dropout <= 1 / 3:
            raise ValueError(
                f"conditioning_dropout: got {self.conditioning_dropout}, expected 0 to 1/3, as three cases have that "
                "probability each."
            )
        for name in ("latent_dim", "num_inference_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 1 or more. Raise it.")


@contextmanager
def without_symlink_warning() -> Iterator[None]:
    """Within it diffusers may download: it gives huggingface_hub an argument that is deprecated, whoever calls it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The `local_dir_use_symlinks` argument is deprecated")
        yield
