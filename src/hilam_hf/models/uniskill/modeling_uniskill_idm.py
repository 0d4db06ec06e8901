"""UniSkill's inverse dynamics model (Kim et al. 2025): a spatio-temporal transformer over the patches of two frames.

Shapes: B batch, T = 2 frames, S patches a frame, D hidden width, E width of the RGB features, C channels, H heads, R
pixels to a side of a frame, P to a side of a patch.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers import ResNetModel
from transformers import initialization as init
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput

from ..attention import eager_attention
from ..frozen import load_frozen
from ..latent_actions.dynamics import InverseDynamicsModel, check_frames, check_pair
from ..published import listed
from .configuration_uniskill import UniSkillIDMConfig
from .depth import DepthNetwork, depth_patches, scale_depth

_RESNET_FIELDS = (
    "num_channels",
    "embedding_size",
    "hidden_sizes",
    "depths",
    "layer_type",
    "hidden_act",
    "downsample_in_first_stage",
    "downsample_in_bottleneck",
)


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values (rows in this order)."""

    def __init__(self, config: UniSkillIDMConfig, is_causal: bool):
        super().__init__()
        self.config = config
        self.is_causal = is_causal
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.in_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        states = self.in_proj(hidden_states)
        query, key, value = rearrange(states, "b s (three h e) -> three b h s e", three=3, e=self.head_dim)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        output, _ = attend(
            self, query, key, value, None, dropout=0.0, scaling=self.head_dim**-0.5, is_causal=self.is_causal
        )
        return self.out_proj(output.flatten(2))


class SpatioTemporalBlock(GradientCheckpointingLayer):
    """Attention among the patches of a frame, causal attention along time at a patch, then an MLP; pre-norm."""

    def __init__(self, config: UniSkillIDMConfig):
        super().__init__()
        width = config.hidden_size
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.spatial_attention = Attention(config, is_causal=False)
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.temporal_attention = Attention(config, is_causal=True)
        self.norm3 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.mlp_ratio * width), nn.GELU(), nn.Linear(config.mlp_ratio * width, width)
        )

    def forward(self, hidden_states: Tensor) -> Tensor:
        batch = len(hidden_states)
        spatial = self.spatial_attention(rearrange(self.norm1(hidden_states), "b t s d -> (b t) s d"))
        hidden_states = hidden_states + rearrange(spatial, "(b t) s d -> b t s d", b=batch)
        temporal = self.temporal_attention(rearrange(self.norm2(hidden_states), "b t s d -> (b s) t d"))
        hidden_states = hidden_states + rearrange(temporal, "(b s) t d -> b t s d", b=batch)
        return hidden_states + self.mlp(self.norm3(hidden_states))


class AttentionFreeResNet(ResNetModel):
    """A ResNet that takes part in any choice of attention kernel, as it has no attention."""

    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True


@dataclass
class UniSkillIDMOutput(ModelOutput):
    """Output of [`UniSkillIDM`].

    Attributes:
        latents: (B, latent_dim) latent actions.
        last_hidden_state: (B, 2, S, D) patch tokens of both frames after the last block.
    """

    latents: Tensor | None = None
    last_hidden_state: Tensor | None = None


class UniSkillIDM(InverseDynamicsModel):
    """UniSkill's inverse dynamics model with a continuous latent action.

    As published (`UniSkillIDMConfig()`), a patch token is fused from the frame's depth, by a frozen network that is
    part of no checkpoint, and the features of a ResNet-18, which is trained. Other configurations leave out depth, or
    look at the pixels themselves. Published training starts the ResNet from ImageNet: `from_resnet`. UniSkill's
    projection of the latent action to the UNet's condition is part of [`UniSkillFDM`].

    In training mode the ResNet's batch norm takes the statistics of all frames of a batch, current and next together.

    Example:
        >>> idm = UniSkillIDM(UniSkillIDMConfig.preset("light"))
        >>> idm.encode_video(torch.rand(10, 3, 64, 64), stride=4).shape
        torch.Size([6, 64])
    """

    config: UniSkillIDMConfig
    base_model_prefix = "idm"
    main_input_name = "frames"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ("SpatioTemporalBlock",)

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: UniSkillIDMConfig):
        super().__init__(config)
        width, eps = config.hidden_size, config.layer_norm_eps
        self.backbone: AttentionFreeResNet | None = None
        self.depth_network: DepthNetwork | None = None
        fused_dim = config.visual_dim
        if config.backbone_config is None:
            self.patch_embedding = nn.Conv2d(config.num_channels, width, config.patch_size, stride=config.patch_size)
        else:
            self.backbone = AttentionFreeResNet._from_config(config.backbone_config)
            self.register_buffer("pixel_mean", torch.empty(3, 1, 1), persistent=False)
            self.register_buffer("pixel_std", torch.empty(3, 1, 1), persistent=False)
        if config.depth_model is not None:
            self.depth_network = DepthNetwork(config.depth_model, config.image_size, config.depth_batch_size)
            self.depth_embedding = normed_projection(config.patch_size**2, width, eps)
            fused_dim += width
        self.is_fused = self.backbone is not None or self.depth_network is not None
        if self.is_fused:
            self.fusion = normed_projection(fused_dim, width, eps)
        self.spatial_positions = nn.Parameter(torch.zeros(1, 1, config.num_patches, width))
        self.temporal_positions = nn.Parameter(torch.zeros(1, 2, 1, width))
        self.blocks = nn.ModuleList(SpatioTemporalBlock(config) for _ in range(config.num_hidden_layers))
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.latent_proj = nn.Linear(width, config.latent_dim)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            std = self.config.linear_initializer_range
            init.normal_(module.weight, std=module.in_features**-0.5 if std is None else std)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)
        if isinstance(module, UniSkillIDM):
            init.normal_(module.spatial_positions, std=self.config.initializer_range)
            init.normal_(module.temporal_positions, std=self.config.initializer_range)
            if module.backbone is not None:
                init.copy_(module.pixel_mean, torch.tensor(IMAGENET_DEFAULT_MEAN).view(3, 1, 1))
                init.copy_(module.pixel_std, torch.tensor(IMAGENET_DEFAULT_STD).view(3, 1, 1))

    @classmethod
    def from_resnet(
        cls, name_or_path: str = "microsoft/resnet-18", *, revision: str | None = None, **changes: Any
    ) -> "UniSkillIDM":
        """A new model whose ResNet starts from published weights, as UniSkill's training does from ImageNet's.

        Args:
            name_or_path: Hub id or folder of a ResNet of transformers, with safetensors.
            revision: Branch, tag or commit on the Hub.
            **changes: Fields of [`UniSkillIDMConfig`] to set.

        Raises:
            OSError: If the ResNet can't be had, in one line that names it and says how to give a folder.
            ValueError: If it is no ResNet, or lacks weights.
        """
        resnet, info = load_frozen(
            ResNetModel,
            name_or_path,
            role="RGB backbone",
            option="name_or_path",
            revision=revision,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        if info["missing_keys"]:
            raise ValueError(
                f"{name_or_path}: lacks {listed(sorted(info['missing_keys']))}, expected a whole ResNet such as "
                "microsoft/resnet-18. Give another checkpoint."
            )
        # The rest of its configuration is about ImageNet's classes.
        backbone_config = {name: getattr(resnet.config, name) for name in _RESNET_FIELDS}
        model = cls(UniSkillIDMConfig(backbone_config=backbone_config, **changes))
        model.backbone.load_state_dict(resnet.state_dict())
        return model.eval()

    def extract_features(self, frames: Tensor, depth: Tensor | None = None) -> Tensor:
        """Patch features of frames: all that does not depend on the other frame of a pair.

        A frame that holds NaN is refused where frames lie in the CPU's memory, like any value outside [0, 1]. On an
        accelerator, where looking at values would wait for it, it gives NaN (in evaluation mode to its own features
        alone).

        Args:
            frames: (B, C, R, R) floats in [0, 1].
            depth: (B, R, R) floats, depth maps of any scale, where they are at hand. None: the depth network's.

        Returns:
            (B, S, D) features.

        Raises:
            ValueError: If the frames have another shape, dtype or range, or depth has another shape or no use.
            OSError: If the depth network is needed and can't be had.
        """
        check_frames(frames, self.config.num_channels, self.config.image_size)
        self._check_depth(frames, depth)
        tokens = self._visual_tokens(frames)  # (B, S, E)
        if self.depth_network is not None:
            depth = self.depth_network(frames) if depth is None else depth
            patches = depth_patches(scale_depth(depth).to(tokens.dtype), self.config.patch_size)  # (B, S, P * P)
            tokens = torch.cat([self.depth_embedding(patches), tokens], dim=-1)  # (B, S, D + E)
        return self.fusion(tokens) if self.is_fused else tokens

    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        """Latent actions (B, latent_dim) from patch features (B, S, D) of both frames."""
        return self._pool(self._transform(features, next_features))

    def forward(
        self, frames: Tensor, next_frames: Tensor, depth: Tensor | None = None, next_depth: Tensor | None = None
    ) -> UniSkillIDMOutput:
        """Latent actions between paired frames.

        Args:
            frames: (B, C, R, R) floats in [0, 1], the frames I_t.
            next_frames: (B, C, R, R) floats in [0, 1], the frames I_{t+k}.
            depth: (B, R, R) floats, depth maps of `frames`, of any scale. None: the depth network's.
            next_depth: (B, R, R) floats, depth maps of `next_frames`; given if and only if `depth` is.

        Raises:
            ValueError: If the two batches differ in shape, only one has depth, or `extract_features` refuses them.
            OSError: If the depth network is needed and can't be had.
        """
        check_pair(frames, next_frames)
        if (depth is None) != (next_depth is None):
            raise ValueError("depth and next_depth: got one of them, expected both or none.")
        both_depths = None if depth is None else torch.cat([depth, next_depth])
        features = self.extract_features(torch.cat([frames, next_frames]), both_depths)
        hidden_states = self._transform(*features.chunk(2))
        return UniSkillIDMOutput(latents=self._pool(hidden_states), last_hidden_state=hidden_states)

    def _visual_tokens(self, frames: Tensor) -> Tensor:
        """What each patch gets from the colours, (B, S, E)."""
        if self.backbone is None:
            maps = self.patch_embedding(frames * 2 - 1)
        else:
            maps = self.backbone((frames - self.pixel_mean) / self.pixel_std).last_hidden_state  # (B, E, h, w)
            side = self.config.image_size // self.config.patch_size
            maps = F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)
        return rearrange(maps, "b e h w -> b (h w) e")

    def _transform(self, features: Tensor, next_features: Tensor) -> Tensor:
        hidden_states = torch.stack([features, next_features], dim=1)  # (B, 2, S, D)
        hidden_states = hidden_states + self.spatial_positions + self.temporal_positions
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states

    def _pool(self, hidden_states: Tensor) -> Tensor:
        # Attention along time is causal, so only the second frame's tokens have seen both frames.
        return self.latent_proj(self.norm(self.proj(hidden_states[:, -1].mean(1))))

    def _check_depth(self, frames: Tensor, depth: Tensor | None) -> None:
        if depth is None:
            return
        if self.depth_network is None:
            raise ValueError("depth: got maps, expected None, as this model has no depth stream. Leave them out.")
        expected = (len(frames), *frames.shape[-2:])
        if depth.shape != expected or not depth.is_floating_point():
            raise ValueError(
                f"depth: got {tuple(depth.shape)} of {depth.dtype}, expected {expected} of floats. Resize raw maps "
                "with hilam_hf.models.uniskill.depth.resize_depth."
            )


def normed_projection(in_features: int, out_features: int, eps: float) -> nn.Sequential:
    """A linear layer between layer norms."""
    return nn.Sequential(
        nn.LayerNorm(in_features, eps=eps), nn.Linear(in_features, out_features), nn.LayerNorm(out_features, eps=eps)
    )
