"""HiLAM: next-latent prediction with dynamic chunking, and the skills that the chunks are (paper, section 3.2).

Shapes: B sequences, T latent actions of the longest one, P packed rows (all valid time steps), D width of a latent
action (numbers or codes), K values of a code, S chunking stages, k stride, C, H, W a frame.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import ModelOutput

from ..hnet.cache import LevelCache
from ..hnet.dynamic_chunking import ratio_loss
from ..hnet.modeling_hnet import HNetModel, HNetStageOutput, StageRecord, StageTokens, padded_stage
from ..hnet.packing import SequenceLayout
from ..latent_actions.auto import AutoForwardDynamicsModel, AutoInverseDynamicsModel
from ..latent_actions.dynamics import ForwardDynamicsModel, InverseDynamicsModel
from ..loading import StrictLoadingMixin
from ..numerics import MeanOverParts
from ..saving import SavingMixin
from .configuration_hilam import HiLAMConfig
from .extraction import extract
from .inputs import SkillInput, is_one_sequence, latents_of
from .latents import LatentSpace
from .losses import (
    Counts,
    Reconstruction,
    boundary_rate,
    check_reconstruction,
    count_reconstruction,
    mean_counts,
    neighbours,
    one_step_share,
    reconstruction_of_part,
    rows_of_steps,
)
from .skills import SkillExtraction
from .streaming import SkillStream

ForwardDynamics = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(frames (N, C, H, W), latents (N, D), next frames) -> scalar loss."""


@dataclass
class HiLAMOutput(ModelOutput):
    """Output of `HiLAMModel`. Losses are scalars; means are over valid time steps only.

    Of a part of a batch (`mean_over_parts`), losses, rates and shares are such that their means over the parts are
    those of the whole batch.
    """

    loss: Tensor | None = None
    """Eq. 4: latent_loss + lambda_rec * reconstruction_loss + lambda_ratio * ratio losses."""
    latent_loss: Tensor | None = None
    """Between the prediction at t and the latent action at t + 1: element-wise L1, both standardised; or, for discrete
    latent actions, the cross-entropy of a code."""
    reconstruction_loss: Tensor | None = None
    """The forward dynamics model's loss with predicted latent actions; None without `reconstruction_steps`."""
    ratio_loss: Tensor | None = None
    """Sum of the stages' ratio losses."""
    ratio_losses: Tensor | None = None
    """(S,) ratio loss of each chunking stage, outermost first."""
    boundary_rates: Tensor | None = None
    """(S,) boundaries per token of each chunking stage, to be compared with 1 / N."""
    one_step_shares: Tensor | None = None
    """(S,) share of each chunking stage's chunks that are one of its tokens long. A stage may meet its boundary rate
    with nothing but such chunks and very long ones."""
    dropped_boundaries: Tensor | None = None
    """(S,) boundaries beyond the backbone's `chunk_capacity`, which were merged into the chunk before them; a part's
    own number. None where the number of chunks is not limited."""
    predictions: Tensor | None = None
    """(B, T, D) in the units of the input: row t predicts latent action t + 1. Zeros at padding. Discrete: logits
    (B, T, D, K)."""
    stages: tuple[HNetStageOutput, ...] | None = None
    """What each chunking stage decided, as padded batches."""


class HiLAMPreTrainedModel(SavingMixin, StrictLoadingMixin, PreTrainedModel):
    """Loading, saving and initialisation of HiLAM."""

    config: HiLAMConfig
    base_model_prefix = "hilam"
    main_input_name = "latent_actions"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ("HNetBlock",)
    _keep_in_fp32_modules_strict = ("latent_mean", "latent_std", "codebook")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, HiLAMModel):
            for name in ("latent_mean", "latent_std", "codebook"):
                if getattr(module, name, None) is not None:
                    init.constant_(getattr(module, name), torch.nan)


class HiLAMModel(LatentSpace, HiLAMPreTrainedModel):
    """Predicts the next latent action through a hierarchy of learned segments, and gives those segments as skills.

    Continuous latent actions are standardised with statistics kept in the checkpoint; set them once, before training,
    with `set_latent_statistics`. Discrete ones (code indices) need none.

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
        self.build_latent_space(config)
        self.hnet = HNetModel._from_config(config.backbone)
        self.idm: InverseDynamicsModel | None = None
        self.fdm: ForwardDynamicsModel | None = None
        self._add_latent_action_models()
        self.post_init()

    def _add_latent_action_models(self) -> None:
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

    def image_processor(self) -> BaseImageProcessor | None:
        """That of the inverse dynamics model; None without one, as the model then takes latent actions only."""
        return None if self.idm is None else self.idm.image_processor()

    def train(self, mode: bool = True) -> "HiLAMModel":
        """Sets the mode; the frozen latent action models always stay in evaluation mode."""
        super().train(mode)
        for frozen in (self.idm, self.fdm):
            if frozen is not None:
                frozen.eval()
        return self

    def forward(
        self,
        latent_actions: Tensor,
        attention_mask: Tensor | None = None,
        reconstruction_steps: Tensor | None = None,
        reconstruction_frames: Tensor | None = None,
        reconstruction_targets: Tensor | None = None,
        forward_dynamics: nn.Module | ForwardDynamics | None = None,
        mean_over_parts: MeanOverParts | None = None,
    ) -> HiLAMOutput:
        """Predicts every next latent action and computes the losses of eq. 4.

        Nothing is read back from the device where the backbone has a `chunk_capacity`, or under
        `torch.compile(model, fullgraph=True)`.

        Args:
            latent_actions: (B, T, D) z^0 in original units; or int64 codes in [0, K), which are not checked here.
            attention_mask: (B, T) bool or 0/1, True where valid, padding on the right. None: all valid.
            reconstruction_steps: (R, 2) integers, the time steps of the reconstruction loss: a sequence b and a time t
                with t + 1 valid, too; see `hilam_hf.data.samples.reconstruction`. None: no reconstruction loss.
            reconstruction_frames: (R, C, H, W) floats in [0, 1], or uint8: frame I_(t+1) of each step.
            reconstruction_targets: Frame I_(t+1+k), alike; k is the sequence's own stride.
            forward_dynamics: A frozen model with `loss(frames, latents, next_frames)`, or such a function. None: the
                model's `fdm`. Of a part of a batch its loss is taken for a mean over time steps, unless it has
                `loss_of_part` and `count_parts` of its own.
            mean_over_parts: For a part of a batch, see `hilam_hf.models.numerics.MeanOverParts` and `count_parts`.

        Raises:
            ValueError: If the statistics are not set, shapes or dtypes do not fit, or steps come without frames or
                without forward dynamics.
        """
        layout = self._layout_of(latent_actions, attention_mask)
        self.require_latent_space()
        length, rows = latent_actions.shape[1], layout.pack(latent_actions)
        hidden, records = self.hnet.run_level(self.embed(rows), layout)
        predictions = self.head(hidden)

        # Eq. 4
        counts = mean_counts(layout, [record.tokens for record in records], mean_over_parts)
        latent_loss = self.latent_loss(predictions, rows, neighbours(layout), counts.pairs)
        ratio_losses = self._ratio_losses(records, counts)
        loss = latent_loss
        for weight, stage_loss in zip(self.config.ratio_weights, ratio_losses, strict=True):
            loss = loss + weight * stage_loss
        reconstruction = None
        if reconstruction_steps is not None or forward_dynamics is not None:
            drawn = check_reconstruction(reconstruction_steps, reconstruction_frames, reconstruction_targets)
            reconstruction = self._reconstruction_loss(predictions, layout, drawn, forward_dynamics, mean_over_parts)
            loss = loss + self.config.lambda_rec * reconstruction

        return HiLAMOutput(
            loss=loss,
            latent_loss=latent_loss,
            reconstruction_loss=reconstruction,
            ratio_loss=self._stack_stages(ratio_losses).sum(),
            ratio_losses=self._stack_stages(ratio_losses),
            boundary_rates=self._of_boundaries(boundary_rate, records, counts),
            one_step_shares=self._of_boundaries(one_step_share, records, counts),
            dropped_boundaries=self._dropped_boundaries(records),
            predictions=layout.pad(self.in_original_units(predictions), length=length),
            stages=tuple(padded_stage(record, None if index else length) for index, record in enumerate(records)),
        )

    @torch.no_grad()
    def count_parts(
        self,
        mean_over_parts: MeanOverParts,
        latent_actions: Tensor,
        attention_mask: Tensor | None = None,
        reconstruction_steps: Tensor | None = None,
        reconstruction_frames: Tensor | None = None,
        reconstruction_targets: Tensor | None = None,
        forward_dynamics: nn.Module | ForwardDynamics | None = None,
    ) -> None:
        """Makes the calls of `mean_over_parts` that `forward` makes for the same part of a batch, and nothing else.

        Runs the encoders and the routing alone. Nothing in them is random, so their boundaries are those of `forward`,
        with the same weights and under the same autocast. Nothing is read back from the device where the backbone has
        a `chunk_capacity`.

        Args:
            mean_over_parts: Gets the names and counts; see `hilam_hf.models.numerics.MeanOverParts`. What it returns
                is not used.
            latent_actions: As for `forward`, as are all that follow.
            attention_mask: (B, T).
            reconstruction_steps: (R, 2).
            reconstruction_frames: (R, C, H, W), needed as losses may relate errors to how much frames change.
            reconstruction_targets: (R, C, H, W).
            forward_dynamics: A frozen model or a function.

        Raises:
            ValueError: As `forward` does.
        """
        layout = self._layout_of(latent_actions, attention_mask)
        self.require_latent_space()
        rows = layout.pack(latent_actions)
        mean_counts(layout, self.hnet.segment_level(self.embed(rows), layout, limited=True), mean_over_parts)
        if reconstruction_steps is not None or forward_dynamics is not None:
            drawn = check_reconstruction(reconstruction_steps, reconstruction_frames, reconstruction_targets)
            frames, targets = drawn.float_frames(latent_actions.device)
            count_reconstruction(self._forward_dynamics(forward_dynamics), frames, targets, mean_over_parts)

    @torch.no_grad()
    def extract_skills(
        self,
        inputs: "SkillInput | Sequence[SkillInput]",
        attention_mask: Tensor | None = None,
        fps: float | None = None,
        batch_size: int = 16,
    ) -> Any:
        """Segments videos or sequences of latent actions at every stage (eq. 5), in memory that stays flat.

        Videos are decoded, resized to the IDM's size and encoded piece by piece, and the backbone continues from a
        cache; the result is the same as in one go. A stage without an attention window keeps all its tokens.

        Args:
            inputs: One of the following, or a list of them: the path of a video; a torchcodec `VideoDecoder`; frames
                (T, C, H, W) or (T, H, W, C), floats in [0, 1] or uint8, as a tensor or numpy array; latent actions
                (T, D), or codes (T, D) for a model with discrete latent actions. Or a padded batch (B, T, D) of latent
                actions. Frames need a model with an IDM.
            attention_mask: (B, T), for a padded batch only.
            fps: Frames a second of the videos, which says that frames are evenly spaced; None: what files say.
            batch_size: Sequences that are computed at a time.

        Returns:
            One `SkillExtraction`, or a list of them for a list or a padded batch.

        Raises:
            FileNotFoundError: If there is no such video.
            ValueError: If the statistics are not set; a shape, dtype or code does not fit; values are not finite; a
                video is damaged, has a variable frame rate, or is too short for a pair of frames; or frames come to a
                model without an IDM.

        Example:
            >>> model = HiLAMModel.from_pretrained("org/hilam-ssv2")
            >>> skills = model.extract_skills("episode.mp4")
            >>> skills.stages[2].boundaries, skills.unfold()  # (T,) and (T, d)
        """
        self.require_latent_space()
        items = self._unpadded(inputs, attention_mask)
        results: list[SkillExtraction] = []
        for start in range(0, len(items), batch_size):
            results += extract(self, [latents_of(self, item, fps) for item in items[start : start + batch_size]])
        return results[0] if is_one_sequence(inputs) else results

    def stream(self, fps: float | None = None, batch_size: int = 1) -> SkillStream:
        """Segments videos or latent actions while they arrive, at constant cost and memory a step.

        Args:
            fps: Frames a second, where the model's stride is in seconds.
            batch_size: B, the number of sequences that go in step.

        Returns:
            A stream whose `push` takes one frame, or one latent action, of each sequence; see `SkillStream`.

        Raises:
            ValueError: If the statistics are not set.

        Example:
            >>> stream = model.stream(fps=30)
            >>> for frame in camera:
            ...     step = stream.push(frame)
            ...     if step is not None and step.boundary:
            ...         print("a skill starts at frame", step.time)
        """
        self.require_latent_space()
        return SkillStream(self, fps=fps, batch_size=batch_size)

    def require_idm(self) -> InverseDynamicsModel:
        """The inverse dynamics model.

        Raises:
            ValueError: If this checkpoint has none.
        """
        if self.idm is None:
            raise ValueError(
                "inputs: got a video or frames (T, C, H, W), but this checkpoint has no inverse dynamics model. Pass "
                "latent actions (T, D), or build the model with idm_config."
            )
        return self.idm

    @property
    def frame_format(self) -> tuple[int | None, int]:
        """Side in pixels and number of channels of the frames that the inverse dynamics model takes."""
        config = self.require_idm().config
        return getattr(config, "image_size", None), getattr(config, "num_channels", 3)

    def new_cache(self, batch_size: int) -> LevelCache:
        """An empty cache for sequences that `segment_rows` takes piece by piece; see `HNetModel.new_cache`."""
        return self.hnet.new_cache(batch_size)

    def segment_rows(
        self, rows: Tensor, layout: SequenceLayout, cache: LevelCache | None = None
    ) -> tuple[StageTokens, ...]:
        """The stages' boundaries and features for packed latent actions (P, D); see `HNetModel.segment_level`."""
        return self.hnet.segment_level(self.embed(rows), layout, cache)

    def _ratio_losses(self, records: tuple[StageRecord, ...], counts: Counts) -> list[Tensor]:
        return [
            ratio_loss(routing.boundary_mask, routing.boundary_prob, target, layout.valid_rows, of_stage)
            for (layout, routing, *_), target, of_stage in zip(
                records, self.config.target_ratios, counts.stages, strict=True
            )
        ]

    def _of_boundaries(self, figure: Callable[..., Tensor], records: tuple[StageRecord, ...], counts: Counts) -> Tensor:
        """(S,) a figure of each stage's boundaries."""
        return self._stack_stages(
            [
                figure(record.routing.boundary_mask, record.layout, of_stage)
                for record, of_stage in zip(records, counts.stages, strict=True)
            ]
        )

    def _dropped_boundaries(self, records: tuple[StageRecord, ...]) -> Tensor | None:
        dropped = [record.chunks.num_dropped for record in records if record.chunks.num_dropped is not None]
        return self._stack_stages(dropped) if dropped else None

    def _stack_stages(self, values: list[Tensor]) -> Tensor:
        """(S,) one scalar a stage; empty for a backbone without chunking."""
        return torch.stack(values) if values else torch.zeros(0, device=self.device)

    def _reconstruction_loss(
        self,
        predictions: Tensor,
        layout: SequenceLayout,
        drawn: Reconstruction,
        forward_dynamics: nn.Module | ForwardDynamics | None,
        mean_over_parts: MeanOverParts | None,
    ) -> Tensor:
        """L_rec at some time steps: the FDM with ẑ_(t+1) and frame I_(t+1) against I_(t+1+k)."""
        dynamics = self._forward_dynamics(forward_dynamics)
        frames, targets = drawn.float_frames(predictions.device)
        if not len(drawn.steps):
            if mean_over_parts is not None:
                count_reconstruction(dynamics, frames, targets, mean_over_parts)
            return predictions.sum() * 0
        latents = self.dynamics_latents(predictions[rows_of_steps(layout, drawn.steps)])
        if mean_over_parts is None:
            return getattr(dynamics, "loss", dynamics)(frames, latents, targets)
        return reconstruction_of_part(dynamics, frames, latents, targets, mean_over_parts)

    def _forward_dynamics(self, forward_dynamics: nn.Module | ForwardDynamics | None) -> Any:
        """The model or function of the reconstruction loss."""
        chosen = self.fdm if forward_dynamics is None else forward_dynamics
        if chosen is None:
            raise ValueError(
                "forward_dynamics: got reconstruction_steps but no forward dynamics model, expected one. Pass "
                "forward_dynamics=..., or build the model with fdm_config."
            )
        if isinstance(chosen, nn.Module) and any(parameter.requires_grad for parameter in chosen.parameters()):
            raise ValueError(
                "forward_dynamics: got a model with trainable parameters, expected a frozen one. Call "
                "requires_grad_(False) on it."
            )
        return chosen

    def _unpadded(self, inputs: Any, attention_mask: Tensor | None) -> Sequence[SkillInput]:
        """The sequences of `extract_skills`' inputs, one by one."""
        if getattr(inputs, "ndim", None) == 3:
            batch = torch.as_tensor(inputs)
            layout = self._layout_of(batch, attention_mask, exact=True)
            return layout.pack(batch).split(list(layout.lengths_on_host))
        if attention_mask is not None:
            raise ValueError("attention_mask: got one without a padded batch (B, T, D), expected none. Drop it.")
        return [inputs] if is_one_sequence(inputs) else inputs

    def _layout_of(
        self, latent_actions: Tensor, attention_mask: Tensor | None, *, exact: bool = False
    ) -> SequenceLayout:
        shape = tuple(latent_actions.shape)
        if len(shape) != 3 or shape[2] != self.config.latent_dim:
            raise ValueError(
                f"latent_actions: got shape {shape}, expected (B, T, {self.config.latent_dim}). Check the batch and "
                "latent_dim."
            )
        self.check_latent_dtype(latent_actions)
        if attention_mask is None:
            return SequenceLayout.dense(*shape[:2], device=latent_actions.device).checked("latent_actions")
        if tuple(attention_mask.shape) != shape[:2]:
            raise ValueError(
                f"attention_mask: got shape {tuple(attention_mask.shape)}, expected {shape[:2]} as latent_actions "
                "has. Give one entry a time step."
            )
        return SequenceLayout.from_mask(attention_mask, static=self.config.backbone.is_static and not exact)
