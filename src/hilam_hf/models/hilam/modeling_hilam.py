"""HiLAM: next-latent prediction with dynamic chunking, and the skills that the chunks are (paper, section 3.2).

Shapes: B sequences, T latent actions of the longest one, P packed rows (all valid time steps), D latent width, k
stride, C, H, W a frame.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from ..hnet.dynamic_chunking import ratio_loss, upcast
from ..hnet.modeling_hnet import HNetModel, HNetStageOutput, StageRecord, padded_stage
from ..hnet.packing import SequenceLayout
from ..loading import StrictLoadingMixin
from .configuration_hilam import HiLAMConfig
from .skills import SkillExtraction

ForwardDynamics = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(frames (N, C, H, W), latents (N, D), next frames) -> scalar loss."""


@dataclass
class HiLAMOutput(ModelOutput):
    """Output of `HiLAMModel`. Losses are scalars; means are over valid time steps only."""

    loss: Tensor | None = None
    """Eq. 4: latent_loss + lambda_rec * reconstruction_loss + lambda_ratio * ratio_loss."""
    latent_loss: Tensor | None = None
    """Element-wise L1 between the prediction at t and the latent action at t + 1, both standardised."""
    reconstruction_loss: Tensor | None = None
    """The forward dynamics model's loss with predicted latent actions; None without frames."""
    ratio_loss: Tensor | None = None
    """Sum of the stages' ratio losses."""
    ratio_losses: Tensor | None = None
    """(S,) ratio loss of each chunking stage, outermost first."""
    boundary_rates: Tensor | None = None
    """(S,) boundaries per token of each chunking stage, to be compared with 1 / N."""
    predictions: Tensor | None = None
    """(B, T, D) in the units of the input: row t predicts latent action t + 1. Zeros at padding."""
    stages: tuple[HNetStageOutput, ...] | None = None
    """What each chunking stage decided, as padded batches."""


class HiLAMPreTrainedModel(StrictLoadingMixin, PreTrainedModel):
    """Loading, saving and initialisation of HiLAM."""

    config: HiLAMConfig
    base_model_prefix = "hilam"
    main_input_name = "latent_actions"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ("HNetBlock",)
    _keep_in_fp32_modules_strict = ("latent_mean", "latent_std")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, HiLAMModel):
            init.constant_(module.latent_mean, torch.nan)
            init.constant_(module.latent_std, torch.nan)


class HiLAMModel(HiLAMPreTrainedModel):
    """Predicts the next latent action through a hierarchy of learned segments, and gives those segments as skills.

    Latent actions are standardised with statistics kept in the checkpoint; set them once, before training, with
    `set_latent_statistics`.

    Args:
        config: The architecture and the loss. With `idm_config` the model owns a frozen inverse dynamics model (`idm`),
            with `fdm_config` a frozen forward dynamics model (`fdm`).

    Example:
        >>> model = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=8))
        >>> latents = torch.randn(2, 20, 8)
        >>> model.set_latent_statistics(latents.mean((0, 1)), latents.std((0, 1)))
        >>> model(latents).predictions.shape
        torch.Size([2, 20, 8])
    """

    def __init__(self, config: HiLAMConfig) -> None:
        super().__init__(config)
        width = config.backbone.d_model[0]
        self.register_buffer("latent_mean", torch.full((config.latent_dim,), torch.nan))
        self.register_buffer("latent_std", torch.full((config.latent_dim,), torch.nan))
        self.input_proj = nn.Linear(config.latent_dim, width)
        self.hnet = HNetModel._from_config(config.backbone)
        self.output_proj = nn.Linear(width, config.latent_dim)
        self.idm: PreTrainedModel | None = None
        self.fdm: PreTrainedModel | None = None
        self._add_latent_action_models()
        self._statistics_known = False
        self.post_init()

    def _add_latent_action_models(self) -> None:
        if self.config.idm_config is None and self.config.fdm_config is None:
            return
        # Imported here because the Auto classes import the models' packages, this one among them.
        from ..auto import AutoForwardDynamicsModel, AutoInverseDynamicsModel

        if self.config.idm_config is not None:
            self.idm = AutoInverseDynamicsModel.from_config(self.config.idm_config)
        if self.config.fdm_config is not None:
            self.fdm = AutoForwardDynamicsModel.from_config(self.config.fdm_config)
        self.freeze_latent_action_models()

    def freeze_latent_action_models(self) -> None:
        """Stops gradients at the parameters of `idm` and `fdm`, which are trained on their own."""
        for frozen in (self.idm, self.fdm):
            if frozen is not None:
                frozen.requires_grad_(False).eval()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Loads a checkpoint; see `StrictLoadingMixin.from_pretrained` for the arguments."""
        loaded = super().from_pretrained(*args, **kwargs)
        # Loading replaces the parameters by trainable ones.
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze_latent_action_models()
        return loaded

    def train(self, mode: bool = True) -> "HiLAMModel":
        """Sets the mode; the frozen latent action models always stay in evaluation mode."""
        super().train(mode)
        for frozen in (self.idm, self.fdm):
            if frozen is not None:
                frozen.eval()
        return self

    def set_latent_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Sets the statistics that latent actions are standardised with; they are saved with the weights.

        Args:
            mean: (D,) mean of each dimension over the training corpus.
            std: (D,) standard deviation of each dimension, above 0.

        Raises:
            ValueError: If shapes differ from (D,), a value is not finite, or a standard deviation is not positive.
        """
        for name, value in (("mean", mean), ("std", std)):
            value = torch.as_tensor(value)
            if tuple(value.shape) != (self.config.latent_dim,) or not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"{name}: got shape {tuple(value.shape)}, expected ({self.config.latent_dim},) finite values. "
                    "Compute it over all latent actions of the training corpus."
                )
        if not bool((torch.as_tensor(std) > 0).all()):
            raise ValueError(
                "std: got a value of 0 or less, expected positive ones. Use 1 for dimensions that never change."
            )
        with torch.no_grad():
            self.latent_mean.copy_(torch.as_tensor(mean))
            self.latent_std.copy_(torch.as_tensor(std))

    def forward(
        self,
        latent_actions: Tensor,
        attention_mask: Tensor | None = None,
        frames: Tensor | None = None,
        forward_dynamics: nn.Module | ForwardDynamics | None = None,
    ) -> HiLAMOutput:
        """Predicts every next latent action and computes the losses of eq. 4.

        Args:
            latent_actions: (B, T, D) z^0 in original units.
            attention_mask: (B, T) bool or 0/1, True where valid, padding on the right. None: all valid.
            frames: (B, T + k, C, H, W) floats in [0, 1], or uint8, for the reconstruction loss; row t of the latent
                actions lies between frames t and t + k. None: no reconstruction loss.
            forward_dynamics: A frozen model with `loss(frames, latents, next_frames)`, or such a function. None: the
                model's `fdm`.

        Raises:
            ValueError: If the statistics are not set, shapes do not fit, or frames come without forward dynamics.
        """
        layout = self._layout_of(latent_actions, attention_mask)
        self._require_statistics()
        length = latent_actions.shape[1]
        standardised = self.standardise(layout.pack(latent_actions))
        predictions, records = self._predict(standardised, layout)

        # Eq. 4. Rows t and t + 1 form a pair unless a sequence starts at t + 1.
        is_pair = ~layout.is_start[1:]
        latent_loss = masked_l1(predictions[:-1], standardised[1:], is_pair)
        ratio_losses = self._stack_stages(
            [
                ratio_loss(record.routing.boundary_mask, record.routing.boundary_prob, target)
                for record, target in zip(records, self.config.target_ratios, strict=True)
            ]
        )
        loss = latent_loss + self.config.lambda_ratio * ratio_losses.sum()
        original_units = self.unstandardise(predictions)
        reconstruction = None
        if frames is not None or forward_dynamics is not None:
            reconstruction = self._reconstruction_loss(original_units, layout, length, frames, forward_dynamics)
            loss = loss + self.config.lambda_rec * reconstruction

        return HiLAMOutput(
            loss=loss,
            latent_loss=latent_loss,
            reconstruction_loss=reconstruction,
            ratio_loss=ratio_losses.sum(),
            ratio_losses=ratio_losses,
            boundary_rates=self._stack_stages([record.routing.boundary_mask.float().mean() for record in records]),
            predictions=layout.pad(original_units, length=length),
            stages=tuple(padded_stage(record, None if index else length) for index, record in enumerate(records)),
        )

    def standardise(self, latents: Tensor) -> Tensor:
        """(..., D) latent actions from original units to zero mean and unit variance, in float32 or wider."""
        return (upcast(latents) - self.latent_mean) / self.latent_std

    def unstandardise(self, latents: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        return upcast(latents) * self.latent_std + self.latent_mean

    @overload
    def extract_skills(
        self, inputs: list[Tensor], *, fps: float | None = None, batch_size: int = 16
    ) -> list[SkillExtraction]: ...

    @overload
    def extract_skills(
        self, inputs: Tensor, attention_mask: Tensor | None = None, fps: float | None = None, batch_size: int = 16
    ) -> SkillExtraction | list[SkillExtraction]: ...

    @torch.no_grad()
    def extract_skills(
        self,
        inputs: Tensor | Sequence[Tensor],
        attention_mask: Tensor | None = None,
        fps: float | None = None,
        batch_size: int = 16,
    ) -> SkillExtraction | list[SkillExtraction]:
        """Segments sequences at every stage (eq. 5).

        Args:
            inputs: One sequence of latent actions (T, D); or of frames (T, C, H, W), floats in [0, 1] or uint8, for a
                model with an IDM; or a list of those; or a padded batch (B, T, D) of latent actions.
            attention_mask: (B, T), for a padded batch only.
            fps: Frames a second of the videos; needed for frames where the model's stride is in seconds.
            batch_size: Sequences that are computed at a time.

        Returns:
            One `SkillExtraction`, or a list of them for a list or a padded batch.

        Raises:
            ValueError: If the statistics are not set, a shape does not fit, values are not finite, or frames come to a
                model without an IDM.
        """
        self._require_statistics()
        if isinstance(inputs, Tensor) and inputs.ndim == 3:
            layout = self._layout_of(inputs, attention_mask)
            items: Sequence[Tensor] = layout.pack(inputs).split(layout.lengths.tolist())
        elif attention_mask is not None:
            raise ValueError("attention_mask: got one without a padded batch (B, T, D), expected none. Drop it.")
        else:
            items = [inputs] if isinstance(inputs, Tensor) else inputs
        sequences = [self._latents_of(item, fps).to(self.device) for item in items]
        results: list[SkillExtraction] = []
        for start in range(0, len(sequences), batch_size):
            results += self._extract_batch(sequences[start : start + batch_size])
        return results[0] if isinstance(inputs, Tensor) and inputs.ndim != 3 else results

    def _predict(self, standardised: Tensor, layout: SequenceLayout) -> tuple[Tensor, tuple[StageRecord, ...]]:
        """Standardised predictions (P, D) and the stages' records, from standardised packed rows."""
        hidden = self.input_proj(standardised.to(self.input_proj.weight.dtype))
        hidden, records = self.hnet.run_level(hidden, layout)
        return upcast(self.output_proj(hidden.to(self.output_proj.weight.dtype))), records

    def _stack_stages(self, values: list[Tensor]) -> Tensor:
        """(S,) one scalar a stage; empty for a backbone without chunking."""
        return torch.stack(values) if values else self.latent_mean.new_zeros(0)

    def _reconstruction_loss(
        self,
        predictions: Tensor,
        layout: SequenceLayout,
        length: int,
        frames: Tensor | None,
        forward_dynamics: nn.Module | ForwardDynamics | None,
    ) -> Tensor:
        """L_rec at random time steps: the FDM with ẑ_(t+1) and frame I_(t+1) against I_(t+k+1)."""
        loss_function = self._forward_dynamics_loss(forward_dynamics)
        stride = self.config.stride_at(fps=None)
        expected = (layout.batch_size, length + stride)
        if frames is None or frames.ndim != 5 or tuple(frames.shape[:2]) != expected:
            got = "none" if frames is None else f"shape {tuple(frames.shape)}"
            raise ValueError(
                f"frames: got {got}, expected ({expected[0]}, {expected[1]}, C, H, W), the T + k frames of {length} "
                f"latent actions with stride k = {stride}. Pass the frames of the same clips, padded "
                "alike."
            )
        pairs = (~layout.is_start[1:]).nonzero().squeeze(1)
        if len(pairs) == 0:
            return predictions.sum() * 0
        steps = pairs[torch.randperm(len(pairs), device=pairs.device)[: self.config.num_reconstruction_steps]]
        sequence, target = layout.sequence_ids[steps], layout.positions[steps] + 1
        # Frames may stay in host memory: only the drawn ones are moved.
        sequence, target = sequence.to(frames.device), target.to(frames.device)
        current = as_float_frames(frames[sequence, target].to(predictions.device))
        future = as_float_frames(frames[sequence, target + stride].to(predictions.device))
        return loss_function(current, predictions[steps], future)

    def _forward_dynamics_loss(self, forward_dynamics: nn.Module | ForwardDynamics | None) -> ForwardDynamics:
        chosen = self.fdm if forward_dynamics is None else forward_dynamics
        if chosen is None:
            raise ValueError(
                "forward_dynamics: got frames but no forward dynamics model, expected one. Pass "
                "forward_dynamics=..., or build the model with fdm_config."
            )
        if isinstance(chosen, nn.Module) and any(parameter.requires_grad for parameter in chosen.parameters()):
            raise ValueError(
                "forward_dynamics: got a model with trainable parameters, expected a frozen one. Call "
                "requires_grad_(False) on it."
            )
        return getattr(chosen, "loss", chosen)

    def _extract_batch(self, sequences: list[Tensor]) -> list[SkillExtraction]:
        lengths = torch.tensor([len(sequence) for sequence in sequences], device=self.device)
        layout = SequenceLayout.from_lengths(lengths)
        _, records = self._predict(self.standardise(torch.cat(sequences)), layout)
        boundaries = [record.routing.boundary_mask.split(record.layout.lengths.tolist()) for record in records]
        skills = [record.chunks.hidden_states.split(record.chunks.layout.lengths.tolist()) for record in records]
        return [
            SkillExtraction.from_tokens(
                upcast(sequence).cpu(),
                [stage[row].cpu() for stage in boundaries],
                [stage[row].cpu() for stage in skills],
                self.config.skill_stage,
            )
            for row, sequence in enumerate(sequences)
        ]

    def _latents_of(self, sequence: Tensor, fps: float | None) -> Tensor:
        """Checked latent actions (T, D) of one sequence of latent actions or frames."""
        if sequence.ndim == 4:
            if self.idm is None:
                raise ValueError(
                    "inputs: got frames (T, C, H, W), but this checkpoint has no inverse dynamics model. Pass latent "
                    "actions (T, D), or build the model with idm_config."
                )
            return self.idm.encode_video(as_float_frames(sequence), stride=self.config.stride_at(fps))
        if sequence.ndim != 2 or sequence.shape[1] != self.config.latent_dim or len(sequence) == 0:
            raise ValueError(
                f"inputs: got a sequence of shape {tuple(sequence.shape)}, expected (T, {self.config.latent_dim}) "
                "latent actions with T >= 1, or (T, C, H, W) frames. Check the latent model that made them."
            )
        if not bool(torch.isfinite(sequence).all()):
            raise ValueError(
                "inputs: got NaN or infinite latent actions, expected finite values. Check the video and the IDM."
            )
        return sequence

    def _layout_of(self, latent_actions: Tensor, attention_mask: Tensor | None) -> SequenceLayout:
        shape = tuple(latent_actions.shape)
        if len(shape) != 3 or shape[2] != self.config.latent_dim:
            raise ValueError(
                f"latent_actions: got shape {shape}, expected (B, T, {self.config.latent_dim}). Check the batch and "
                "latent_dim."
            )
        if attention_mask is None:
            return SequenceLayout.dense(*shape[:2], device=latent_actions.device).checked("latent_actions")
        if tuple(attention_mask.shape) != shape[:2]:
            raise ValueError(
                f"attention_mask: got shape {tuple(attention_mask.shape)}, expected {shape[:2]} as latent_actions "
                "has. Give one entry a time step."
            )
        return SequenceLayout.from_mask(attention_mask)

    def _require_statistics(self) -> None:
        if self._statistics_known or torch.compiler.is_compiling():
            return
        # One transfer from the device, and only until the statistics are found set.
        if not bool(torch.isfinite(torch.stack((self.latent_mean, self.latent_std))).all()):
            raise ValueError(
                "latent statistics: this model has none, expected the mean and standard deviation of the latent "
                "actions it is trained on. Call set_latent_statistics(mean, std), or load a trained checkpoint."
            )
        self._statistics_known = True


def masked_l1(predictions: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of (P, D) rows where `mask` (P,) is True; 0 if it is nowhere."""
    error = (predictions - targets).abs().mean(-1)
    return torch.where(mask, error, torch.zeros_like(error)).sum() / mask.sum().clamp(min=1)


def as_float_frames(frames: Tensor) -> Tensor:
    """uint8 frames as floats in [0, 1]; float frames as they are."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames
