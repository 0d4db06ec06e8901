"""Image processor of the latent action models: squash to the model's square, 8 bits to [0, 1]."""

from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling


class LatentActionImageProcessorPil(PilBackend):
    """Resizes without keeping the aspect ratio (bilinear, antialiased, as UniSkill trains) and scales to [0, 1].

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
