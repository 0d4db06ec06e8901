"""The hierarchical policy (paper section 3.3): pi^h: (o_t, l) -> z^h, and pi^l: (o_t, z^h) -> z^l, later actions.

Shapes: B batch, T steps, S skill length, D latent action length, Q chunk, A action length, P proprioception length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from ..acting.normalization import Normalizer, Statistics, optional_normalizer, require_normalizer
from ..acting.observation import PolicyInputs, add_step
from ..acting.policy import ActingMixin
from ..baku.configuration_baku import BakuConfig
from ..baku.modeling_baku import BakuModel, masked_targets
from ..loading import StrictLoadingMixin
from ..numerics import MeanOverParts, masked_mean, mean_count, seeded_weights
from .configuration_hierarchical import HierarchicalPolicyConfig
from .finetuning import finetuning_config, lora_targets, rebuild_trunk

_LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}


@dataclass
class HierarchicalPolicyOutput(ModelOutput):
    """What a [`HierarchicalPolicy`] returns; T is left out of every shape when the frames came without it.

    Args:
        loss: () sum of the losses below, with the config's weights.
        skill_loss: () of pi^h, when `skills` were given.
        latent_action_loss: () of pi^l in pretraining, when `latent_actions` were given.
        action_loss: () of pi^l after `prepare_for_finetuning`, when `actions` were given.
        skills: (B, T, S) predicted skills, in the units of the corpus.
        actions: (B, T, Q, A) predicted actions, in the environment's units.
        latent_actions: (B, T, D), or (B, T, Q, D) with a chunk, in the units of the corpus.
    """

    loss: Tensor | None = None
    skill_loss: Tensor | None = None
    latent_action_loss: Tensor | None = None
    action_loss: Tensor | None = None
    skills: Tensor | None = None
    actions: Tensor | None = None
    latent_actions: Tensor | None = None


class HierarchicalPolicy(ActingMixin, StrictLoadingMixin, PreTrainedModel):
    """pi^h and pi^l with the statistics of their data, for pretraining, fine-tuning and acting.

    Example:
        >>> policy = HierarchicalPolicy(config)
        >>> policy.set_statistics(skills=(mean, std), latent_actions=(mean, std))
        >>> policy(pixels, language, skills=skills, latent_actions=latents).loss.backward()      # pretraining
        >>> policy.prepare_for_finetuning(action_dim=4, chunk_size=10, agent_pos_dim=4)
        >>> policy.set_statistics(actions=(low, high), agent_pos=(mean, std))
        >>> policy.freeze_high_level()
        >>> policy(pixels, language, agent_pos, actions=actions, action_mask=mask).loss.backward()   # fine-tuning
        >>> policy.select_action(observation)
    """

    config: HierarchicalPolicyConfig
    config_class = HierarchicalPolicyConfig
    base_model_prefix = "policy"
    main_input_name = "pixels"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: HierarchicalPolicyConfig):
        super().__init__(config)
        self.high_level = BakuModel(config.high_config)
        self.low_level = BakuModel(config.low_config)
        self.skill_normalizer = Normalizer("skills", config.skill_dim)
        self.latent_action_normalizer = Normalizer("latent_actions", config.latent_dim)
        self.action_normalizer = optional_normalizer("actions", config.action_dim)
        self.agent_pos_normalizer = optional_normalizer("agent_pos", self._proprioception_dim())
        self._init_acting()
        self.post_init()
        if config.high_level_frozen:
            self.freeze_high_level()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Loads a checkpoint; see `StrictLoadingMixin.from_pretrained` for the arguments."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # Loading replaces the parameters by trainable ones.
        if model.config.high_level_frozen:
            model.freeze_high_level()
        return loaded

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Normalizer):
            module.init_weights()

    def set_statistics(
        self,
        *,
        skills: Statistics | None = None,
        latent_actions: Statistics | None = None,
        actions: Statistics | None = None,
        agent_pos: Statistics | None = None,
    ) -> None:
        """Stores statistics of the training data, per dimension; they are saved with the weights.

        Args:
            skills, latent_actions, agent_pos: (mean, standard deviation).
            actions: (minimum, maximum), mapped to [-1, 1].

        Raises:
            ValueError: Statistics of another length, or for something that the policy does not have.
        """
        if skills is not None:
            self.skill_normalizer.set_mean_std(*skills)
        if latent_actions is not None:
            self.latent_action_normalizer.set_mean_std(*latent_actions)
        if agent_pos is not None:
            require_normalizer("agent_pos", self.agent_pos_normalizer).set_mean_std(*agent_pos)
        if actions is not None:
            self._action_normalizer().set_min_max(*actions)

    def predict_skills(
        self, pixels: Mapping[str, Tensor], language: Tensor | None = None, agent_pos: Tensor | None = None
    ) -> Tensor:
        """pi^h alone: the skills (B, S), or (B, T, S) for frames with steps, in the units of the corpus.

        With pi^h frozen they can be computed once and passed to `forward` as `predicted_skills`.
        """
        pixels, stepless = _add_steps(pixels)
        skills, _ = self._predict_skills(pixels, language, self._normalized_agent_pos(agent_pos))
        skills = self.skill_normalizer.denormalize(skills)
        return skills[:, 0] if stepless else skills

    def forward(
        self,
        pixels: Mapping[str, Tensor],
        language: Tensor | None = None,
        agent_pos: Tensor | None = None,
        skills: Tensor | None = None,
        latent_actions: Tensor | None = None,
        actions: Tensor | None = None,
        action_mask: Tensor | None = None,
        predicted_skills: Tensor | None = None,
        mean_over_parts: MeanOverParts | None = None,
    ) -> HierarchicalPolicyOutput:
        """Losses against whichever targets are given, and the predictions.

        With `skills` as the only target pi^l does not run; with `predicted_skills` pi^h does not.

        Args:
            pixels: (B, 3, H, W) or (B, T, 3, H, W), uint8 or floats in [0, 1], for each camera, at the config's image
                size.
            language: (B, E) instruction vectors.
            agent_pos: (B, P) or (B, T, P) proprioception in the environment's units.
            skills: (B, S) or (B, T, S) target skills z^h.
            latent_actions: (B, D), (B, T, D), or with Q before D for a chunk: target latent actions z^l.
            actions: (B, Q, A) or (B, T, Q, A) target actions in the environment's units.
            action_mask: (B, Q) or (B, T, Q) true where an action of the chunk is real rather than padding.
            predicted_skills: (B, S) or (B, T, S) outputs of `predict_skills`, in the place of running pi^h.
            mean_over_parts: For a part of a batch, see `hilam_hf.models.numerics.MeanOverParts`.

        Raises:
            ValueError: An input is missing or has the wrong size, a target does not belong to the policy's phase, or
                its statistics are not set.
        """
        self._check_targets(skills, latent_actions, actions, predicted_skills)
        pixels, stepless = _add_steps(pixels)
        agent_pos = self._normalized_agent_pos(agent_pos)
        camera_tokens = None
        if predicted_skills is None:
            normalized_skills, camera_tokens = self._predict_skills(pixels, language, agent_pos)
        else:
            normalized_skills = self.skill_normalizer.normalize(add_step(predicted_skills, 3))
        output = {"skills": self.skill_normalizer.denormalize(normalized_skills)}
        if skills is not None:
            target = self.skill_normalizer.normalize(add_step(skills, 3))
            count = mean_count("skills", normalized_skills, None, mean_over_parts)
            output["skill_loss"] = regression_loss(self.config.skill_loss, normalized_skills, target, count=count)
        if skills is None or latent_actions is not None or actions is not None:
            condition = normalized_skills.detach() if self.config.detach_skill else normalized_skills
            if camera_tokens is None:
                camera_tokens = self._shared_camera_tokens(pixels, language)
            chunk = self.low_level(pixels, language, agent_pos, condition, camera_tokens=camera_tokens).action_mean
            mask = add_step(action_mask, 3)
            if self.config.action_dim is None:
                output |= self._latent_action_outputs(chunk, latent_actions, mask, mean_over_parts)
            else:
                output |= self._action_outputs(chunk, actions, mask, mean_over_parts)
        if stepless:
            output = {name: value[:, 0] if value.ndim else value for name, value in output.items()}
        return HierarchicalPolicyOutput(loss=self._total_loss(output), **output)

    def count_parts(
        self,
        mean_over_parts: MeanOverParts,
        *,
        skills: Tensor | None = None,
        latent_actions: Tensor | None = None,
        actions: Tensor | None = None,
        action_mask: Tensor | None = None,
        **others: Any,
    ) -> None:
        """Makes the calls of `mean_over_parts` that `forward` makes for the same part of a batch, and nothing else.

        Args:
            mean_over_parts: Gets the names and counts; see `hilam_hf.models.numerics.MeanOverParts`.
            skills: As for `forward`, as are all that follow.
            latent_actions: (B, D), (B, T, D), or with Q before D for a chunk.
            actions: (B, Q, A) or (B, T, Q, A).
            action_mask: (B, Q) or (B, T, Q).
            **others: The other arguments of `forward`, which no count depends on.
        """
        mask = add_step(action_mask, 3)
        if skills is not None:
            mean_count("skills", skills, None, mean_over_parts)
        if latent_actions is not None:
            mean_count("latent_actions", self._latent_chunks(latent_actions), mask, mean_over_parts)
        if actions is not None:
            mean_count("actions", add_step(actions, 4), mask, mean_over_parts)

    def prepare_for_finetuning(
        self,
        *,
        action_dim: int,
        chunk_size: int,
        agent_pos_dim: int | None = None,
        cameras: Sequence[str] | None = None,
        rename_cameras: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> list[str]:
        """Turns pi^l from latent actions to real action chunks, and gives it the robot's modalities.

        The latent head makes way for a fresh action head; new cameras and proprioception start fresh; whatever was
        pretrained is kept, each token with its own position vector even where its place in the sequence changes.

        Args:
            action_dim: A.
            chunk_size: Q.
            agent_pos_dim: P, for a proprioception token; None leaves pi^l as it is.
            cameras: Cameras of pi^l, in token order; None for those it has.
            rename_cameras: New names of pretraining's cameras, in pi^h and pi^l, as {old: new}.
            seed: Of the fresh weights, whatever was drawn before.

        Returns:
            Names of the modules of pi^l with fresh parameters, such as "action_head".

        Raises:
            ValueError: A size is out of range, or a camera to rename does not exist.
        """
        renames = dict(rename_cameras or {})
        config = finetuning_config(
            self.config,
            action_dim=action_dim,
            chunk_size=chunk_size,
            agent_pos_dim=agent_pos_dim,
            cameras=cameras,
            renames=renames,
        )
        with seeded_weights(seed):
            self.high_level, _ = rebuild_trunk(self.high_level, config.high_config, renames)
            self.low_level, fresh = rebuild_trunk(self.low_level, config.low_config, renames, fresh_head=True)
        config.fresh_modules = fresh
        config._attn_implementation = self.config._attn_implementation
        self.config = config
        self.action_normalizer = Normalizer("actions", action_dim).to(self.device)
        if self.agent_pos_normalizer is None or self.agent_pos_normalizer.size != self._proprioception_dim():
            normalizer = optional_normalizer("agent_pos", self._proprioception_dim())
            self.agent_pos_normalizer = None if normalizer is None else normalizer.to(self.device)
        if config.high_level_frozen:
            self.freeze_high_level()
        self.reset()
        return fresh

    def freeze_high_level(self, frozen: bool = True) -> None:
        """Takes pi^h out of training: no gradients, and no dropout even in training mode; kept in the checkpoint.

        Args:
            frozen: False takes pi^h back into training.
        """
        self.config.high_level_frozen = frozen
        self.high_level.requires_grad_(not frozen).train(self.training and not frozen)

    def train(self, mode: bool = True) -> HierarchicalPolicy:
        """Training or evaluation mode; a frozen pi^h stays in evaluation mode."""
        super().train(mode)
        if self.config.high_level_frozen:
            self.high_level.eval()
        return self

    def low_level_lora_targets(self, *, vision: bool = True) -> dict[str, list[str]]:
        """Arguments for `peft.LoraConfig`: adapters on pi^l's pretrained layers, whole training of its fresh ones.

        Args:
            vision: Also adapt the vision encoder.

        Returns:
            `{"target_modules": [...], "modules_to_save": [...]}`.

        Raises:
            ValueError: The policy has not been prepared for fine-tuning.
        """
        self._action_normalizer()
        return lora_targets(self.low_level, "low_level", self.config.fresh_modules, vision=vision)

    def _proprioception_dim(self) -> int | None:
        low, high = self.config.low_config.proprioception_dim, self.config.high_config.proprioception_dim
        return high if low is None else low

    def _normalized_agent_pos(self, agent_pos: Tensor | None) -> Tensor | None:
        if agent_pos is None or self.agent_pos_normalizer is None:
            return None
        size = self.agent_pos_normalizer.size
        if agent_pos.shape[-1] != size:
            raise ValueError(f"agent_pos must have length {size}, got shape {tuple(agent_pos.shape)}.")
        return self.agent_pos_normalizer.normalize(add_step(agent_pos, 3))

    def _predict_skills(
        self, pixels: Mapping[str, Tensor], language: Tensor | None, agent_pos: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Normalised skills (B, T, S), and pi^h's camera tokens where pi^l can take them as they are."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.high_level_frozen):
            prompt, tokens = self.high_level.encode_observation(pixels, language, agent_pos)
            skills = self.high_level.decode(prompt, tokens)[0].squeeze(2)
        return skills, self._reusable_camera_tokens(tokens)

    def _reusable_camera_tokens(self, tokens: Tensor) -> Tensor | None:
        high, low = self.config.high_config, self.config.low_config
        if self.config.share_vision_encoder and high.cameras == low.cameras:
            return tokens[:, :, : len(high.cameras)]
        return None

    def _shared_camera_tokens(self, pixels: Mapping[str, Tensor], language: Tensor | None) -> Tensor | None:
        """Camera tokens for pi^l from pi^h's encoder; None where pi^l has its own."""
        if not self.config.share_vision_encoder:
            return None
        return self.high_level.encode_pixels(pixels, language, cameras=self.config.low_config.cameras)

    def _check_targets(
        self, skills: Tensor | None, latents: Tensor | None, actions: Tensor | None, predicted_skills: Tensor | None
    ) -> None:
        if actions is not None:
            self._action_normalizer()
        if latents is not None and self.config.action_dim is not None:
            raise ValueError("This policy predicts actions: prepare_for_finetuning removed its latent action head.")
        if skills is not None and predicted_skills is not None:
            raise ValueError("predicted_skills replace the high-level policy, so there is no skill loss; drop one.")
        for name, target, size in (
            ("skills", skills, self.config.skill_dim),
            ("predicted_skills", predicted_skills, self.config.skill_dim),
            ("latent_actions", latents, self.config.latent_dim),
            ("actions", actions, self.config.action_dim),
        ):
            if target is not None and target.shape[-1] != size:
                raise ValueError(f"{name} must have length {size} in the last dimension, got {tuple(target.shape)}.")

    def _latent_action_outputs(
        self,
        chunk: Tensor,
        latent_actions: Tensor | None,
        mask: Tensor | None,
        mean_over_parts: MeanOverParts | None,
    ) -> dict[str, Tensor]:
        """Predicted latents (B, T, Q, D), without Q where it is 1, and their loss."""
        latents = chunk.squeeze(2) if self.config.low_config.chunk_size == 1 else chunk
        output = {"latent_actions": self.latent_action_normalizer.denormalize(latents)}
        if latent_actions is not None:
            target = self.latent_action_normalizer.normalize(self._latent_chunks(latent_actions))
            count = mean_count("latent_actions", chunk, mask, mean_over_parts)
            output["latent_action_loss"] = regression_loss(self.config.latent_loss, chunk, target, mask, count)
        return output

    def _latent_chunks(self, latent_actions: Tensor) -> Tensor:
        """Target latent actions as (B, T, Q, D)."""
        latents = latent_actions.unsqueeze(-2) if self.config.low_config.chunk_size == 1 else latent_actions
        return latents.unsqueeze(1) if latents.ndim == 3 else latents

    def _action_outputs(
        self, chunk: Tensor, actions: Tensor | None, mask: Tensor | None, mean_over_parts: MeanOverParts | None
    ) -> dict[str, Tensor]:
        """Predicted actions (B, T, Q, A) and their loss."""
        output = {"actions": self.action_normalizer.denormalize(chunk)}
        if actions is not None:
            target = self.action_normalizer.normalize(add_step(actions, 4))
            count = mean_count("actions", chunk, mask, mean_over_parts)
            output["action_loss"] = regression_loss(self.config.action_loss, chunk, target, mask, count)
        return output

    def _total_loss(self, output: Mapping[str, Tensor]) -> Tensor | None:
        weights = {
            "skill_loss": self.config.skill_loss_weight,
            "latent_action_loss": self.config.latent_loss_weight,
            "action_loss": 1.0,
        }
        terms = [weight * output[name] for name, weight in weights.items() if name in output]
        return torch.stack(terms).sum() if terms else None

    def _trunk_configs(self) -> list[BakuConfig]:
        return [self.config.high_config, self.config.low_config]

    def _action_normalizer(self) -> Normalizer:
        if self.action_normalizer is None:
            raise ValueError(
                "This policy has no actions yet, only latent actions; call prepare_for_finetuning(action_dim=..., "
                "chunk_size=...) and fine-tune it on demonstrations."
            )
        return self.action_normalizer

    def _predict_chunk(self, inputs: PolicyInputs) -> Tensor:
        high, low = self.config.high_config, self.config.low_config
        sizes = {high.language_dim, low.language_dim} - {None}
        language = self.encode_language(inputs.tasks, sizes.pop()) if sizes else None
        agent_pos = self._normalized_agent_pos(inputs.agent_pos)

        frames = inputs.frames(high)
        prompt, tokens = self.high_level.encode_observation(frames, language, agent_pos)
        history = self._history("high", high.history)
        steps = history.append(tokens, inputs.rows)
        skill = history.last_step(self.high_level.decode(prompt, steps)[0], inputs.rows)  # (B, 1, S)

        camera_tokens = self._reusable_camera_tokens(tokens)
        if camera_tokens is None:
            frames = inputs.frames(low)
            camera_tokens = self._shared_camera_tokens(frames, language)
        prompt, tokens = self.low_level.encode_observation(frames, language, agent_pos, skill, camera_tokens)
        history = self._history("low", low.history)
        steps = history.append(tokens, inputs.rows)
        return history.last_step(self.low_level.decode(prompt, steps)[0], inputs.rows)


def regression_loss(
    kind: str, predictions: Tensor, targets: Tensor, mask: Tensor | None = None, count: Tensor | None = None
) -> Tensor:
    """Mean loss over the numbers of the (..., A) vectors that the mask (...) keeps; `count` as in `masked_mean`.

    Raises:
        ValueError: The shapes differ.
    """
    if predictions.shape != targets.shape:
        raise ValueError(f"Targets must have shape {tuple(predictions.shape)}, got {tuple(targets.shape)}.")
    targets = masked_targets(predictions, targets.to(predictions.dtype), mask)
    return masked_mean(_LOSSES[kind](predictions, targets, reduction="none"), mask, count)


def _add_steps(pixels: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Frames with T, and whether they came without it."""
    stepless = any(frames.ndim == 4 for frames in pixels.values())
    return {camera: add_step(frames, 5) for camera, frames in pixels.items()}, stepless
