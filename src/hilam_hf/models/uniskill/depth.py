"""Depth for UniSkill's inverse dynamics model: Depth Anything V2 (Yang et al. 2024), frozen, and what is done to maps.

Everything runs on the frames' own device, the preprocessing of transformers' image processor included. Shapes: B
frames, H and W pixels, R pixels to a side of the model's frames, P to a side of a patch, S patches a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from ..frozen import FrozenNetwork

_FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


class DepthNetwork:
    """Depth maps of frames by a frozen network, which is loaded when it is first used.

    As in UniSkill's training, the network sees the frames as they come to the model (square, in [0, 1]), resized and
    normalised as its image processor says, and each of its maps is scaled to [0, 1] before it is resized. (UniSkill's
    extraction script feeds it frames in [0, 255] with scaling switched off, 255 times too large. Here extraction does
    as training does.)

    Args:
        name_or_path: Hub id or folder of a depth estimation model of transformers, with its `preprocessor_config.json`.
        size: R, side in pixels of the maps that are returned.
        batch_size: Frames that go through the network at a time.

    Example:
        >>> network = DepthNetwork("depth-anything/Depth-Anything-V2-Small-hf", size=224)
        >>> network(torch.rand(2, 3, 224, 224)).shape
        torch.Size([2, 224, 224])
    """

    def __init__(self, name_or_path: str, size: int, batch_size: int = 16) -> None:
        self.size = size
        self.batch_size = batch_size
        self.network = FrozenNetwork(
            AutoModelForDepthEstimation, name_or_path, role="depth network", option="depth_model"
        )

    @cached_property
    def preprocessing(self) -> DepthPreprocessing:
        """The settings of the network's image processor."""
        return DepthPreprocessing.from_processor(self.network.load(AutoImageProcessor))

    # Loading inside a compiled graph would be traced.
    @torch.compiler.disable
    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        """Depth maps (B, R, R) in [0, 1], each over its own range, in the dtype of the frames.

        Args:
            frames: (B, 3, H, W) floats in [0, 1].

        Raises:
            OSError: If the network or its image processor can't be had.
        """
        if not len(frames):
            return frames.new_zeros(0, self.size, self.size)
        network = self.network.on(frames.device, frames.dtype)
        return torch.cat([self._maps(network, part) for part in frames.split(self.batch_size)]).to(frames.dtype)

    def _maps(self, network: Any, frames: Tensor) -> Tensor:
        pixels = self.preprocessing(frames.float()).to(frames.dtype)
        # Scaled before it is rounded to the frames' dtype.
        return resize_depth(scale_depth(network(pixel_values=pixels).predicted_depth.float()), self.size)


@dataclass(frozen=True, kw_only=True)
class DepthPreprocessing:
    """What a depth network's image processor does to frames that are already in [0, 1], in torch.

    Attributes:
        height: Height in pixels to aim for; None leaves the size as it is.
        width: Width in pixels to aim for.
        multiple: Both sides are rounded to multiples of it.
        keep_aspect_ratio: Scale both sides alike, by the factor that changes the size less.
        mode: Interpolation, `"bilinear"` or `"bicubic"`, antialiased.
        mean: Mean of each channel, subtracted.
        std: Standard deviation of each channel, divided by.
    """

    height: int | None
    width: int | None
    multiple: int
    keep_aspect_ratio: bool
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_processor(cls, processor: Any) -> DepthPreprocessing:
        """The settings of transformers' `DPTImageProcessor`, which Depth Anything uses.

        Raises:
            ValueError: If it is another image processor, pads, or resizes by another filter.
        """
        resample = getattr(processor, "resample", None)
        if not hasattr(processor, "ensure_multiple_of") or processor.do_pad or resample not in _FILTERS:
            raise ValueError(
                f"depth_model: got a {type(processor).__name__} with resample {resample}, expected a DPTImageProcessor "
                "that resizes bilinearly (2) or bicubically (3) and does not pad. Give a Depth Anything model."
            )
        resized, normalized = processor.do_resize, processor.do_normalize
        return cls(
            height=processor.size["height"] if resized else None,
            width=processor.size["width"] if resized else None,
            multiple=processor.ensure_multiple_of,
            keep_aspect_ratio=processor.keep_aspect_ratio,
            mode=_FILTERS[resample],
            mean=tuple(processor.image_mean) if normalized else (0.0, 0.0, 0.0),
            std=tuple(processor.image_std) if normalized else (1.0, 1.0, 1.0),
        )

    def __call__(self, frames: Tensor) -> Tensor:
        """Input of the network from (B, 3, H, W) floats in [0, 1].

        Equal to the image processor's on 8-bit frames, but for single steps where it rounds the other way.
        """
        if self.height is not None and self.width is not None:
            height, width = self.target_size(*frames.shape[-2:])
            # Like Pillow: along one side, then along the other, with 8 bits after each, which cuts what overshoots.
            for size in ((frames.shape[-2], width), (height, width)):
                frames = F.interpolate(frames, size=size, mode=self.mode, align_corners=False, antialias=True)
                frames = (frames * 255 + 0.5).floor().clamp(0, 255) / 255
        mean, std = (frames.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (frames - mean) / std

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels that frames of `height` by `width` are resized to."""
        scales = [self.height / height, self.width / width]
        if self.keep_aspect_ratio:
            scales = [min(scales, key=lambda scale: abs(1 - scale))] * 2
        height, width = (
            round(scale * side / self.multiple) * self.multiple
            for scale, side in zip(scales, (height, width), strict=True)
        )
        return height, width


def scale_depth(depth: Tensor) -> Tensor:
    """Depth maps (..., H, W) scaled to [0, 1], each over its own range.

    A constant map becomes zeros; the released code divides by zero there.
    """
    least, largest = depth.amin((-2, -1), keepdim=True), depth.amax((-2, -1), keepdim=True)
    extent = largest - least
    return (depth - least) / torch.where(extent == 0, 1, extent)


def resize_depth(depth: Tensor, size: int) -> Tensor:
    """Depth maps (B, H, W) resized to (B, R, R): bilinear with half-pixel centres, as released without antialiasing."""
    return F.interpolate(depth[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]


def depth_patches(depth: Tensor, patch_size: int) -> Tensor:
    """The pixels of each patch, row by row: (B, R, R) -> (B, S, P * P), patches row by row, too."""
    return rearrange(depth, "b (h p1) (w p2) -> b (h w) (p1 p2)", p1=patch_size, p2=patch_size)
