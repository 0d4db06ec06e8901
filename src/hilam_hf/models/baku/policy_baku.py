"""The flat BAKU policy: observation and instruction to action chunks, with nothing in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..acting.normalization import Normalizer, Statistics, optional_normalizer, require_normalizer
from ..acting.observation import PolicyInputs, add_step
from ..acting.policy import ActingMixin
from ..loading import StrictLoadingMixin
from ..numerics import MeanOverParts
from .configuration_baku import BakuConfig
from .modeling_baku import BakuModel, BakuOutput


class BakuPolicy(ActingMixin, StrictLoadingMixin, PreTrainedModel):
    """A [`BakuModel`] with the statistics of its data: the baseline that the paper compares with.

    Example:
        >>> policy = BakuPolicy(BakuConfig(cameras=["front"], action_dim=4))
        >>> policy.set_statistics(actions=(-torch.ones(4), torch.ones(4)))
        >>> action = policy.select_action({"pixels": {"front": frame}, "task": "open the drawer"})
    """

    config: BakuConfig
    config_class = BakuConfig
    base_model_prefix = "model"
    main_input_name = "pixels"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: BakuConfig):
        super().__init__(config)
        self.model = BakuModel(config)
        self.action_normalizer = Normalizer("actions", config.action_dim)
        self.agent_pos_normalizer = optional_normalizer("agent_pos", config.proprioception_dim)
        self._init_acting()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Normalizer):
            module.init_weights()

    def set_statistics(self, *, actions: Statistics | None = None, agent_pos: Statistics | None = None) -> None:
        """Stores statistics of the training data.

        Args:
            actions: (minimum, maximum) per dimension, mapped to [-1, 1].
            agent_pos: (mean, standard deviation) per dimension.

        Raises:
            ValueError: Statistics of another length, or for something that the policy does not have.
        """
        if actions is not None:
            self.action_normalizer.set_min_max(*actions)
        if agent_pos is not None:
            require_normalizer("agent_pos", self.agent_pos_normalizer).set_mean_std(*agent_pos)

    def forward(
        self,
        pixels: Mapping[str, Tensor],
        language: Tensor | None = None,
        agent_pos: Tensor | None = None,
        actions: Tensor | None = None,
        action_mask: Tensor | None = None,
        mean_over_parts: MeanOverParts | None = None,
    ) -> BakuOutput:
        """Predicts chunks, and the loss against `actions`.

        Args:
            pixels: (B, 3, S, S) or (B, T, 3, S, S), uint8 or floats in [0, 1], for each camera.
            language: (B, E) instruction vectors.
            agent_pos: (B, P) or (B, T, P) proprioception in the environment's units.
            actions: (B, Q, A) or (B, T, Q, A) in the environment's units.
            action_mask: (B, Q) or (B, T, Q) true where an action is real rather than padding.
            mean_over_parts: For a part of a batch, see `hilam_hf.models.numerics.MeanOverParts`.

        Returns:
            The trunk's output, with `action_mean` (B, T, Q, A) in the environment's units.
        """
        output = self.model(
            pixels={camera: add_step(frames, 5) for camera, frames in pixels.items()},
            language=language,
            agent_pos=self._normalized_agent_pos(add_step(agent_pos, 3)),
            actions=None if actions is None else self.action_normalizer.normalize(add_step(actions, 4)),
            action_mask=add_step(action_mask, 3),
            mean_over_parts=mean_over_parts,
        )
        output.action_mean = self.action_normalizer.denormalize(output.action_mean)
        return output

    def count_parts(
        self,
        mean_over_parts: MeanOverParts,
        *,
        actions: Tensor | None = None,
        action_mask: Tensor | None = None,
        **others: Any,
    ) -> None:
        """Makes the calls of `mean_over_parts` that `forward` makes for the same part of a batch, and nothing else.

        Args:
            mean_over_parts: Gets the names and counts; see `hilam_hf.models.numerics.MeanOverParts`.
            actions: (B, Q, A) or (B, T, Q, A) targets.
            action_mask: (B, Q) or (B, T, Q) true where an action is real rather than padding.
            **others: The other arguments of `forward`, which no count depends on.
        """
        self.model.count_parts(
            mean_over_parts, actions=add_step(actions, 4), action_mask=add_step(action_mask, 3), **others
        )

    def _normalized_agent_pos(self, agent_pos: Tensor | None) -> Tensor | None:
        if agent_pos is None or self.agent_pos_normalizer is None:
            return None
        return self.agent_pos_normalizer.normalize(agent_pos)

    def _trunk_configs(self) -> list[BakuConfig]:
        return [self.config]

    def _action_normalizer(self) -> Normalizer:
        return self.action_normalizer

    def _predict_chunk(self, inputs: PolicyInputs) -> Tensor:
        config = self.config
        prompt, tokens = self.model.encode_observation(
            pixels=inputs.frames(config),
            language=None if config.language_dim is None else self.encode_language(inputs.tasks, config.language_dim),
            agent_pos=self._normalized_agent_pos(add_step(inputs.agent_pos, 3)),
        )
        history = self._history("trunk", config.history)
        tokens = history.append(tokens, inputs.rows)
        return history.last_step(self.model.decode(prompt, tokens)[0], inputs.rows)
