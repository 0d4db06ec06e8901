"""The two contracts that every latent action model keeps: inverse and forward dynamics.

Frames are floats in [0, 1] of shape (B, C, H, W); resizing and scaling are the image processor's. A latent action is a
row of D numbers: floats where it is continuous, int64 codes where it is discrete. A model of both sides derives from
both; its `forward(frames, next_frames)` trains them at once and returns an output with `loss`. Shapes: B batch, C
channels, H and W pixels, T frames, D width of a latent action (`config.latent_dim`), K entries of a codebook, E width
of one, k stride in frames.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ...video import check_pixel_range
from ..loading import StrictLoadingMixin
from ..numerics import MeanOverParts, constant_count
from ..processing import SquareImageProcessorPil
from ..saving import SavingMixin
from .batch_size import BatchSize, resolve_batch_size
from .pair_encoding import FrameBatch, FrameRun, PairEncoder, join_pieces


class DynamicsModel(SavingMixin, StrictLoadingMixin, PreTrainedModel):
    """What both sides share: frames of one size, and the image processor that gives them.

    Attributes:
        image_processor_class: The class of that processor.
    """

    image_processor_class: ClassVar[type[BaseImageProcessor]] = SquareImageProcessorPil

    def image_processor(self) -> BaseImageProcessor:
        """The image processor that brings pictures to the model's size; it is saved with the model."""
        size = self.config.image_size
        return self.image_processor_class(size={"height": size, "width": size})


class InverseDynamicsModel(DynamicsModel):
    """Infers the latent action between two frames, (I_t, I_{t+k}) -> z_t."""

    @property
    def codebook(self) -> Tensor | None:
        """(K, E) vectors of the codes, where latent actions are codes; None where they are continuous."""
        return None

    def latent_vectors(self, latents: Tensor) -> Tensor:
        """What latent actions (B, D) stand for, as floats: themselves, or the vectors of their codes, (B, D * E)."""
        return latents if self.codebook is None else self.codebook[latents].flatten(1)

    @abstractmethod
    def extract_features(self, frames: Tensor) -> Tensor:
        """Per-frame features, the part of the work that does not depend on the other frame of a pair.

        Args:
            frames: (B, C, H, W) floats in [0, 1].

        Returns:
            (B, ...) features, to be paired by [`~InverseDynamicsModel.encode_features`].
        """

    @abstractmethod
    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        """Latent actions (B, D) from the features of the first and the second frame of each pair; codes are int64."""

    def encode(self, frames: Tensor, next_frames: Tensor) -> Tensor:
        """Latent actions between paired frames.

        Args:
            frames: (B, C, H, W) floats in [0, 1], the frames I_t.
            next_frames: (B, C, H, W) floats in [0, 1], the frames I_{t+k}.

        Returns:
            (B, D) latent actions.

        Raises:
            ValueError: If the two batches differ in shape, or frames aren't (B, C, H, W) floats of the model's size.
        """
        check_pair(frames, next_frames)
        features, next_features = self.extract_features(torch.cat([frames, next_frames])).chunk(2)
        return self.encode_features(features, next_features)

    def encode_video(self, frames: Tensor, stride: int = 1, batch_size: BatchSize = 128) -> Tensor:
        """Latent actions of a whole video; each frame's features are computed once, not once a pair.

        Args:
            frames: (T, C, H, W), uint8 or floats in [0, 1]; they may lie on another device than the model.
            stride: k, the distance in frames between the two frames of a pair.
            batch_size: Frames that are computed at a time; "auto": as many as memory allows (see `resolve_batch_size`).

        Returns:
            (T - k, D) latent actions on the model's device; row t belongs to frame t.

        Raises:
            ValueError: If `stride` is below 1 or the video has no pair of frames at this stride.
        """
        return join_pieces(self.encode_chunks(frames.split(resolve_batch_size(self, batch_size)), stride))

    @torch.no_grad()
    def encode_chunks(
        self, chunks: Iterable[Tensor], stride: int = 1, batch_size: int | None = None
    ) -> Iterator[Tensor]:
        """Latent actions of a video that comes piece by piece, in memory that does not grow with its length.

        Args:
            chunks: Consecutive pieces (N, C, H, W) of one video, uint8 or floats in [0, 1].
            stride: k, the distance in frames between the two frames of a pair.
            batch_size: Frames, and pairs, that are computed at a time at most; None: those of a piece.

        Yields:
            Consecutive pieces of the (T - k, D) latent actions.

        Raises:
            ValueError: If `stride` is below 1 or, at the end, the video had no pair of frames at this stride.
        """
        if stride < 1:
            raise ValueError(f"stride must be at least 1 frame, got {stride}")
        encoder = PairEncoder(self, batch_size)
        num_frames = 0
        for chunk in chunks:
            num_frames += len(chunk)
            for _, latents in encoder.encode(FrameBatch(chunk, (FrameRun(0, stride, len(chunk)),))):
                yield latents
        if num_frames <= stride:
            raise ValueError(
                f"a video of {num_frames} frames has no pair of frames {stride} apart; "
                "use a smaller stride or set it aside"
            )

    @torch.no_grad()
    def encode_batches(
        self, batches: Iterable[FrameBatch], batch_size: int | None = None, *, halve: bool = False
    ) -> Iterator[tuple[int, Tensor]]:
        """Latent actions of many videos whose frames share batches; pairs never cross videos.

        Args:
            batches: All frames of one video, then all frames of the next.
            batch_size: Frames, and pairs, that are computed at a time at most; None: those of a batch.
            halve: When memory runs out, go on with half as many at a time instead of raising.

        Yields:
            (number of the video, consecutive latent actions of it (P, D)), videos in their order; those without a pair
            of frames at their stride don't appear.
        """
        encoder = PairEncoder(self, batch_size, halve=halve)
        for batch in batches:
            yield from encoder.encode(batch)

    @property
    def needs_fit(self) -> bool:
        """Whether `fit` has to see pairs of frames before the model can be trained or used."""
        return False

    def fit(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> "InverseDynamicsModel":
        """Computes from pairs of frames what gradients do not teach the model; most kinds have nothing of that sort.

        Args:
            pairs: Batches (frames, next_frames), both (B, C, H, W), uint8 or floats in [0, 1], on the model's device.

        Returns:
            The model itself.
        """
        return self

    def end_training_step(self, step: int, batch_size: int) -> dict[str, float]:
        """What the model does after an optimiser step of its training; most kinds do nothing.

        Called in every process.

        Args:
            step: Steps done, this one included.
            batch_size: Pairs that one process sees in a forward pass.

        Returns:
            Figures to log.
        """
        return {}


class ForwardDynamicsModel(DynamicsModel):
    """Predicts the frame to which a latent action leads, (I_t, z_t) -> I_{t+k}."""

    @abstractmethod
    def predict(self, frames: Tensor, latents: Tensor) -> Tensor:
        """Predicted frames.

        Args:
            frames: (B, C, H, W) floats in [0, 1], the frames I_t.
            latents: (B, D) latent actions in the units in which the inverse dynamics model gives them.

        Returns:
            (B, C, H, W) floats in [0, 1], the predictions of I_{t+k}.
        """

    @abstractmethod
    def loss(self, frames: Tensor, latents: Tensor, next_frames: Tensor) -> Tensor:
        """The model's training objective, a scalar, for I_t, z_t and the true I_{t+k}."""

    def loss_of_part(
        self, frames: Tensor, latents: Tensor, next_frames: Tensor, mean_over_parts: MeanOverParts
    ) -> Tensor:
        """`loss` where these B >= 1 pairs are a part of a batch; the mean over the parts is that of the whole batch.

        As it is, it suits a `loss` that is a mean over pairs. A model whose loss divides by something else overrides
        this and `count_parts`.

        Args:
            frames: As for `loss`.
            latents: As for `loss`.
            next_frames: As for `loss`.
            mean_over_parts: See `hilam_hf.models.numerics.MeanOverParts`.
        """
        return share_of_mean(self.loss(frames, latents, next_frames), frames, mean_over_parts)

    @torch.no_grad()
    def count_parts(self, mean_over_parts: MeanOverParts, frames: Tensor, next_frames: Tensor) -> None:
        """The calls of `mean_over_parts` that `loss_of_part` makes, and nothing else.

        Args:
            mean_over_parts: See `hilam_hf.models.numerics.MeanOverParts`.
            frames: (B, C, H, W) floats in [0, 1], the frames I_t; B may be 0.
            next_frames: The frames I_{t+k}, alike.
        """
        mean_num_pairs(frames, mean_over_parts)


def mean_num_pairs(frames: Tensor, mean_over_parts: MeanOverParts) -> Tensor:
    """() number of pairs (B, C, H, W) of frames, as the mean over the parts of a batch."""
    return mean_over_parts("pairs", constant_count(len(frames), frames))


def share_of_mean(loss: Tensor, frames: Tensor, mean_over_parts: MeanOverParts) -> Tensor:
    """A mean over the pairs of a part, scaled so that the mean over the parts is that over the pairs of all parts."""
    return loss * len(frames) / mean_num_pairs(frames, mean_over_parts)


def check_frames(frames: Tensor, num_channels: int, image_size: int) -> None:
    """Raises a ValueError unless `frames` are float (B, num_channels, image_size, image_size) in [0, 1].

    Values are looked at in the CPU's memory only, as a training step must not wait for an accelerator.
    """
    if not frames.is_floating_point():
        raise ValueError(
            f"frames must be floats in [0, 1], got {frames.dtype}; "
            "divide 8-bit frames by 255 or use the model's processor"
        )
    expected = (num_channels, image_size, image_size)
    if frames.ndim != 4 or frames.shape[1:] != expected:
        raise ValueError(
            f"frames must have shape (B, {num_channels}, {image_size}, {image_size}), got {tuple(frames.shape)}; "
            "resize them with the model's processor"
        )
    check_pixel_range(frames)


def check_pair(frames: Tensor, next_frames: Tensor) -> None:
    """Raises a ValueError unless both batches of frames have the same shape."""
    if frames.shape != next_frames.shape:
        raise ValueError(
            f"frames {tuple(frames.shape)} and next_frames {tuple(next_frames.shape)} must have the same shape"
        )


def check_finite_latents(latents: Tensor) -> None:
    """Raises a ValueError unless latent actions in the CPU's memory are finite; an accelerator is not waited for."""
    if latents.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(torch.isfinite(latents).all()):
        raise ValueError("latents: got NaN or infinite values, expected finite ones. Check the model that made them.")
