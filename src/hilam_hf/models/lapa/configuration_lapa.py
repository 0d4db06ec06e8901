"""Configuration of LAPA's latent action quantization, and how its codes follow from the grid of patches."""

import math
from typing import Any, NamedTuple

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..limits import check_limits

_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "image_size": 64,
        "patch_size": 8,
        "hidden_size": 128,
        "num_spatial_layers": 2,
        "num_temporal_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 32,
    },
    "published": {},
}
_LEAST = {
    **dict.fromkeys(("image_size", "patch_size", "num_channels", "hidden_size", "quant_dim", "num_codes"), 1),
    **dict.fromkeys(("num_spatial_layers", "num_temporal_layers", "num_attention_heads", "head_dim"), 1),
    "codebook_size": 2,
}
# The published reducers halve the grid no further than this, except to a side that is the codes' own.
_LEAST_SIDE = 4


class ReducerLayer(NamedTuple):
    """One convolution on the way from patches to codes."""

    kernel_size: tuple[int, int]
    stride: int
    padding: int


@strict
class LapaConfig(PreTrainedConfig):
    """Configuration of [`LapaModel`], LAPA's latent action quantization (Ye et al. 2025).

    The defaults are the published architecture (344 M parameters); [`~LapaConfig.preset`] has one for two CPU cores.

    Args:
        image_size: Side in pixels of the square frames that the model sees.
        patch_size: Side in pixels of a patch; must divide `image_size`.
        num_channels: Colour channels of a frame.
        hidden_size: Width of the transformers.
        num_spatial_layers: Layers of the spatial encoder, and of the decoder.
        num_temporal_layers: Layers of the temporal encoder.
        num_attention_heads: Attention heads.
        head_dim: Width of an attention head; heads need not add up to `hidden_size`.
        num_codes: Codes of a latent action. They lie in a grid as square as their number allows, with no more rows than
            the patches have; see [`reducer_layers`].
        codebook_size: Entries of the codebook, which all codes of a latent action share.
        quant_dim: Width of a code's vector.
        layer_norm_eps: Epsilon of every layer norm.
        refresh_threshold: A code was unused, and is replaced, if it occurred in fewer forward passes since the last
            refresh than this share of the batch size (the batch size, not the number of passes, as published).

    Raises:
        StrictDataclassError: If a value has the wrong type, or the sizes do not fit each other.

    Example:
        >>> LapaConfig.preset("tiny", codebook_size=16).latent_dim
        4
    """

    model_type = "lapa"

    image_size: int = 256
    patch_size: int = 32
    num_channels: int = 3
    hidden_size: int = 1024
    num_spatial_layers: int = 8
    num_temporal_layers: int = 8
    num_attention_heads: int = 16
    head_dim: int = 64
    num_codes: int = 4
    codebook_size: int = 8
    quant_dim: int = 32
    layer_norm_eps: float = 1e-5
    refresh_threshold: float | int = 0.1

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "LapaConfig":
        """A configuration of a known size.

        | name | frames | patch | width | layers (spatial, temporal, decoder) | parameters |
        | --- | --- | --- | --- | --- | --- |
        | tiny | 64 px | 8 | 128 | 2, 2, 2 | 1.4 M |
        | published | 256 px | 32 | 1024 | 8, 8, 8 | 343.8 M |

        Args:
            name: `"tiny"` or `"published"`.
            **overrides: Fields of this class to set.

        Raises:
            ValueError: If the name is unknown.
        """
        if name not in _PRESETS:
            raise ValueError(f"preset: got {name!r}, expected one of {sorted(_PRESETS)}. Pick one of them.")
        return cls(**{**_PRESETS[name], **overrides})

    @property
    def grid_size(self) -> int:
        """Patches along a side of a frame."""
        return self.image_size // self.patch_size

    @property
    def latent_dim(self) -> int:
        """Width of a latent action: its number of codes."""
        return self.num_codes

    @property
    def vector_dim(self) -> int:
        """Width of a latent action's vectors, one after the other."""
        return self.num_codes * self.quant_dim

    def validate_geometry(self) -> None:
        """Checks that there is something of everything, that patches fill the frame, and that the codes fit in."""
        check_limits(self, layers=("num_spatial_layers", "num_temporal_layers"), sizes=set(_LEAST))
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected {least} or more. Raise it.")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size: got {self.image_size}, expected a multiple of patch_size {self.patch_size}. Change one."
            )
        reducer_layers(self.grid_size, self.num_codes)

    def validate_refresh(self) -> None:
        """Checks the share below which a code counts as unused."""
        if self.refresh_threshold < 0:
            raise ValueError(
                f"refresh_threshold: got {self.refresh_threshold}, expected 0 or more. 0 keeps every code."
            )


def code_grid(num_codes: int) -> tuple[int, int]:
    """Rows and columns in which the codes of a latent action lie: as near to square as their number allows.

    Example:
        >>> code_grid(4), code_grid(2), code_grid(6)
        ((2, 2), (2, 1), (3, 2))
    """
    columns = next(n for n in range(math.isqrt(max(num_codes, 1)), 0, -1) if num_codes % n == 0)
    return num_codes // columns, columns


def reducer_layers(grid_size: int, num_codes: int) -> list[ReducerLayer]:
    """The convolutions that turn a square grid of patches into the grid of codes.

    Halve the grid while its side stays 4 or more and holds the codes; then one convolution without padding takes what
    is left to the grid of codes, unless it is there. This is the published reducer wherever the published code has one
    that works (8 x 8 patches with 1, 2 or 4 codes; 16 x 16 with 16 or 64; 32 x 32 with 256), and covers all others.

    Args:
        grid_size: Patches along a side.
        num_codes: Codes of a latent action.

    Raises:
        ValueError: If the codes do not fit into the grid of patches; it says which numbers do.

    Example:
        >>> reducer_layers(8, 2)
        [ReducerLayer(kernel_size=(3, 3), stride=2, padding=1), ReducerLayer(kernel_size=(3, 4), stride=1, padding=0)]
    """
    rows, columns = code_grid(num_codes)
    if rows > grid_size:
        fitting = [n for n in range(1, grid_size**2 + 1) if code_grid(n)[0] <= grid_size]
        raise ValueError(
            f"num_codes: got {num_codes}, which lie in {rows} rows and {columns} columns, expected a number that fits "
            f"into the {grid_size} x {grid_size} grid of patches: one of {', '.join(map(str, fitting))}. Change "
            "num_codes, or image_size and patch_size."
        )
    side, layers = grid_size, []
    while (half := (side + 1) // 2) >= max(_LEAST_SIDE, rows):
        layers.append(ReducerLayer((3, 3), stride=2, padding=1))
        side = half
    if (rows, columns) != (side, side):
        layers.append(ReducerLayer((side - rows + 1, side - columns + 1), stride=1, padding=0))
    return layers
