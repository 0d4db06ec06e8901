"""Acting: observations in, predictions of chunks, their execution row by row, actions out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...acting_spec import ActingSpec
from ..processing import SquareImageProcessorPil
from ..saving import SavingMixin
from .configuration_acting import ActingConfig, TrunkConfig
from .execution import OpenLoop, TemporalAggregator, check_rows
from .history import TokenHistory
from .language import LanguageEncoder, shared_language_encoder
from .normalization import Normalizer
from .observation import PolicyInputs, read_observation


class ActingMixin(SavingMixin):
    """`reset` and `select_action` for a `PreTrainedModel` whose config is an [`ActingConfig`].

    A subclass calls `_init_acting` in its `__init__` and gives `_trunk_configs`, `_action_normalizer` and
    `_predict_chunk`. Its image processor is saved beside its weights.

    Attributes:
        acting_batch_size: Rows that are predicted at once, a smaller group being filled up with one of its rows, so
            that the numbers do not depend on how many rows are predicted together; None for all of them.
    """

    config: ActingConfig
    device: torch.device
    name_or_path: str
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
            ValueError: The policy has no actions yet; the observation lacks something, has the wrong size or is not
                finite; or the prediction is not. The next good observation is acted upon as ever.
        """
        normalizer = self._action_normalizer()
        inputs = read_observation(observation, self._trunk_configs())
        rows = self._rows_to_advance(inputs.rows, active)
        inputs.check_finite(rows)
        chunks = self._predict_chunks(inputs, [row for row in rows if self._needs_prediction(row)])
        actions = np.zeros((len(inputs.rows), self._trunk_configs()[-1].action_dim), dtype=np.float32)
        if rows:
            executed = torch.cat([self._executor(row).update(chunks.get(row)) for row in rows]).clamp(-1, 1)
            actions[rows] = normalizer.denormalize(executed.to(self.device)).cpu().numpy()
        return actions if inputs.batched else actions[0]

    def reads_next(self) -> NDArray[np.bool_]:
        """(B,) whether the next `select_action` looks at the pictures of each row of the last one.

        A row in the middle of its chunk does not; one that was reset since does.
        """
        rows = range(self._num_rows or 0)
        looks = any(trunk.cameras for trunk in self._trunk_configs())
        return np.array([looks and self._needs_prediction(row) for row in rows], dtype=np.bool_)

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
        chunk_size = self._trunk_configs()[-1].chunk_size
        if length is not None and not 1 <= length <= chunk_size:
            raise ValueError(
                f"this policy predicts chunks of {chunk_size} actions, so it cannot execute {length} of each; choose "
                f"an executed chunk length of 1 to {chunk_size}."
            )
        self._executed_length = length
        self.reset()

    @property
    def acting_spec(self) -> ActingSpec:
        """What the policy looks at and gives, and what is recorded of it.

        Raises:
            ValueError: The policy has no actions yet.
        """
        trunks = self._trunk_configs()
        proprioception = {trunk.proprioception_dim for trunk in trunks} - {None}
        is_open_loop = self._is_open_loop
        return ActingSpec(
            cameras=tuple(dict.fromkeys(camera for trunk in trunks for camera in trunk.cameras)),
            agent_pos_dim=proprioception.pop() if proprioception else None,
            action_dim=self._action_normalizer().size,
            has_chunks=True,
            executed_chunk_length=self._open_loop_length if is_open_loop else 1,
            training_data=self.config.training_data,
            settings={
                "execution": "open_loop" if is_open_loop else "temporal_aggregation",
                "aggregation_decay": None if is_open_loop else self.config.aggregation_decay,
                "language_encoder": self.config.language_encoder,
            },
            name=self.name_or_path or None,
            device=self.device.type,
        )

    def image_processor(self) -> SquareImageProcessorPil | None:
        """What makes of one camera's pictures those that `select_action` gives the last trunk that looks at any.

        None where the policy takes no pictures.
        """
        sizes = [trunk.image_size for trunk in self._trunk_configs() if trunk.cameras]
        return SquareImageProcessorPil(size={"height": sizes[-1], "width": sizes[-1]}) if sizes else None

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
    def _trunk_configs(self) -> Sequence[TrunkConfig]:
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
        return self._executor(row).needs_chunk or any(trunk.history > 1 for trunk in self._trunk_configs())

    def _predict_chunks(self, inputs: PolicyInputs, rows: list[int]) -> dict[int, Tensor]:
        """{row: (1, Q, A) float32 on the CPU}, where chunks are executed row by row."""
        chunks: dict[int, Tensor] = {}
        size = self.acting_batch_size or max(len(rows), 1)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            filled = part + part[-1:] * (size - len(part))
            with _evaluation_mode(self):
                chunk = self._predict_chunk(inputs.take(filled, self.device)).float().cpu()
            if not bool(torch.isfinite(chunk).all()):
                # Their histories hold it, too.
                self.reset(part)
                raise ValueError(
                    f"The policy predicts NaN or infinite actions for rows {part}, which start anew; check its "
                    "weights, and in half precision the size of 'agent_pos'."
                )
            chunks.update(zip(part, chunk.split(1), strict=False))
        return chunks

    @property
    def _is_open_loop(self) -> bool:
        return self._executed_length is not None or self.config.execution == "open_loop"

    @property
    def _open_loop_length(self) -> int:
        return self._executed_length or self.config.n_action_steps or self._trunk_configs()[-1].chunk_size

    def _executor(self, row: int) -> TemporalAggregator | OpenLoop:
        if row not in self._executors:
            chunk_size = self._trunk_configs()[-1].chunk_size
            if self._is_open_loop:
                self._executors[row] = OpenLoop(chunk_size, self._open_loop_length)
            else:
                self._executors[row] = TemporalAggregator(chunk_size, self.config.aggregation_decay)
        return self._executors[row]

    def _history(self, name: str, length: int) -> TokenHistory:
        return self._histories.setdefault(name, TokenHistory(length))


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
