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
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import ModelOutput

from ...models.feature_difference import FeatureDifferenceIDM
from ...models.lapa import LapaModel, is_refresh_step
from ...models.latent_actions.dynamics import ForwardDynamicsModel, InverseDynamicsModel
from ...video import as_float_frames
from ..callbacks import Callback, TrainingState
from ..checkpoints import latest_checkpoint
from ..config import TrainingConfig
from ..loop import TrainingResult, save_model, train
from ..processes import process_state
from .data import FramesOnly, evenly_spread
from .validation import NextFrameValidation

# Pairs that principal components are computed from; more change them little.
_MAX_FITTED_PAIRS = 10_000


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
    ) -> ModelOutput:
        """The loss, and whatever other scalars a model that is both gives.

        Args:
            frames: (B, C, H, W) uint8, the frames I_t at the forward model's size.
            next_frames: (B, C, H, W) uint8, the frames I_{t+k}.
            idm_frames: The frames I_t at the inverse model's size, where that differs.
            idm_next_frames: The frames I_{t+k} at that size.

        Raises:
            ValueError: If frames of the inverse model's size are missing.
        """
        if self.is_joint:
            output = self.idm(self._scaled(frames), self._scaled(next_frames))
            return ModelOutput(**{name: value for name, value in output.items() if _is_scalar(value)})
        latents = self._latents(frames, next_frames, idm_frames, idm_next_frames)
        return ModelOutput(loss=self.fdm.loss(self._scaled(frames), latents, self._scaled(next_frames)))

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


class CodebookRefresh(Callback):
    """Replaces unused codes of a `LapaModel` at the published steps; logs how many as `refreshed_codes`.

    Args:
        model: The model that is trained.
        batch_size: Samples a step and process.
    """

    def __init__(self, model: LapaModel, batch_size: int):
        self.model = model
        self.batch_size = batch_size

    def on_step_end(self, state: TrainingState) -> dict[str, float] | None:
        if not is_refresh_step(state.step):
            return None
        return {"refreshed_codes": float(self.model.refresh_codebook(self.batch_size))}


def train_lam(
    idm: InverseDynamicsModel,
    fdm: ForwardDynamicsModel,
    pairs: Dataset[Any],
    config: TrainingConfig,
    *,
    output_dir: str | Path,
    held_out: Dataset[Any] | None = None,
    processor: BaseImageProcessor | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TrainingResult:
    """Trains a latent action model of any kind in place and saves it.

    Two models are saved as `output_dir/idm` and `output_dir/fdm`, one that is both in `output_dir` itself. Those with
    `config.ema_decay` are saved with their averaged weights. A [`FeatureDifferenceIDM`] that has no principal
    components yet gets those of `pairs`; only its forward model is trained. A [`LapaModel`] has its unused codes
    replaced at the published steps.

    Args:
        idm: Inverse dynamics model.
        fdm: Forward dynamics model; the same object as `idm` where one model is both.
        pairs: Samples with uint8 `frames` and `next_frames`, and `idm_frames` and `idm_next_frames` where the two
            models differ in size, e.g. of [`frame_pairs`].
        config: Training options.
        output_dir: Folder for checkpoints, history, pictures of validations and the trained models.
        held_out: Pairs to validate on every `config.validate_every` steps; see [`NextFrameValidation`].
        processor: Image processor to save beside the inverse dynamics model.
        resume: Continue from the latest checkpoint in `output_dir`.
        callbacks: Further callbacks of the loop.

    Raises:
        ValueError: If the models don't fit each other or the pairs, or `config.validate_every` is set without
            `held_out`.
    """
    folder = Path(output_dir)
    model = LatentActionModel(idm, fdm)
    samples = FramesOnly(pairs)
    validation = None
    if held_out is not None and config.validate_every:
        validation = NextFrameValidation(FramesOnly(held_out))
    if isinstance(idm, FeatureDifferenceIDM) and not (resume and latest_checkpoint(folder)):
        fit_components(idm, samples)
    if isinstance(idm, LapaModel):
        callbacks = [CodebookRefresh(idm, config.batch_size), *callbacks]
    result = train(
        model,
        samples,
        config,
        output_dir=folder,
        resume=resume,
        callbacks=callbacks,
        validate=validation,
        description="latent action model",
    )
    if model.is_joint:
        save_model(idm, folder, processor)
    else:
        save_model(idm, folder / "idm", processor)
        save_model(fdm, folder / "fdm")
    return result


def fit_components(
    idm: FeatureDifferenceIDM, pairs: Dataset[Any], *, max_pairs: int = _MAX_FITTED_PAIRS, batch_size: int = 32
) -> None:
    """Gives a [`FeatureDifferenceIDM`] the principal components of evenly spread pairs, unless it has some.

    Args:
        idm: The model; it is moved to the device of this process.
        pairs: As those of [`train_lam`].
        max_pairs: The most pairs.
        batch_size: Pairs at a time.

    Raises:
        ValueError: If there are fewer pairs than components, or nothing moves in them.
    """
    if bool(torch.isfinite(idm.explained_variance).all()):
        return
    rows = evenly_spread(len(pairs), max_pairs)  # type: ignore[arg-type]
    loader = DataLoader(Subset(pairs, rows), batch_size=batch_size)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in loader:
            yield (
                batch.get("idm_frames", batch["frames"]),
                batch.get("idm_next_frames", batch["next_frames"]),
            )

    idm.to(process_state().device)
    idm.fit(batches())
