"""What extraction and streaming need of a model that segments latent actions.

Shapes: B sequences, P packed rows, T latent actions, D width of one.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..hnet.cache import LevelCache
from ..hnet.modeling_hnet import StageTokens
from ..hnet.packing import SequenceLayout
from ..latent_actions.dynamics import InverseDynamicsModel
from .configuration_hilam import HiLAMConfig


class Segmenter(Protocol):
    """The side of `HiLAMModel` that extraction and streaming see."""

    config: HiLAMConfig

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""

    @property
    def frame_format(self) -> tuple[int | None, int]:
        """Side in pixels and number of channels of the frames that the inverse dynamics model takes."""

    def require_idm(self) -> InverseDynamicsModel:
        """The inverse dynamics model; a ValueError if there is none."""

    def check_latents(self, sequence: Tensor) -> Tensor:
        """Latent actions (T, D), if they are what the model takes; codes as int64."""

    def new_cache(self, batch_size: int) -> LevelCache:
        """An empty cache for B sequences that `segment_rows` takes piece by piece."""

    def segment_rows(
        self, rows: Tensor, layout: SequenceLayout, cache: LevelCache | None = None
    ) -> tuple[StageTokens, ...]:
        """Boundaries and features of packed latent actions (P, D), one entry a chunking stage, outermost first."""
