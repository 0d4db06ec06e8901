"""Training of a latent action model: inverse and forward dynamics together, on pairs of frames alone.

Shapes: B batch, C channels, H and W pixels, D width of a latent action, k stride in frames.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from transformers.utils import ModelOutput

from ...fingerprint import weights_fingerprint
from ...models.latent_actions.dynamics import ForwardDynamicsModel, InverseDynamicsModel
from ...models.numerics import MeanOverParts
from ...video import as_float_frames
from ..callbacks import Callback, TrainingState
from ..config import TrainingConfig
from ..held_out import evenly_spread
from ..loop import TrainingResult, train
from ..processes import process_state
from ..run_folder import RunFolder, open_run_folder
from ..saving import save_model
from .data import FramesOnly
from .validation import NextFrameValidation

# Pairs that a model is fitted to before training; of principal components, more change little.
_MAX_FITTED_PAIRS = 10_000
# Two models have folders of their own; one that is both lies in the folder of the run itself.
WRITES = ("idm", "fdm", "config.json", "model*.safetensors*", "preprocessor_config.json")


class LatentActionModel(nn.Module):
    """Inverse and forward dynamics in one module: z = IDM(I_t, I_{t+k}); loss of FDM(I_t, z) against I_{t+k}.

    Args:
        idm: Inverse dynamics model. One without trainable parameters stays in evaluation mode and in full precision, so
            that its latent actions are those that it gives later.
        fdm: Forward dynamics model; `idm` itself where one model is both, whose own loss is then taken.

    Raises:
        ValueError: If the two differ in `latent_dim`.
    """

    def __init__(self, idm: InverseDynamicsModel, fdm: ForwardDynamicsModel):
        super().__init__()
        if idm.config.latent_dim != fdm.config.latent_dim:
            raise ValueError(
                f"IDM and FDM must agree on latent_dim, got {idm.config.latent_dim} and {fdm.config.latent_dim}; "
                "make the FDM with latent_dim of the IDM"
            )
        self.idm = idm
        self.is_joint = fdm is idm
        # A module that is registered twice would be saved twice.
        self.fdm: Any = None if self.is_joint else fdm
        self.idm_is_frozen = not any(parameter.requires_grad for parameter in idm.parameters())

    def train(self, mode: bool = True) -> "LatentActionModel":
        """Sets the mode; an inverse dynamics model that is not trained always stays in evaluation mode."""
        super().train(mode)
        if self.idm_is_frozen:
            self.idm.eval()
        return self

    def forward(
        self,
        frames: Tensor,
        next_frames: Tensor,
        idm_frames: Tensor | None = None,
        idm_next_frames: Tensor | None = None,
        mean_over_parts: MeanOverParts | None = None,
    ) -> ModelOutput:
        """The loss, and whatever other scalars a model that is both gives.

        Args:
            frames: (B, C, H, W) uint8, the frames I_t at the forward model's size.
            next_frames: (B, C, H, W) uint8, the frames I_{t+k}.
            idm_frames: The frames I_t at the inverse model's size, where that differs.
            idm_next_frames: The frames I_{t+k} at that size.
            mean_over_parts: For a part of a batch, see `hilam_hf.models.numerics.MeanOverParts`. The loss of a model
                that is both is a mean over pairs, of which all parts have as many.

        Raises:
            ValueError: If frames of the inverse model's size are missing.
        """
        if self.is_joint:
            output = self.idm(self._scaled(frames), self._scaled(next_frames))
            return ModelOutput(**{name: value for name, value in output.items() if _is_scalar(value)})
        latents = self._latents(frames, next_frames, idm_frames, idm_next_frames)
        scaled, scaled_next = self._scaled(frames), self._scaled(next_frames)
        if mean_over_parts is None:
            return ModelOutput(loss=self.fdm.loss(scaled, latents, scaled_next))
        return ModelOutput(loss=self.fdm.loss_of_part(scaled, latents, scaled_next, mean_over_parts))

    def count_parts(self, mean_over_parts: MeanOverParts, frames: Tensor, next_frames: Tensor, **others: Any) -> None:
        """Makes the calls of `mean_over_parts` that `forward` makes for the same part of a batch, and nothing else."""
        if not self.is_joint:
            self.fdm.count_parts(mean_over_parts, self._scaled(frames), self._scaled(next_frames))

    @torch.no_grad()
    def predict(
        self,
        frames: Tensor,
        next_frames: Tensor,
        idm_frames: Tensor | None = None,
        idm_next_frames: Tensor | None = None,
    ) -> Tensor:
        """Next frames, floats in [0, 1], as the forward model predicts them from the pairs' own latent actions."""
        latents = self._latents(frames, next_frames, idm_frames, idm_next_frames)
        decoder: Any = self.idm if self.is_joint else self.fdm
        return decoder.predict(self._scaled(frames), latents)

    def _latents(
        self, frames: Tensor, next_frames: Tensor, idm_frames: Tensor | None, idm_next_frames: Tensor | None
    ) -> Tensor:
        if idm_frames is None or idm_next_frames is None:
            self._check_size(frames)
            idm_frames, idm_next_frames = frames, next_frames
        with torch.autocast(frames.device.type, enabled=False) if self.idm_is_frozen else nullcontext():
            return self.idm.encode(self._scaled(idm_frames), self._scaled(idm_next_frames))

    def _check_size(self, frames: Tensor) -> None:
        size = self.idm.config.image_size
        if not self.is_joint and frames.shape[-1] != size != self.fdm.config.image_size:
            raise ValueError(
                f"the inverse dynamics model takes frames of {size} pixels, the forward one of "
                f"{self.fdm.config.image_size}, but pairs have no idm_frames; give FramePairDataset idm_size={size}"
            )

    def _scaled(self, frames: Tensor) -> Tensor:
        return as_float_frames(frames, self.idm.dtype)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0


class EndOfStep(Callback):
    """Lets the inverse dynamics model do what its kind does after each step, and logs the figures that it gives.

    Args:
        idm: The model that is trained.
        batch_size: Samples of a step.
    """

    def __init__(self, idm: InverseDynamicsModel, batch_size: int):
        self.idm = idm
        self.batch_size = batch_size

    def on_step_end(self, state: TrainingState) -> dict[str, float] | None:
        # What a process has counted is of its own share.
        return self.idm.end_training_step(state.step, self.batch_size // process_state().num_processes)


def train_lam(
    idm: InverseDynamicsModel,
    fdm: ForwardDynamicsModel,
    pairs: Dataset[Any],
    config: TrainingConfig,
    *,
    output_dir: str | Path | RunFolder,
    held_out: Dataset[Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TrainingResult:
    """Trains a latent action model of any kind in place and saves it.

    Two models are saved as `output_dir/idm` and `output_dir/fdm`, one that is both in `output_dir` itself. Those with
    `config.ema_decay` are saved with their averaged weights. What a kind needs besides gradients is its inverse model's
    `fit`, before training, and `end_training_step`, after each step: principal components of features, say, or unused
    codes that are replaced.

    Args:
        idm: Inverse dynamics model.
        fdm: Forward dynamics model; the same object as `idm` where one model is both.
        pairs: Samples with uint8 `frames` and `next_frames`, and `idm_frames` and `idm_next_frames` where the two
            models differ in size, e.g. of [`frame_pairs`].
        config: Training options.
        output_dir: Folder for checkpoints, history, pictures of validations and the trained models.
        held_out: Pairs to validate on every `config.validate_every` steps: the loss, and what [`NextFrameValidation`]
            measures.
        resume: Go on with the run that is in `output_dir`.
        overwrite: Replace it.
        callbacks: Further callbacks of the loop.

    Raises:
        ValueError: If the models don't fit each other or the pairs, or `config.validate_every` is set without
            `held_out`.
    """
    model = LatentActionModel(idm, fdm)
    samples = FramesOnly(pairs)
    kept_out = None if held_out is None else FramesOnly(held_out)
    start = weights_fingerprint(model)
    with open_run_folder(output_dir, resume=resume, overwrite=overwrite, writes=WRITES) as folder:
        if idm.needs_fit and folder.latest_checkpoint() is None:
            _fit(idm, samples)
        result = train(
            model,
            samples,
            config,
            output_dir=folder,
            callbacks=[EndOfStep(idm, config.global_batch_size), *callbacks],
            held_out=kept_out,
            validate=None if kept_out is None or not config.validate_every else NextFrameValidation(kept_out),
            # A resumed run's model is fitted by its checkpoint.
            start=start,
            description="latent action model",
        )
        result.note_in(idm.config)
        if model.is_joint:
            save_model(idm, folder.path)
        else:
            # Two of another training may have the same name and widths.
            fdm.config.idm_fingerprint = weights_fingerprint(idm)
            result.note_in(fdm.config)
            save_model(idm, folder.path / "idm")
            save_model(fdm, folder.path / "fdm")
    return result


def _fit(idm: InverseDynamicsModel, pairs: Dataset[Any], batch_size: int = 32) -> None:
    """Fits a model to evenly spread pairs, on the device of this process."""
    device = process_state().device
    rows = evenly_spread(len(pairs), _MAX_FITTED_PAIRS)  # type: ignore[arg-type]
    loader = DataLoader(Subset(pairs, rows), batch_size=batch_size)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in loader:
            frames = batch.get("idm_frames", batch["frames"])
            next_frames = batch.get("idm_next_frames", batch["next_frames"])
            yield frames.to(device), next_frames.to(device)

    idm.to(device)
    idm.fit(batches())
