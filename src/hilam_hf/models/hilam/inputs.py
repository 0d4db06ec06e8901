"""What `HiLAMModel.extract_skills` takes, told apart and turned into latent actions.

Shapes: T frames or latent actions, D width of a latent action, C, H, W a frame, k stride.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..latent_actions.pair_encoding import join_pieces
from .segmenter import Segmenter
from .video_input import FrameSource, is_decoder

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder

SkillInput: TypeAlias = "str | Path | VideoDecoder | Tensor | NDArray[Any]"
"""One video or one sequence of latent actions."""


def is_one_sequence(inputs: Any) -> bool:
    """Whether `inputs` is one `SkillInput` and neither a list of them nor a padded batch."""
    if isinstance(inputs, (Tensor, np.ndarray)):
        return inputs.ndim != 3
    return isinstance(inputs, (str, Path)) or is_decoder(inputs)


def latents_of(model: Segmenter, sequence: SkillInput, fps: float | None) -> Tensor:
    """The latent actions (T, D) of one input, on the CPU: checked where they are given, computed from a video.

    Args:
        model: Says what latent actions look like, and encodes frames.
        sequence: The input.
        fps: Frames a second of a video; None: what its file says.

    Raises:
        ValueError: See `HiLAMModel.extract_skills`.
    """
    if not isinstance(sequence, (str, Path, Tensor, np.ndarray)) and not is_decoder(sequence):
        raise ValueError(
            f"inputs: got a {type(sequence).__name__}, expected the path of a video, a torchcodec VideoDecoder, or an "
            "array of frames or latent actions. Convert it, for one with numpy.stack."
        )
    if isinstance(sequence, (Tensor, np.ndarray)) and sequence.ndim != 4:
        return model.check_latents(torch.as_tensor(sequence)).cpu()
    return _encode(model, FrameSource(sequence, *model.frame_format), fps)


def _encode(model: Segmenter, source: FrameSource, fps: float | None) -> Tensor:
    stride = model.config.stride_at(source.fps if fps is None else fps)
    if len(source) <= stride:
        raise ValueError(
            f"{source.name}: it holds {len(source)} frames, expected more than {stride}, which a latent action spans. "
            "Use a longer video."
        )
    latents = join_pieces(latents.cpu() for latents in model.require_idm().encode_chunks(source.pieces(), stride))
    if fps is None:
        source.check_decoded_times()
    return model.check_latents(latents)
