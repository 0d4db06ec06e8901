"""Frames of the time steps that HiLAM's reconstruction loss (paper eq. 4) is computed at, and no others.

Shapes: R steps drawn, N latent actions of an episode, C = 3 channels, H height, W width; k an episode's stride.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from datasets import Dataset
from torch import Tensor

from .frame_store import FrameStore


class ReconstructionFrames:
    """Draws time steps of a batch of episodes and reads I_(t+1) and I_(t+1+k) of each, k being the episode's own.

    Args:
        corpus: Latent-action corpus; its `stride` and `frame_indices` say which frames a latent action lies between.
        store: Frames of its episodes, in its order.
        num_steps: R, time steps drawn from a batch.
    """

    def __init__(self, corpus: Dataset, store: FrameStore, num_steps: int) -> None:
        columns = corpus.select_columns(["stride", "frame_indices"])
        self._strides = columns["stride"][:]
        self._frame_indices = [torch.tensor(indices) for indices in columns["frame_indices"][:]]
        self._store = store
        self._num_steps = num_steps

    def draw(self, episodes: Sequence[int], generator: torch.Generator) -> dict[str, Tensor]:
        """What `HiLAMModel.forward` takes for the reconstruction loss of a batch.

        Args:
            episodes: Row in the corpus of each sequence of the batch.
            generator: Decides which steps are drawn.

        Returns:
            `reconstruction_steps` (R, 2) int64, and `reconstruction_frames` and `reconstruction_targets`, uint8
            (R, C, H, W). All are empty where no sequence has two latent actions.
        """
        steps = draw_steps([len(self._frame_indices[each]) for each in episodes], self._num_steps, generator)
        counts = steps[:, 0].bincount(minlength=len(episodes)).tolist()
        pairs = [self._read(*each) for each in zip(episodes, steps[:, 1].split(counts), strict=True)]
        return {
            "reconstruction_steps": steps,
            "reconstruction_frames": torch.cat([frames for frames, _ in pairs]),
            "reconstruction_targets": torch.cat([targets for _, targets in pairs]),
        }

    def _read(self, episode: int, times: Tensor) -> tuple[Tensor, Tensor]:
        if not len(times):
            empty = torch.empty((0, 3, *self._store.sizes[0]), dtype=torch.uint8)
            return empty, empty
        first = self._frame_indices[episode][times + 1]
        frames = self._store.read(episode, torch.cat([first, first + self._strides[episode]]).tolist())
        return frames[: len(times)], frames[len(times) :]


def draw_steps(lengths: Sequence[int], count: int, generator: torch.Generator) -> Tensor:
    """Draws time steps t that have a next one, each equally likely, and each once before any is drawn again.

    Args:
        lengths: Latent actions of each sequence.
        count: R, how many steps are drawn.
        generator: Decides which.

    Returns:
        int64 (R, 2), sequence and t of each, ordered by sequence; (0, 2) where no sequence has two latent actions.

    Example:
        >>> draw_steps([2, 1, 2], 2, torch.Generator()).tolist()
        [[0, 0], [2, 0]]
    """
    pairs = (torch.tensor(lengths) - 1).clamp(min=0)
    ends = pairs.cumsum(0)
    total = int(ends[-1])
    if not total:
        return torch.empty((0, 2), dtype=torch.long)
    drawn = torch.randperm(total, generator=generator)[torch.arange(count) % total].sort().values
    sequence = torch.searchsorted(ends, drawn, right=True)
    return torch.stack((sequence, drawn - (ends - pairs)[sequence]), dim=1)
