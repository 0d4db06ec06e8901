"""Latent action models whose every answer is known, and videos for them: grey frames that get lighter or darker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig

from hilam_hf.data.episodes import Episode
from hilam_hf.evaluation.lam.pairs import EncodedPairs
from hilam_hf.models.latent_actions.dynamics import ForwardDynamicsModel, InverseDynamicsModel
from hilam_hf.video.video_file import write_video


@strict
class ToyConfig(PreTrainedConfig):
    model_type = "toy_lam"
    image_size: int = 8
    latent_dim: int = 1


class BrightnessIDM(InverseDynamicsModel):
    """The change of the mean brightness, in [-1, 1]."""

    config_class = ToyConfig

    def __init__(self, **options: Any) -> None:
        super().__init__(ToyConfig(**options))
        self.parameter = nn.Parameter(torch.zeros(1))

    def extract_features(self, frames: Tensor) -> Tensor:
        assert frames.shape[-2:] == (self.config.image_size,) * 2
        return frames.mean((1, 2, 3))[:, None]

    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        return next_features - features


class ConstantIDM(BrightnessIDM):
    """The same latent action for every pair."""

    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        return torch.full_like(features, 0.1)


class LooksIDM(BrightnessIDM):
    """The brightness of the first frame, whatever changes."""

    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        return features


class BrokenIDM(BrightnessIDM):
    """NaN where it gets darker."""

    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        change = next_features - features
        return torch.where(change < 0, torch.nan, change)


class CodeIDM(BrightnessIDM):
    """Two codes of a codebook of 4: 1 where it gets lighter and 0 otherwise, then always 3."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"latent_dim": 2, **options})

    @property
    def codebook(self) -> Tensor:
        return torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])

    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        lighter = (next_features > features + 0.5 / 255).long()
        return torch.cat([lighter, torch.full_like(lighter, 3)], dim=1)


class OneCodeIDM(CodeIDM):
    """The code 2, always."""

    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        return torch.full((len(features), 2), 2)


class BrightnessFDM(ForwardDynamicsModel):
    """Adds `gain` times the latent action to every pixel: with `BrightnessIDM` and a gain of 1 it knows the answer."""

    config_class = ToyConfig

    def __init__(self, gain: float = 1.0, **options: Any) -> None:
        super().__init__(ToyConfig(**options))
        self.parameter = nn.Parameter(torch.tensor(gain))

    def predict(self, frames: Tensor, latents: Tensor) -> Tensor:
        assert frames.shape[-2:] == (self.config.image_size,) * 2
        return frames + self.parameter * latents[:, :1, None, None]

    def loss(self, frames: Tensor, latents: Tensor, next_frames: Tensor) -> Tensor:
        return (self.predict(frames, latents) - next_frames).square().mean()


class NoisyFDM(BrightnessFDM):
    """Does not listen to the latent action, and samples."""

    def predict(self, frames: Tensor, latents: Tensor) -> Tensor:
        return frames + 0.01 * torch.randn_like(frames)


class BothModels(CodeIDM, ForwardDynamicsModel):
    """One model that is inverse and forward dynamics; takes codes."""

    def predict(self, frames: Tensor, latents: Tensor) -> Tensor:
        assert latents.dtype == torch.int64
        return frames + 0.05 * (2 * latents[:, :1, None, None] - 1)

    def loss(self, frames: Tensor, latents: Tensor, next_frames: Tensor) -> Tensor:
        return (self.predict(frames, latents) - next_frames).square().mean()


def walk(num_frames: int, seed: int, step: int = 12) -> list[int]:
    """Brightness that goes up or down by about `step` at each frame."""
    rng = np.random.default_rng(seed)
    values = [int(rng.integers(80, 170))]
    for _ in range(num_frames - 1):
        change = int(rng.integers(step // 2, 2 * step)) * (1 if rng.random() < 0.5 else -1)
        values.append(values[-1] + (change if 16 <= values[-1] + change <= 235 else -change))
    return values


def grey_video(path: Path, values: Sequence[int], fps: float = 10) -> Path:
    """Writes plain grey frames of the given brightness, 0 to 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 16, 16)
    write_video(path, frames.contiguous(), fps)
    return path


def walk_videos(folder: Path, lengths: Sequence[int]) -> Path:
    """A folder of random walks of brightness, `00.mp4` and so on."""
    for number, length in enumerate(lengths):
        grey_video(folder / f"{number:02d}.mp4", walk(length, seed=number))
    return folder


def make_pairs(
    episode: Sequence[int], vectors: Any, *, frames: Sequence[int] = (), next_frames: Sequence[int] = (), **changes: Any
) -> EncodedPairs:
    """Pairs of episodes `e0`, `e1`, ... of 100 frames; where brightnesses are given, all are kept, as 8 x 8 pixels."""
    vectors = np.asarray(vectors, dtype=np.float64)
    rows = np.asarray(episode, dtype=np.int64)
    num_episodes = int(rows.max()) + 1
    index = np.concatenate([np.arange(np.sum(rows == number)) for number in range(num_episodes)])
    pictures = [
        torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
        for values in (frames, next_frames)
    ]
    options: dict[str, Any] = {
        "episodes": [Episode(f"e{n}", f"e{n}.mp4", None, None, 10.0, 100, 4, 4) for n in range(num_episodes)],
        "strides": [2] * num_episodes,
        "episode": rows,
        "index": index,
        "latents": torch.from_numpy(vectors).float(),
        "vectors": vectors,
        "still_vectors": np.zeros_like(vectors),
        "changes": np.ones(len(rows)),
        "thumbnails": np.random.default_rng(7).normal(size=(len(rows), 12)).astype(np.float32),
        "kept": np.arange(len(frames)),
        "frames": pictures[0],
        "next_frames": pictures[1],
        "rejected": [],
    }
    return EncodedPairs(**options | changes)
