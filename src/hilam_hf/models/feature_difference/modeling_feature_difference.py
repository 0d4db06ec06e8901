"""Latent actions without training: principal components of the differences of frozen image features.

What changes between two frames is, to first order, the difference of their features; its principal components over a
corpus are a latent action of the wanted width.

Shapes: B batch, N frames of a piece of video, C channels, H and W pixels, S patches, E width of a token, F width of a
frame's pooled features, D width of a latent action, k stride in frames.
"""

import inspect
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from einops import rearrange
from scipy.linalg import eigh
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel
from transformers import initialization as init
from transformers.utils import ModelOutput, cached_file

from ...video import as_float_frames, check_pixel_range
from ..frozen import FrozenNetwork, load_frozen
from ..latent_actions.dynamics import InverseDynamicsModel, check_frames, check_pair
from ..numerics import upcast
from .configuration_feature_difference import FeatureDifferenceConfig

_ROLE, _OPTION = "image backbone", "backbone"
# Features of equal frames differ by rounding in the backbone; variance below the square of this times theirs is none.
_RELATIVE_NOISE = 1e-5
# Interpolation in half precision may leave [0, 1] by this much.


class ImageStatistics(NamedTuple):
    """Mean and standard deviation per channel with which a backbone wants its images; ImageNet's if unsaid."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @classmethod
    def from_pretrained(cls, name_or_path: str, *, trust_remote_code: bool = False) -> "ImageStatistics":
        """Reads the preprocessor's file of a Hub id or folder.

        Args:
            name_or_path: Hub id or folder.
            trust_remote_code: As transformers' classes take it; numbers alone are read, whatever it is.

        Raises:
            OSError: If it is not known whether there is such a file, for want of a connection.
        """
        path = cached_file(name_or_path, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
        if path is None:
            return cls()
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        if not values.get("do_normalize", True):
            return cls((0.0,), (1.0,))
        default = cls()
        return cls(tuple(values.get("image_mean") or default.mean), tuple(values.get("image_std") or default.std))


class DifferenceMoments:
    """Mean and scatter of feature differences, exact and in float64, in memory that does not grow with their number.

    Args:
        feature_dim: F.
        device: Where to sum up.
    """

    def __init__(self, feature_dim: int, device: torch.device | str = "cpu") -> None:
        self.feature_dim = feature_dim
        self.count = 0
        self.mean = torch.zeros(feature_dim, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(feature_dim, feature_dim, dtype=torch.float64, device=device)
        self.feature_power = 0.0

    def update(self, features: Tensor, next_features: Tensor) -> None:
        """Adds the differences of the features (B, F) of B pairs.

        Raises:
            ValueError: If shapes are not (B, F), or a value is not finite.
        """
        expected = (len(features), self.feature_dim)
        if tuple(features.shape) != expected or tuple(next_features.shape) != expected:
            raise ValueError(
                f"features: got shapes {tuple(features.shape)} and {tuple(next_features.shape)}, expected twice "
                f"(B, {self.feature_dim}). Take them from extract_features."
            )
        if len(features) == 0:
            return
        features = features.to(self.mean)
        differences = next_features.to(self.mean) - features
        if not bool(torch.isfinite(differences).all()):
            raise ValueError("features: got NaN or infinite values, expected finite ones. Check the frames.")
        # Chan et al. 1983: the moments of two samples give those of both, without cancellation.
        added, total = len(differences), self.count + len(differences)
        shift = differences.mean(0) - self.mean
        centred = differences - differences.mean(0)
        self.scatter.addmm_(centred.T, centred).addr_(shift, shift, alpha=self.count * added / total)
        self.mean += shift * (added / total)
        self.feature_power += (float(features.square().sum(1).mean()) - self.feature_power) * added / total
        self.count = total

    def principal_components(self, num_components: int) -> tuple[Tensor, Tensor]:
        """The directions of largest variance, largest first.

        Returns:
            Components (D, F) of unit length, each with its largest entry positive, and variances (D,); float64, on the
            CPU.

        Raises:
            ValueError: If there are too few pairs, nothing changes, or the differences span fewer than D directions.
        """
        if self.count <= num_components:
            raise ValueError(
                f"fit: got {self.count} pairs of frames, expected more than latent_dim ({num_components}). Give more "
                "video, a smaller stride, or build the model with a smaller latent_dim."
            )
        covariance = (self.scatter / (self.count - 1)).cpu()
        noise = _RELATIVE_NOISE**2 * self.feature_power
        if float(covariance.trace()) <= noise:
            raise ValueError(
                f"fit: the features of {self.count} pairs of frames never change, expected videos in which something "
                "moves. Check the decoding, or give other videos or a larger stride."
            )
        first = self.feature_dim - num_components
        values, vectors = eigh(covariance.numpy(), overwrite_a=True, subset_by_index=[first, self.feature_dim - 1])
        variances, components = torch.from_numpy(values).flip(0), torch.from_numpy(vectors).T.flip(0)
        rank = int((variances > noise / self.feature_dim).sum())
        if rank < num_components:
            raise ValueError(
                f"fit: the differences of {self.count} pairs of frames span {rank} directions, expected latent_dim "
                f"({num_components}). Give more varied videos, or build the model with a smaller latent_dim."
            )
        # Eigenvectors have no sign of their own.
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        return components * largest.sign(), variances


@dataclass
class FeatureDifferenceOutput(ModelOutput):
    """Output of [`FeatureDifferenceIDM`].

    Attributes:
        latents: (B, latent_dim) latent actions.
    """

    latents: Tensor | None = None


class FeatureDifferenceIDM(InverseDynamicsModel):
    """Principal components of the change in a frozen backbone's features, as latent actions.

    Nothing is trained: `fit`, `fit_videos` or `fit_features` computes the components once. The checkpoint holds them
    alone; the backbone is loaded at the first use.

    Example:
        >>> idm = FeatureDifferenceIDM(FeatureDifferenceConfig.from_backbone("facebook/dinov2-small"))
        >>> idm.fit_videos([torch.rand(200, 3, 224, 224).split(50)], stride=5)
        >>> idm.encode_video(torch.rand(20, 3, 224, 224), stride=5).shape
        torch.Size([15, 64])
    """

    config: FeatureDifferenceConfig
    mean: Tensor
    components: Tensor
    explained_variance: Tensor
    base_model_prefix = "idm"
    main_input_name = "frames"
    input_modalities = ("video",)

    def __init__(self, config: FeatureDifferenceConfig):
        super().__init__(config)
        self.network = FrozenNetwork(AutoModel, config.backbone, role=_ROLE, option=_OPTION)
        self._is_fit = False
        self.register_buffer("mean", torch.full((config.feature_dim,), torch.nan))
        self.register_buffer("components", torch.full((config.latent_dim, config.feature_dim), torch.nan))
        self.register_buffer("explained_variance", torch.full((config.latent_dim,), torch.nan))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FeatureDifferenceIDM):
            for name in ("mean", "components", "explained_variance"):
                init.constant_(getattr(module, name), torch.nan)

    # The base class asks the parameters, of which there are none.
    @property
    def device(self) -> torch.device:
        """Where the components are."""
        return self.components.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the components, and that in which the backbone computes."""
        return self.components.dtype

    # Loading inside a compiled graph would be traced.
    @torch.compiler.disable
    def extract_features(self, frames: Tensor) -> Tensor:
        """Pooled features (B, F), in float32 or wider, of frames (B, C, H, W) in [0, 1].

        Raises:
            OSError: If the backbone can't be had.
            ValueError: If frames are not (B, C, H, W) floats of the model's size, or the backbone does not fit.
        """
        check_frames(frames, self.config.num_channels, self.config.image_size)
        network = self.network.on(self.device, self.dtype)
        self.config.check_backbone(network.config)
        mean, std = _statistics(self.config.backbone, self.config.num_channels, self.device)
        pixels = ((upcast(frames) - mean) / std).to(self.dtype)
        tokens = network(pixels, **_position_options(network, self.config.image_size)).last_hidden_state
        # Differences between frames are small beside the features, so half precision ends here.
        return self._pool(upcast(tokens), network)

    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        """Latent actions (B, latent_dim) from the pooled features (B, F) of both frames.

        Raises:
            ValueError: If the components were never computed.
        """
        self.require_fit()
        differences = upcast(next_features) - upcast(features) - self.mean
        latents = differences @ self.components.T.to(differences.dtype)
        if self.config.whiten:
            latents = latents * upcast(self.explained_variance).rsqrt()
        return latents.to(self.dtype)

    def forward(self, frames: Tensor, next_frames: Tensor) -> FeatureDifferenceOutput:
        """Latent actions between `frames` and `next_frames`, both (B, C, H, W) floats in [0, 1]."""
        return FeatureDifferenceOutput(latents=self.encode(frames, next_frames))

    @property
    def needs_fit(self) -> bool:
        """Whether the components were never computed."""
        return not bool(torch.isfinite(self.explained_variance).all())

    def fit(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> "FeatureDifferenceIDM":
        """Computes the components from batches of pairs of frames, in bounded memory.

        Args:
            pairs: Batches (frames, next_frames), both (B, C, H, W), uint8 or floats in [0, 1].

        Returns:
            The model itself.

        Raises:
            OSError: If the backbone can't be had.
            ValueError: If frames don't fit, there are no more than `latent_dim` pairs, nothing changes, or the
                differences span fewer than `latent_dim` directions.
        """
        return self.fit_features(self._features_of(*pair) for pair in pairs)

    def fit_videos(self, videos: Iterable[Iterable[Tensor]], stride: int = 1) -> "FeatureDifferenceIDM":
        """Computes the components from videos; each frame's features are computed once, not once a pair.

        Args:
            videos: For each video its consecutive pieces (N, C, H, W), uint8 or floats in [0, 1].
            stride: k, the distance in frames between the two frames of a pair.

        Returns:
            The model itself.

        Raises:
            OSError: If the backbone can't be had.
            ValueError: As `fit`; or if `stride` is below 1, or a video has no pair of frames at this stride.
        """
        if stride < 1:
            raise ValueError(f"stride must be at least 1 frame, got {stride}")
        return self.fit_features(
            pair for index, pieces in enumerate(videos) for pair in self._video_features(index, pieces, stride)
        )

    @torch.no_grad()
    def fit_features(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> "FeatureDifferenceIDM":
        """Computes the components from features that `extract_features` gave before.

        Exact: the covariance of the differences is summed up in float64, where the model is, and decomposed on the CPU.
        Memory grows with F squared and time with F cubed: at the default F of 6144, 1 GB and half a minute on one core.

        Args:
            pairs: Batches (features, next_features), both (B, F).

        Returns:
            The model itself.

        Raises:
            ValueError: As `fit`.
        """
        moments = DifferenceMoments(self.config.feature_dim, self.device)
        for features, next_features in pairs:
            moments.update(features, next_features)
        components, variances = moments.principal_components(self.config.latent_dim)
        self.mean.copy_(moments.mean)
        self.components.copy_(components)
        self.explained_variance.copy_(variances)
        return self

    def require_fit(self) -> None:
        """Raises a ValueError if the components were never computed."""
        if self._is_fit or torch.compiler.is_compiling():
            return
        # One transfer from the device, and only until the values are found set.
        if self.needs_fit:
            raise ValueError(
                "components: this model has none, expected those of the videos it is used on. Call fit(pairs) or "
                "fit_videos(videos, stride), or load a checkpoint that was fitted."
            )
        self._is_fit = True

    def _pool(self, tokens: Tensor, network: nn.Module) -> Tensor:
        if self.config.pooling == "cls":
            return tokens[:, 0]
        patches = tokens[:, self.config.num_prefix_tokens(network.config) :]  # (B, S, E)
        if self.config.pooling == "mean":
            return patches.mean(1)
        side = self.config.patches_per_side(network.config)
        grid = rearrange(patches, "b (h w) e -> b e h w", h=side)
        cells = F.adaptive_avg_pool2d(grid, self.config.grid_size)
        return rearrange(cells, "b e h w -> b (h w e)")

    def _features_of(self, frames: Tensor, next_frames: Tensor) -> tuple[Tensor, Tensor]:
        check_pair(frames, next_frames)
        first, second = self._checked_features(torch.cat([frames, next_frames])).chunk(2)
        return first, second

    def _checked_features(self, frames: Tensor) -> Tensor:
        frames = as_float_frames(frames.to(self.device))
        check_frames(frames, self.config.num_channels, self.config.image_size)
        check_pixel_range(frames, wait=True)
        return self.extract_features(frames)

    def _video_features(self, index: int, pieces: Iterable[Tensor], stride: int) -> Iterator[tuple[Tensor, Tensor]]:
        num_frames = 0
        waiting: Tensor | None = None  # features of the last k frames, whose partners are still to come
        for piece in pieces:
            num_frames += len(piece)
            features = self._checked_features(piece)
            if waiting is not None:
                features = torch.cat([waiting, features])
            if len(features) > stride:
                yield features[:-stride], features[stride:]
            waiting = features[-stride:]
        if num_frames <= stride:
            raise ValueError(
                f"video {index} of {num_frames} frames has no pair of frames {stride} apart; "
                "use a smaller stride or set it aside"
            )


@cache
def _statistics(backbone: str, num_channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a backbone's images, (C, 1, 1) each."""
    statistics = load_frozen(ImageStatistics, backbone, role=_ROLE, option=_OPTION)
    for values in statistics:
        if len(values) not in (1, num_channels):
            raise ValueError(
                f"num_channels: got {num_channels}, but backbone {backbone!r} normalises {len(values)} channels. Name "
                "another backbone, or correct its preprocessor_config.json."
            )
    mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in statistics)
    return mean, std


def _position_options(network: nn.Module, image_size: int) -> dict[str, bool]:
    """What makes a backbone stretch its position vectors to another image size; some do so unasked."""
    is_option = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
    return {"interpolate_pos_encoding": True} if is_option and network.config.image_size != image_size else {}
