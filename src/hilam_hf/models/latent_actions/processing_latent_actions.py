"""Image processor of the latent action models: squash to the model's square, 8 bits to [0, 1]."""

from typing import Any

import numpy as np
import torch
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling, SizeDict

from ...video import resize_frames


class LatentActionImageProcessorPil(PilBackend):
    """Resizes without keeping the aspect ratio, to the very pixels of training, and scales to [0, 1].

    Normalisation to the range in which a network works is part of the models, so that every latent action model takes
    the same frames.

    Example:
        >>> processor = LatentActionImageProcessorPil(size={"height": 64, "width": 64})
        >>> processor([frame], return_tensors="pt")["pixel_values"].shape
        torch.Size([1, 3, 64, 64])
    """

    resample = PILImageResampling.BILINEAR
    size = {"height": 224, "width": 224}  # noqa: RUF012 - transformers reads class attributes as defaults
    do_resize = True
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = False
    do_convert_rgb = True

    # PIL's bilinear filter, the base class', differs from training's by one level of 255 here and there.
    def resize(
        self, image: np.ndarray, size: SizeDict, resample: PILImageResampling | None = None, **kwargs: Any
    ) -> np.ndarray:
        """Resizes a picture (C, H, W) of any type as frames of videos are, see `hilam_hf.video.resize_frames`.

        Raises:
            ValueError: If `resample` is not bilinear, or the size is no height and width.
        """
        if resample not in (None, PILImageResampling.BILINEAR):
            raise ValueError(f"resample: got {resample!r}, expected bilinear, with which the models are trained")
        if not (size.height and size.width):
            raise ValueError(f"size: got {size}, expected height and width in pixels")
        frames = torch.from_numpy(np.ascontiguousarray(image))[None]
        return resize_frames(frames, (size.height, size.width))[0].numpy()
