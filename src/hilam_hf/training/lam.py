"""Training of a latent action model: inverse and forward dynamics together, on pairs of frames alone."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import ModelOutput

from ..models.dynamics import ForwardDynamicsModel, InverseDynamicsModel
from .config import TrainingConfig
from .loop import TrainingResult, save_model, train


class LatentActionModel(nn.Module):
    """Inverse and forward dynamics in one module: z = IDM(I_t, I_{t+k}); loss of FDM(I_t, z) against I_{t+k}."""

    def __init__(self, idm: InverseDynamicsModel, fdm: ForwardDynamicsModel):
        super().__init__()
        if idm.config.latent_dim != fdm.config.latent_dim or idm.config.image_size != fdm.config.image_size:
            raise ValueError(
                "IDM and FDM must agree on latent_dim and image_size, got "
                f"{idm.config.latent_dim} and {fdm.config.latent_dim}, "
                f"{idm.config.image_size} and {fdm.config.image_size}"
            )
        self.idm = idm
        self.fdm = fdm

    def forward(self, frames: Tensor, next_frames: Tensor) -> ModelOutput:
        """The forward model's loss.

        Args:
            frames: (B, C, H, W) uint8, the frames I_t.
            next_frames: (B, C, H, W) uint8, the frames I_{t+k}.
        """
        current, target = frames.to(self.idm.dtype) / 255, next_frames.to(self.idm.dtype) / 255
        latents = self.idm.encode(current, target)
        return ModelOutput(loss=self.fdm.loss(current, latents, target))


def train_lam(
    idm: InverseDynamicsModel,
    fdm: ForwardDynamicsModel,
    pairs: Dataset[Any],
    config: TrainingConfig,
    *,
    output_dir: str | Path,
    processor: BaseImageProcessor | None = None,
    resume: bool = False,
) -> TrainingResult:
    """Trains both models in place and saves them as `output_dir/idm` and `output_dir/fdm`.

    Args:
        idm: Inverse dynamics model.
        fdm: Forward dynamics model.
        pairs: Samples with uint8 `frames` and `next_frames`, e.g. a `FramePairDataset`.
        config: Training options.
        output_dir: Folder for checkpoints, history and the trained models.
        processor: Image processor to save beside the inverse dynamics model.
        resume: Continue from the latest checkpoint in `output_dir`.
    """
    result = train(
        LatentActionModel(idm, fdm),
        _FramesOnly(pairs),
        config,
        output_dir=output_dir,
        resume=resume,
        description="latent action model",
    )
    save_model(idm, Path(output_dir) / "idm", processor)
    save_model(fdm, Path(output_dir) / "fdm")
    return result


class _FramesOnly(Dataset[dict[str, Tensor]]):
    """Drops what says where a pair comes from: the models get frames and nothing else."""

    def __init__(self, pairs: Dataset[Any]):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        pair = self.pairs[index]
        return {"frames": pair["frames"], "next_frames": pair["next_frames"]}
