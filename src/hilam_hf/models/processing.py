"""The image processor that models save beside their weights: pictures squashed to a square and scaled to [0, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling, SizeDict

from ..video import as_float_frames, resize_frames
from ..video.pixels import MAX_LEVEL


class SquareImageProcessorPil(PilBackend):
    """Gives exactly the pictures that training, extraction and acting give a model (`hilam_hf.video.pixels`).

    Pictures of 8 bits are resized as such and then scaled; floats in [0, 1] are resized and not scaled. Normalisation
    to the range in which a network works is part of the models.

    Example:
        >>> processor = SquareImageProcessorPil(size={"height": 64, "width": 64})
        >>> processor([frame], return_tensors="pt")["pixel_values"].shape
        torch.Size([1, 3, 64, 64])
    """

    # transformers reads class attributes as defaults.
    resample = PILImageResampling.BILINEAR
    size = {"height": 224, "width": 224}  # noqa: RUF012
    do_resize = True
    do_rescale = True
    rescale_factor = 1 / MAX_LEVEL
    do_normalize = False
    do_convert_rgb = True

    def resize(
        self, image: NDArray[Any], size: SizeDict, resample: PILImageResampling | None = None, *args: Any, **kwargs: Any
    ) -> NDArray[Any]:
        """Squashes (C, H, W) to (C, height, width), antialiased and bilinear.

        Raises:
            ValueError: Another interpolation is asked for.
        """
        if resample not in (None, PILImageResampling.BILINEAR):
            raise ValueError(f"resample: got {resample}, expected {PILImageResampling.BILINEAR:d} (bilinear)")
        frames = torch.from_numpy(np.ascontiguousarray(image))[None]
        return resize_frames(frames, (size.height, size.width))[0].numpy()

    def rescale(self, image: NDArray[Any], scale: float, *args: Any, **kwargs: Any) -> NDArray[Any]:
        """Makes pictures of 8 bits floats in [0, 1].

        Raises:
            ValueError: The factor is not 1/255, or the picture is of another integer type.
        """
        if scale != 1 / MAX_LEVEL:
            raise ValueError(f"rescale_factor: got {scale}, expected 1/{MAX_LEVEL}, which makes 8-bit pictures [0, 1]")
        return as_float_frames(torch.from_numpy(image)).numpy()
