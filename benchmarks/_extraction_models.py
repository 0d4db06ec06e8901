"""Latent action models with random weights at published sizes, and clips to run them on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    Dinov2Model,
    DPTImageProcessorPil,
)

from hilam_hf.models.feature_difference import FeatureDifferenceConfig, FeatureDifferenceIDM
from hilam_hf.models.latent_actions.dynamics import InverseDynamicsModel
from hilam_hf.models.uniskill.configuration_uniskill import UniSkillIDMConfig
from hilam_hf.models.uniskill.modeling_uniskill_idm import UniSkillIDM
from hilam_hf.video.video_file import write_video

Builder = Callable[[Path, bool], InverseDynamicsModel]
"""Makes a model whose frozen network, if it has one, is put in a folder; True: everything tiny."""

_SMALL_VIT = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "patch_size": 14}
_TINY_VIT = {"hidden_size": 12, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 14}
_TINY_RESNET = {"layer_type": "basic", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def uniskill(folder: Path, tiny: bool) -> UniSkillIDM:
    """UniSkill's IDM as published; depth by a network of the size of Depth Anything V2 Small, at 518 px."""
    depth = str(save_depth_network(folder / "depth", tiny))
    torch.manual_seed(0)
    if not tiny:
        return UniSkillIDM(UniSkillIDMConfig(depth_model=depth)).eval()
    options = {"image_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "latent_dim": 4}
    return UniSkillIDM(UniSkillIDMConfig(depth_model=depth, backbone_config=_TINY_RESNET, **options)).eval()


def dinov2(folder: Path, tiny: bool) -> FeatureDifferenceIDM:
    """Differences of the features of a network of the size of DINOv2 Small, at 224 px, on 64 of their directions."""
    torch.manual_seed(0)
    vit = _TINY_VIT if tiny else _SMALL_VIT
    size, width = (28, 4) if tiny else (224, 64)
    Dinov2Model(Dinov2Config(image_size=size, **vit)).save_pretrained(folder / "dinov2")
    options = {"image_size": size, "latent_dim": width, "pooling": "mean", "whiten": False}
    idm = FeatureDifferenceIDM(FeatureDifferenceConfig.from_backbone(str(folder / "dinov2"), **options))
    # Random directions, as random as the weights: the components of made-up features.
    features, next_features = torch.randn(2, 8 * width, idm.config.feature_dim)
    return idm.fit_features([(features, next_features)]).eval()


def light(folder: Path, tiny: bool) -> UniSkillIDM:
    """The library's own light IDM, which sees 64 px: reading a video takes about as long as computing."""
    torch.manual_seed(0)
    changes = {"hidden_size": 16, "num_hidden_layers": 1, "latent_dim": 4} if tiny else {}
    return UniSkillIDM(UniSkillIDMConfig.preset("light", **changes)).eval()


BUILDERS: dict[str, Builder] = {"uniskill": uniskill, "dinov2": dinov2, "light": light}


def save_depth_network(folder: Path, tiny: bool) -> Path:
    """A depth network of the published sizes (25 M parameters) with random weights, and its image processor."""
    torch.manual_seed(0)
    size = 28 if tiny else 518
    vit = _TINY_VIT if tiny else _SMALL_VIT
    backbone = Dinov2Config(image_size=size, out_indices=[1, 2, 3, 4] if tiny else [3, 6, 9, 12], **vit)
    backbone.apply_layernorm, backbone.reshape_hidden_states = True, False
    neck = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "head_hidden_size": 8} if tiny else {}
    config = DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=vit["hidden_size"], **neck)
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    edges = {"height": size, "width": size}
    processor = DPTImageProcessorPil(size=edges, keep_aspect_ratio=True, ensure_multiple_of=14, resample=3, **_IMAGENET)
    processor.save_pretrained(folder)
    return folder


def write_clips(folder: Path, count: int, num_frames: int, height: int = 240, width: int = 320) -> Path:
    """Clips at 10 frames a second."""
    folder.mkdir(parents=True, exist_ok=True)
    for clip in range(count):
        write_video(folder / f"{clip:03}.mp4", drifting_frames(num_frames, height, width, seed=clip), fps=10)
    return folder


def drifting_frames(num_frames: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Frames (T, 3, H, W) of coarse noise that drifts by 2 pixels a frame; H and W are multiples of 8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8, width // 8 + num_frames // 4 + 1, generator=generator)
    scene = F.interpolate(coarse, scale_factor=8, mode="bilinear").mul(255).to(torch.uint8)[0]
    return torch.stack([scene[..., 2 * t : 2 * t + width] for t in range(num_frames)])
