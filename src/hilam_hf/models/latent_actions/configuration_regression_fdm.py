"""Configuration of the regression forward dynamics model."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..limits import check_limits


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

    def validate_limits(self) -> None:
        """Checks that no size is beyond all bounds."""
        check_limits(self, layers=["num_blocks"], sizes=("image_size", "num_channels", "hidden_size", "latent_dim"))

    def validate_cells(self) -> None:
        if self.patch_size <= 0 or self.image_size % (2 * self.patch_size):
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of twice patch_size (2 * {self.patch_size})"
            )
