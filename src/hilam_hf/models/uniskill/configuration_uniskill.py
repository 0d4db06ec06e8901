"""Configurations of UniSkill's inverse dynamics model (IDM) and of the forward dynamics model (FDM) beside it."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class UniSkillIDMConfig(PreTrainedConfig):
    """Configuration of [`UniSkillIDM`].

    The defaults are small enough to train on two CPU cores. The published model has `image_size=224`, `patch_size=16`,
    `hidden_size=256`, `num_hidden_layers=8` and the same 64-d latent.

    Args:
        image_size: Side in pixels of the square frames that the model sees.
        patch_size: Side in pixels of a patch; must divide `image_size`.
        num_channels: Colour channels of a frame.
        hidden_size: Width of the spatio-temporal transformer.
        num_hidden_layers: Number of spatio-temporal blocks.
        num_attention_heads: Attention heads; must divide `hidden_size`.
        mlp_ratio: Hidden width of a block's MLP as a multiple of `hidden_size`.
        latent_dim: Width of the latent action (UniSkill's skill, 64 as published).
        layer_norm_eps: Epsilon of every layer norm.
        initializer_range: Standard deviation of the initial position vectors; linear layers start at 1 / sqrt(fan-in).
    """

    model_type = "uniskill_idm"

    image_size: int = 64
    patch_size: int = 8
    num_channels: int = 3
    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    mlp_ratio: int = 4
    latent_dim: int = 64
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    def validate_patches(self) -> None:
        if self.patch_size <= 0 or self.image_size % self.patch_size:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of patch_size ({self.patch_size}); "
                "choose a patch_size that divides image_size"
            )

    def validate_heads(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads})"
            )

    @property
    def num_patches(self) -> int:
        """Number of patches of one frame."""
        return (self.image_size // self.patch_size) ** 2


@strict
class RegressionFDMConfig(PreTrainedConfig):
    """Configuration of [`RegressionFDM`], which predicts the change of the pixels by regression.

    Args:
        image_size: Side in pixels of the square frames; must be a multiple of `2 * patch_size`.
        patch_size: Side in pixels of the cells (space-to-depth) in which the network works.
        num_channels: Colour channels of a frame.
        hidden_size: Channels of the network at the cell resolution.
        num_blocks: Residual blocks on each side of, and at, the halved resolution.
        latent_dim: Width of the latent actions that condition the prediction.
    """

    model_type = "regression_fdm"

    image_size: int = 64
    patch_size: int = 4
    num_channels: int = 3
    hidden_size: int = 64
    num_blocks: int = 2
    latent_dim: int = 64

    def validate_cells(self) -> None:
        if self.patch_size <= 0 or self.image_size % (2 * self.patch_size):
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of twice patch_size (2 * {self.patch_size})"
            )
