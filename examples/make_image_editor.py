"""Make a small stand-in for InstructPix2Pix from the frames of a folder of videos, for UniSkill without a download.

    python examples/make_image_editor.py --videos clips --out editor
    accelerate launch examples/train_lam.py clips --kind uniskill --out lam --image-size 64 \
        --model-option fdm.image_editor=editor --model-option idm.preset=light

Trains an autoencoder on single frames and writes it as a folder of diffusers' form, with an untrained UNet and a noise
schedule beside it. It is what `UniSkillFDM.from_diffusers` starts from: the autoencoder stays frozen from then on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers.utils import ModelOutput

from hilam_hf.data.episodes import scan_videos
from hilam_hf.data.samples.frame_pairs import FramePairDataset
from hilam_hf.models.uniskill import UniSkillFDMConfig
from hilam_hf.training import TrainingConfig, load_config, train

KL_WEIGHT = 1e-6
"""As in Stable Diffusion's autoencoder: just enough to keep the latents from growing without bound."""


class FrameAutoencoder(nn.Module):
    """diffusers' autoencoder with a loss: absolute error of the pixels, and a little KL divergence."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, frames: Tensor) -> ModelOutput:
        """The loss for frames (B, 3, H, W), uint8."""
        pixels = frames.to(self.vae.dtype) / 127.5 - 1
        posterior = self.vae.encode(pixels).latent_dist
        error = F.l1_loss(self.vae.decode(posterior.sample()).sample, pixels)
        return ModelOutput(loss=error + KL_WEIGHT * posterior.kl().mean(), error=error)


class SingleFrames(Dataset[dict[str, Tensor]]):
    """The first frame of each pair."""

    def __init__(self, pairs: FramePairDataset) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"frames": self.pairs[index]["frames"]}


@torch.no_grad()
def latent_scale(vae: AutoencoderKL, frames: SingleFrames, count: int = 64) -> float:
    """1 / standard deviation of the latents, with which diffusion sees them at unit variance."""
    rows = torch.linspace(0, len(frames) - 1, count).long().tolist()
    pixels = torch.stack([frames[row]["frames"] for row in rows]).to(vae.device) / 127.5 - 1
    return 1 / vae.encode(pixels).latent_dist.mean.std().item()


def widths(text: str) -> list[int]:
    """Numbers with commas between them."""
    return [int(part) for part in text.split(",")]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="training options, e.g. max_steps=1000")
    parser.add_argument("--videos", type=Path, required=True, help="folder of videos")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--image-size", type=int, default=64, help="side of the frames in pixels")
    parser.add_argument("--widths", type=widths, default=[64, 128], help="channels of the UNet's levels: 64,128")
    parser.add_argument("--overwrite", action="store_true", help="replace the editor that is in --out")
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    config = load_config(TrainingConfig, None, ["max_steps=1000", "global_batch_size=16", *options.overrides])
    frames = SingleFrames(FramePairDataset(scan_videos(options.videos).episodes, options.image_size, stride=1))
    torch.manual_seed(config.seed)
    vae = AutoencoderKL(
        sample_size=options.image_size,
        latent_channels=4,
        block_out_channels=[32, 64, 64],
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        norm_num_groups=16,
    )
    autoencoder = FrameAutoencoder(vae)
    train(autoencoder, frames, config, output_dir=options.out, overwrite=options.overwrite, description="autoencoder")
    vae.eval().register_to_config(scaling_factor=latent_scale(vae, frames))
    levels = len(options.widths)
    unet = UNet2DConditionModel(
        sample_size=options.image_size // 4,
        in_channels=8,
        out_channels=4,
        block_out_channels=options.widths,
        layers_per_block=1,
        down_block_types=["DownBlock2D", *["CrossAttnDownBlock2D"] * (levels - 1)],
        up_block_types=[*["CrossAttnUpBlock2D"] * (levels - 1), "UpBlock2D"],
        cross_attention_dim=256,
        attention_head_dim=8,
    )
    schedule: dict[str, Any] = UniSkillFDMConfig().scheduler_config
    parts = {"vae": vae, "unet": unet, "scheduler": DDPMScheduler.from_config(schedule)}
    for name, part in parts.items():
        part.save_pretrained(options.out / name)
    print(f"image editor in {options.out}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"make_image_editor: {error}")
