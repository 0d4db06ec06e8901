"""What a policy needs to act: observations in, histories of tokens, chunk execution, actions out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...video import resize_frames
from ..baku.configuration_baku import ActingConfig, BakuConfig
from .execution import OpenLoop, TemporalAggregator, check_rows
from .history import TokenHistory
from .language import LanguageEncoder, shared_language_encoder
from .normalization import Normalizer


@dataclass
class PolicyInputs:
    """One observation of B rows.

    Args:
        pixels: (B, 3, H, W) uint8 frames of each camera, at the camera's size, on the CPU, which resizes 8-bit frames.
        agent_pos: (B, P) proprioception, or None where the policy takes none.
        tasks: B instructions; empty where the policy takes none.
        rows: B numbers of rows, whose histories these observations continue.
        batched: Whether the observation came with a batch dimension.
        device: Where the policy is; everything but `pixels` lies there.
    """

    pixels: dict[str, Tensor]
    agent_pos: Tensor | None
    tasks: list[str]
    rows: list[int]
    batched: bool
    device: torch.device

    def take(self, rows: list[int], device: torch.device) -> PolicyInputs:
        """The inputs of some rows, for a policy on `device`; a row may come more than once."""
        return replace(
            self,
            device=device,
            pixels={camera: frames[rows] for camera, frames in self.pixels.items()},
            agent_pos=None if self.agent_pos is None else self.agent_pos[rows].to(device),
            tasks=[self.tasks[row] for row in rows] if self.tasks else [],
            rows=[self.rows[row] for row in rows],
        )

    def frames(self, config: BakuConfig) -> dict[str, Tensor]:
        """uint8 (B, 1, 3, S, S) of each camera of `config`, at its image size, on the policy's device."""
        return {
            camera: resize_frames(self.pixels[camera], config.image_size)[:, None].to(self.device)
            for camera in config.cameras
        }


class ActingMixin:
    """`reset` and `select_action` for a `PreTrainedModel` whose config is an [`ActingConfig`].

    A subclass calls `_init_acting` in its `__init__` and gives `_acting_configs`, `_action_normalizer` and
    `_predict_chunk`.

    Attributes:
        acting_batch_size: Rows that are predicted at once, a smaller group being filled up with one of its rows, so
            that the numbers do not depend on how many rows are predicted together; None for all of them.
    """

    config: ActingConfig
    device: torch.device
    acting_batch_size: int | None = None
    _language_encoder: LanguageEncoder | None
    _executors: dict[int, TemporalAggregator | OpenLoop]
    _histories: dict[str, TokenHistory]
    _num_rows: int | None
    _executed_length: int | None

    def reset(self, indices: Sequence[int] | None = None) -> None:
        """Starts new episodes.

        Args:
            indices: Rows of the batch that start a new episode; None for all, whose number may then change.

        Raises:
            ValueError: A row is outside the batch.
        """
        if indices is None:
            self._executors, self._histories, self._num_rows = {}, {}, None
        elif self._num_rows is not None:
            rows = check_rows(indices, self._num_rows)
            for row in rows:
                self._executors.pop(row, None)
            for history in self._histories.values():
                history.reset(rows)

    @torch.no_grad()
    def select_action(self, observation: Mapping[str, Any], active: Sequence[int] | None = None) -> np.ndarray:
        """One control step.

        Args:
            observation: `{"pixels": {camera: uint8 (H, W, 3) or (B, H, W, 3)}, "agent_pos": (P,) or (B, P), "task": str
                or list of str}`; what the policy has no token for is not looked at.
            active: Rows that take a step; the others are neither looked at nor advanced, and get zeros. None for all.

        Returns:
            float32 (A,) or (B, A), in the environment's units and within the range of the training actions.

        Raises:
            ValueError: The policy has no actions yet, or the observation lacks something or has the wrong size.
        """
        normalizer = self._action_normalizer()
        inputs = read_observation(observation, self._acting_configs())
        rows = self._rows_to_advance(inputs.rows, active)
        chunks = self._predict_chunks(inputs, [row for row in rows if self._needs_prediction(row)])
        actions = np.zeros((len(inputs.rows), self._acting_configs()[-1].action_dim), dtype=np.float32)
        if rows:
            executed = torch.cat([self._executor(row).update(chunks.get(row)) for row in rows]).clamp(-1, 1)
            actions[rows] = normalizer.denormalize(executed.to(self.device)).cpu().numpy()
        return actions if inputs.batched else actions[0]

    def reads_next(self) -> NDArray[np.bool_]:
        """(B,) whether the next `select_action` looks at the pictures of each row of the last one.

        A row in the middle of its chunk does not; one that was reset since does.
        """
        rows = range(self._num_rows or 0)
        return np.array([bool(self.cameras) and self._needs_prediction(row) for row in rows], dtype=np.bool_)

    def predict_in_batches(self, size: int | None) -> None:
        """Sets `acting_batch_size`.

        Raises:
            ValueError: The size is below 1.
        """
        if size is not None and size < 1:
            raise ValueError(f"acting_batch_size must be at least 1, got {size}.")
        self.acting_batch_size = size

    def execute_chunks(self, length: int | None) -> None:
        """Has the first `length` actions of each chunk executed, whatever the config says, and starts new episodes.

        Args:
            length: Actions executed of a chunk before the next is predicted; None goes back to the config.

        Raises:
            ValueError: A chunk does not hold that many.
        """
        chunk_size = self._acting_configs()[-1].chunk_size
        if length is not None and not 1 <= length <= chunk_size:
            raise ValueError(
                f"this policy predicts chunks of {chunk_size} actions, so it cannot execute {length} of each; choose "
                f"an executed chunk length of 1 to {chunk_size}."
            )
        self._executed_length = length
        self.reset()

    @property
    def executed_chunk_length(self) -> int:
        """Actions executed of each chunk; 1 with temporal aggregation, which predicts at every step."""
        if self._executed_length is not None:
            return self._executed_length
        if self.config.execution == "temporal_aggregation":
            return 1
        return self.config.n_action_steps or self._acting_configs()[-1].chunk_size

    @property
    def acting_settings(self) -> dict[str, Any]:
        """What decides the actions beside weights and chunk length, for records of evaluations."""
        open_loop = self._executed_length is not None or self.config.execution == "open_loop"
        return {
            "execution": "open_loop" if open_loop else "temporal_aggregation",
            "aggregation_decay": None if open_loop else self.config.aggregation_decay,
            "language_encoder": self.config.language_encoder,
        }

    @property
    def training_data(self) -> dict[str, Any] | None:
        """What is known of the demonstrations that the policy learnt to act from."""
        return self.config.training_data

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that the policy looks at."""
        return tuple(dict.fromkeys(camera for config in self._acting_configs() for camera in config.cameras))

    @property
    def agent_pos_dim(self) -> int | None:
        """P, the length of the proprioception that the policy takes; None where it takes none."""
        sizes = {config.proprioception_dim for config in self._acting_configs()} - {None}
        return sizes.pop() if sizes else None

    @property
    def action_dim(self) -> int:
        """A, the length of an action.

        Raises:
            ValueError: The policy has no actions yet.
        """
        return self._action_normalizer().size

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
        self._executors, self._histories = {}, {}
        self._num_rows = self._executed_length = None

    @abstractmethod
    def _acting_configs(self) -> list[BakuConfig]:
        """The trunks that observe; the last one predicts the chunks."""

    @abstractmethod
    def _action_normalizer(self) -> Normalizer:
        """Maps predictions to the environment's units; raises a ValueError where the policy has no actions yet."""

    @abstractmethod
    def _predict_chunk(self, inputs: PolicyInputs) -> Tensor:
        """(B, Q, A) normalised actions, after every history has taken in the observation."""

    def _rows_to_advance(self, rows: list[int], active: Sequence[int] | None) -> list[int]:
        if self._num_rows not in (None, len(rows)):
            raise ValueError(f"The batch went from {self._num_rows} rows to {len(rows)}; call reset() before that.")
        self._num_rows = len(rows)
        return rows if active is None else check_rows(active, len(rows))

    def _needs_prediction(self, row: int) -> bool:
        # With a history every observation must be seen, even when its prediction is not used.
        return self._executor(row).needs_chunk or any(config.history > 1 for config in self._acting_configs())

    def _predict_chunks(self, inputs: PolicyInputs, rows: list[int]) -> dict[int, Tensor]:
        """{row: (1, Q, A) float32 on the CPU}, where chunks are executed row by row."""
        chunks: dict[int, Tensor] = {}
        size = self.acting_batch_size or max(len(rows), 1)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            filled = part + part[-1:] * (size - len(part))
            with _evaluation_mode(self):
                chunk = self._predict_chunk(inputs.take(filled, self.device)).float().cpu()
            chunks.update(zip(part, chunk.split(1), strict=False))
        return chunks

    def _executor(self, row: int) -> TemporalAggregator | OpenLoop:
        if row not in self._executors:
            chunk_size, length = self._acting_configs()[-1].chunk_size, self._executed_length
            if length is not None or self.config.execution == "open_loop":
                self._executors[row] = OpenLoop(chunk_size, length or self.config.n_action_steps)
            else:
                self._executors[row] = TemporalAggregator(chunk_size, self.config.aggregation_decay)
        return self._executors[row]

    def _history(self, name: str, length: int) -> TokenHistory:
        return self._histories.setdefault(name, TokenHistory(length))


def read_observation(observation: Mapping[str, Any], configs: Sequence[BakuConfig]) -> PolicyInputs:
    """What the trunks need of an observation, checked and as a batch, on the CPU.

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
    num_rows = rows.pop()
    needs_task = any(config.language_dim is not None for config in configs)
    return PolicyInputs(
        pixels={
            camera: torch.from_numpy(np.ascontiguousarray(array)).permute(0, 3, 1, 2)
            for camera, array in frames.items()
        },
        agent_pos=None if agent_pos is None else torch.from_numpy(agent_pos),
        tasks=_tasks(observation, num_rows) if needs_task else [],
        rows=list(range(num_rows)),
        batched=batched,
        device=torch.device("cpu"),
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
