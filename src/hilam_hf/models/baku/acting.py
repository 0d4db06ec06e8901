"""What a policy needs to act: observations in, histories of tokens, chunk execution, actions out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..language import LanguageEncoder, shared_language_encoder
from .chunk_execution import OpenLoop, TemporalAggregator, check_rows
from .configuration_baku import ActingConfig, BakuConfig
from .normalization import Normalizer


@dataclass
class PolicyInputs:
    """One observation of B rows.

    Args:
        pixels: (B, 3, H, W) uint8 frames of each camera, at the camera's size.
        agent_pos: (B, P) proprioception, or None where the policy takes none.
        tasks: B instructions; empty where the policy takes none.
        batched: Whether the observation came with a batch dimension.
    """

    pixels: dict[str, Tensor]
    agent_pos: Tensor | None
    tasks: list[str]
    batched: bool

    def frames(self, config: BakuConfig) -> dict[str, Tensor]:
        """(B, 1, 3, S, S) in [0, 1] of each camera of `config`, at its image size."""
        return {camera: resize_frames(self.pixels[camera], config.image_size)[:, None] for camera in config.cameras}


def resize_frames(frames: Tensor, size: int) -> Tensor:
    """Frames as policies take them: antialiased bilinear to a square, without keeping the aspect ratio.

    Args:
        frames: (..., 3, H, W) uint8 in 0..255, or float in [0, 1].
        size: Height and width of the result.

    Returns:
        (..., 3, size, size) float in [0, 1].
    """
    if frames.dtype == torch.uint8:
        frames = frames.float() / 255
    if frames.shape[-2:] == (size, size):
        return frames
    flat = frames.reshape(-1, *frames.shape[-3:])
    resized = F.interpolate(flat, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return resized.clamp(0, 1).reshape(*frames.shape[:-2], size, size)


class TokenHistory:
    """The tokens of each row's last observations, oldest first.

    Rows restart alone, so they may hold different numbers of steps: a shorter row is filled up at its end, which a
    causal trunk does not see.

    Args:
        length: Steps kept.
    """

    def __init__(self, length: int):
        self.length = length
        self._buffer: Tensor | None = None  # (B, length, N, D)
        self._count: Tensor | None = None  # (B,) steps held

    @property
    def tokens(self) -> Tensor:
        """(B, longest row, N, D)."""
        return self._buffer[:, : int(self._count.max())]

    def append(self, tokens: Tensor) -> None:
        """Adds one step, (B, 1, N, D), dropping the oldest where a row is full.

        Raises:
            ValueError: Another number of rows than before.
        """
        if self._buffer is None:
            self._buffer = tokens.new_zeros(len(tokens), self.length, *tokens.shape[2:])
            self._count = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
        if len(tokens) != len(self._buffer):
            raise ValueError(
                f"The batch went from {len(self._buffer)} rows to {len(tokens)}; call reset() before that."
            )
        full = (self._count == self.length)[:, None, None, None]
        self._buffer = torch.where(full, self._buffer.roll(-1, dims=1), self._buffer)
        slot = self._count.clamp(max=self.length - 1)
        self._buffer[torch.arange(len(tokens), device=tokens.device), slot] = tokens[:, 0]
        self._count = slot + 1

    def last_step(self, values: Tensor) -> Tensor:
        """(B, ...) from (B, steps, ...): what belongs to each row's newest observation."""
        return values[torch.arange(len(values), device=values.device), self._count - 1]

    def reset(self, indices: Sequence[int] | None = None) -> None:
        """Forgets the steps of some rows, or everything."""
        if indices is None:
            self._buffer = self._count = None
        elif self._count is not None:
            self._count[check_rows(indices, len(self._count))] = 0


class ActingMixin:
    """`reset` and `select_action` for a `PreTrainedModel` whose config is an [`ActingConfig`].

    A subclass calls `_init_acting` in its `__init__` and gives `_acting_configs`, `_action_normalizer` and
    `_predict_chunk`.
    """

    config: ActingConfig
    device: torch.device
    _language_encoder: LanguageEncoder | None
    _executor: TemporalAggregator | OpenLoop | None
    _histories: dict[str, TokenHistory]

    def reset(self, indices: Sequence[int] | None = None) -> None:
        """Starts new episodes.

        Args:
            indices: Rows of the batch that start a new episode; None for all, whose number may then change.
        """
        for state in (self._executor, *self._histories.values()):
            if state is not None:
                state.reset(indices)
        if indices is None:
            self._executor = None
            self._histories = {}

    @torch.no_grad()
    def select_action(self, observation: Mapping[str, Any]) -> np.ndarray:
        """One control step.

        Args:
            observation: `{"pixels": {camera: uint8 (H, W, 3) or (B, H, W, 3)}, "agent_pos": (P,) or (B, P), "task": str
                or list of str}`; what the policy has no token for is not looked at.

        Returns:
            float32 (A,) or (B, A), in the environment's units and within the range of the training actions.

        Raises:
            ValueError: The policy has no actions yet, or the observation lacks something or has the wrong size.
        """
        normalizer = self._action_normalizer()
        inputs = read_observation(observation, self._acting_configs(), self.device)
        with _evaluation_mode(self):
            # With a history every observation must be seen, even when its prediction is not used.
            executor, chunk = self._chunk_executor(), None
            if executor.needs_chunk or any(config.history > 1 for config in self._acting_configs()):
                chunk = self._predict_chunk(inputs)
        action = normalizer.denormalize(executor.update(chunk).float().clamp(-1, 1)).cpu().numpy()
        return action if inputs.batched else action[0]

    @property
    def language_encoder(self) -> LanguageEncoder:
        """The frozen text encoder that the config names; loaded when first used."""
        if self._language_encoder is None:
            self._language_encoder = shared_language_encoder(self.config.language_encoder)
        return self._language_encoder

    @language_encoder.setter
    def language_encoder(self, encoder: LanguageEncoder) -> None:
        self._language_encoder = encoder

    def encode_language(self, tasks: Sequence[str], language_dim: int) -> Tensor:
        """(B, E) instruction vectors on the policy's device, each computed once.

        Raises:
            ValueError: The encoder's vectors have another length than the policy was trained with.
        """
        vectors = self.language_encoder.encode(list(tasks))
        if vectors.shape[-1] != language_dim:
            raise ValueError(
                f"Language encoder {self.config.language_encoder!r} gives vectors of length {vectors.shape[-1]}, but "
                f"language_dim is {language_dim}; use the encoder that the policy was trained with."
            )
        return vectors.to(self.device)

    def _init_acting(self) -> None:
        self._language_encoder = None
        self._executor = None
        self._histories = {}

    @abstractmethod
    def _acting_configs(self) -> list[BakuConfig]:
        """The trunks that observe; the last one predicts the chunks."""

    @abstractmethod
    def _action_normalizer(self) -> Normalizer:
        """Maps predictions to the environment's units; raises a ValueError where the policy has no actions yet."""

    @abstractmethod
    def _predict_chunk(self, inputs: PolicyInputs) -> Tensor:
        """(B, Q, A) normalised actions, after every history has taken in the observation."""

    def _chunk_executor(self) -> TemporalAggregator | OpenLoop:
        if self._executor is None:
            chunk_size = self._acting_configs()[-1].chunk_size
            if self.config.execution == "open_loop":
                self._executor = OpenLoop(chunk_size, self.config.n_action_steps)
            else:
                self._executor = TemporalAggregator(chunk_size, self.config.aggregation_decay)
        return self._executor

    def _history(self, name: str, length: int) -> TokenHistory:
        return self._histories.setdefault(name, TokenHistory(length))


def read_observation(
    observation: Mapping[str, Any], configs: Sequence[BakuConfig], device: torch.device
) -> PolicyInputs:
    """What the trunks need of an observation, checked and as a batch.

    Raises:
        ValueError: A camera, agent_pos or the task is missing, or a size is wrong.
    """
    cameras = list(dict.fromkeys(camera for config in configs for camera in config.cameras))
    frames = {camera: _camera_frames(observation, camera) for camera in cameras}
    agent_pos = None
    if sizes := {config.proprioception_dim for config in configs} - {None}:
        agent_pos = _agent_pos(observation, sizes.pop())
    arrays = [*frames.values(), *([] if agent_pos is None else [agent_pos])]
    ranks = [array.ndim == 4 for array in frames.values()] + ([] if agent_pos is None else [agent_pos.ndim == 2])
    batched = all(ranks)
    if any(ranks) and not batched:
        raise ValueError("Some of the observation's cameras and agent_pos have a batch dimension and some have not.")
    if not batched:
        frames = {camera: array[None] for camera, array in frames.items()}
        agent_pos = None if agent_pos is None else agent_pos[None]
    rows = {len(array) if batched else 1 for array in arrays}
    if len(rows) != 1:
        raise ValueError(f"The observation's cameras and agent_pos must have the same number of rows, got {rows}.")
    needs_task = any(config.language_dim is not None for config in configs)
    return PolicyInputs(
        pixels={
            camera: torch.from_numpy(np.ascontiguousarray(array)).to(device).permute(0, 3, 1, 2)
            for camera, array in frames.items()
        },
        agent_pos=None if agent_pos is None else torch.from_numpy(agent_pos).to(device),
        tasks=_tasks(observation, rows.pop()) if needs_task else [],
        batched=batched,
    )


def _camera_frames(observation: Mapping[str, Any], camera: str) -> np.ndarray:
    pixels = observation.get("pixels", {})
    if camera not in pixels:
        raise ValueError(f"The observation lacks camera {camera!r} in 'pixels'; given: {sorted(pixels)}.")
    array = np.asarray(pixels[camera])
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3:
        raise ValueError(
            f"Camera {camera!r} must be uint8 of shape (H, W, 3) or (B, H, W, 3), got {array.dtype} {array.shape}."
        )
    return array


def _agent_pos(observation: Mapping[str, Any], size: int) -> np.ndarray:
    if observation.get("agent_pos") is None:
        raise ValueError(f"The observation lacks 'agent_pos' (float, length {size}).")
    array = np.asarray(observation["agent_pos"], dtype=np.float32)
    if array.ndim not in (1, 2) or array.shape[-1] != size:
        raise ValueError(f"'agent_pos' must have shape ({size},) or (B, {size}), got {array.shape}.")
    return array


def _tasks(observation: Mapping[str, Any], rows: int) -> list[str]:
    task = observation.get("task")
    if task is None:
        raise ValueError("The observation lacks 'task' (the instruction in words).")
    tasks = [task] * rows if isinstance(task, str) else list(task)
    if len(tasks) != rows or not all(isinstance(text, str) for text in tasks):
        raise ValueError(f"'task' must be a string or {rows} strings, got {tasks!r}.")
    return tasks


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
