"""Configuration of the latent action model that takes differences of frozen image features."""

from collections.abc import Sequence
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from ..frozen import load_frozen
from ..limits import check_limits

# Tokens in front of the patches' own, register tokens aside: the class token, and DeiT's distillation token.
_PREFIX_TOKENS = {
    "clip_vision_model": 1,
    "deit": 2,
    "dinov2": 1,
    "dinov2_with_registers": 1,
    "dinov3_vit": 1,
    "ijepa": 0,
    "siglip_vision_model": 0,
    "vit": 1,
    "vit_msn": 1,
}


@strict
class FeatureDifferenceConfig(PreTrainedConfig):
    """Configuration of [`FeatureDifferenceIDM`].

    The backbone is named and not contained: its weights are loaded at the first use and are in no checkpoint.

    Args:
        image_size: Side in pixels of the square frames; must be a multiple of the backbone's patch size.
        num_channels: Colour channels of a frame.
        latent_dim: Width of the latent action, the number of principal components.
        backbone: Hub id or folder of a vision transformer: DINOv2 (with registers or without), DINOv3, ViT, DeiT, MSN,
            I-JEPA, or the vision model alone of CLIP or SigLIP.
        hidden_size: Width of the backbone's tokens, 384 in DINOv2 small; `from_backbone` looks it up.
        pooling: How the tokens of a frame become one vector: `"grid"` concatenates the means over the cells of a grid,
            which keeps where something moved; `"mean"` is the mean over all patches; `"cls"` is the class token.
        grid_size: Cells to a side of the grid.
        whiten: Scale latent actions to unit variance over the pairs of the fit.

    Example:
        >>> FeatureDifferenceConfig(latent_dim=32, grid_size=2).feature_dim
        1536
    """

    model_type = "feature_difference"

    image_size: int = 224
    num_channels: int = 3
    latent_dim: int = 64
    backbone: str = "facebook/dinov2-small"
    hidden_size: int = 384
    pooling: Literal["grid", "mean", "cls"] = "grid"
    grid_size: int = 4
    whiten: bool = True

    @classmethod
    def from_backbone(cls, name_or_path: str, **changes: Any) -> "FeatureDifferenceConfig":
        """The configuration for a backbone, whose own configuration is read.

        Args:
            name_or_path: Hub id or folder.
            **changes: Fields of this class to set.

        Raises:
            OSError: If the backbone's configuration can't be had.
            ValueError: If the backbone is of an unknown kind, or does not fit the image size or the pooling.
        """
        backbone = load_frozen(AutoConfig, name_or_path, role="image backbone", option="backbone")
        for name in ("hidden_size", "num_channels"):
            if hasattr(backbone, name):
                changes.setdefault(name, getattr(backbone, name))
        config = cls(backbone=name_or_path, **changes)
        config.check_backbone(backbone)
        return config

    @property
    def feature_dim(self) -> int:
        """Width F of a frame's pooled features."""
        return self.hidden_size * (self.grid_size**2 if self.pooling == "grid" else 1)

    def num_prefix_tokens(self, backbone: PreTrainedConfig) -> int:
        """Number of tokens that the backbone puts in front of those of the patches.

        Raises:
            ValueError: If the backbone is of an unknown kind.
        """
        if backbone.model_type not in _PREFIX_TOKENS:
            raise ValueError(
                f"backbone {self.backbone!r}: got an unknown kind {backbone.model_type!r}, expected one of "
                f"{', '.join(_PREFIX_TOKENS)}. Name a vision transformer of one of these kinds."
            )
        return _PREFIX_TOKENS[backbone.model_type] + getattr(backbone, "num_register_tokens", 0)

    def patches_per_side(self, backbone: PreTrainedConfig) -> int:
        """Number of patches along each side of a frame.

        Raises:
            ValueError: If the image size is not a multiple of the patch size, or patches are not square.
        """
        sizes = backbone.patch_size if isinstance(backbone.patch_size, Sequence) else [backbone.patch_size]
        if len(set(sizes)) != 1:
            raise ValueError(f"backbone {self.backbone!r}: got patches of {sizes} pixels, expected square ones.")
        size = sizes[0]
        if self.image_size % size:
            raise ValueError(
                f"image_size: got {self.image_size}, expected a multiple of the patch size {size} of backbone "
                f"{self.backbone!r}, such as {max(1, round(self.image_size / size)) * size}."
            )
        return self.image_size // size

    def check_backbone(self, backbone: PreTrainedConfig) -> None:
        """Raises a ValueError unless a backbone with this configuration fits the image size and the pooling."""
        prefix, patches = self.num_prefix_tokens(backbone), self.patches_per_side(backbone)
        for name in ("hidden_size", "num_channels"):
            found = getattr(backbone, name)
            if found != getattr(self, name):
                raise ValueError(
                    f"{name}: got {getattr(self, name)}, but backbone {self.backbone!r} has {found}. Set "
                    f"{name}={found}, or use FeatureDifferenceConfig.from_backbone."
                )
        if self.pooling == "grid" and self.grid_size > patches:
            raise ValueError(
                f"grid_size: got {self.grid_size}, expected at most the {patches} patches to a side that backbone "
                f"{self.backbone!r} has at image_size {self.image_size}. Lower grid_size or raise image_size."
            )
        if self.pooling == "cls" and prefix == 0:
            raise ValueError(
                f"pooling: got 'cls', but backbone {self.backbone!r} ({backbone.model_type}) has no class token. Use "
                "'grid' or 'mean'."
            )

    def validate_sizes(self) -> None:
        """Checks that sizes are positive and within bounds, and that the features have enough dimensions."""
        names = ("image_size", "num_channels", "latent_dim", "hidden_size", "grid_size")
        check_limits(self, sizes=names)
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 1 or more. Raise it.")
        if self.latent_dim > self.feature_dim:
            raise ValueError(
                f"latent_dim: got {self.latent_dim}, expected at most {self.feature_dim}, the width of the features "
                f"with pooling {self.pooling!r}. Lower latent_dim, or use a finer grid."
            )
