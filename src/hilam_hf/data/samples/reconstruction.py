"""Frames of the time steps that HiLAM's reconstruction loss (paper eq. 4) is computed at, and no others.

Shapes: R steps drawn, N latent actions of an episode, C = 3 channels, H height, W width; k an episode's stride.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from datasets import Dataset
from torch import Tensor

from ...fingerprint import data_fingerprint
from .frame_store import FrameStore
from .keys import SampleKey


class ReconstructionFrames:
    """Draws time steps of episodes and reads I_(t+1) and I_(t+1+k) of each, k being the episode's own.

    What is drawn of an episode depends on its own key alone, not on the others of its batch: a batch that is divided
    over processes or accumulated has the same steps as one that is not.

    Args:
        corpus: Latent-action corpus; its `stride` and `frame_indices` say which frames a latent action lies between.
        store: Frames of its episodes, in its order.
        num_steps: Time steps drawn of each episode; all of one that has fewer.
    """

    def __init__(self, corpus: Dataset, store: FrameStore, num_steps: int) -> None:
        columns = corpus.select_columns(["stride", "frame_indices"])
        self._strides = columns["stride"][:]
        self._frame_indices = [torch.tensor(indices) for indices in columns["frame_indices"][:]]
        self._store = store
        self._num_steps = num_steps

    def draw(self, keys: Sequence[SampleKey]) -> dict[str, Tensor]:
        """What `HiLAMModel.forward` takes for the reconstruction loss of a batch.

        Args:
            keys: Row in the corpus and seed of each sequence of the batch.

        Returns:
            `reconstruction_steps` (R, 2) int64, sequence of the batch and t, ordered by sequence and t; and
            `reconstruction_frames` and `reconstruction_targets`, uint8 (R, C, H, W). All are empty where no sequence
            has two latent actions.
        """
        times = [draw_steps(len(self._frame_indices[key.row]), self._num_steps, key.seed) for key in keys]
        sequences = torch.arange(len(keys)).repeat_interleave(torch.tensor([len(each) for each in times]))
        pairs = [self._read(key.row, each) for key, each in zip(keys, times, strict=True)]
        return {
            "reconstruction_steps": torch.stack((sequences, torch.cat(times)), dim=1),
            "reconstruction_frames": torch.cat([frames for frames, _ in pairs]),
            "reconstruction_targets": torch.cat([targets for _, targets in pairs]),
        }

    def fingerprint(self) -> str:
        """Says which frames of which episodes are drawn from: 16 hexadecimal digits, the same on every machine.

        Raises:
            OSError: A file cannot be read.
        """
        return data_fingerprint(self._num_steps, self._strides, self._store.fingerprint(), *self._frame_indices)

    def _read(self, episode: int, times: Tensor) -> tuple[Tensor, Tensor]:
        if not len(times):
            empty = torch.empty((0, 3, *self._store.sizes[0]), dtype=torch.uint8)
            return empty, empty
        first = self._frame_indices[episode][times + 1]
        frames = self._store.read(episode, torch.cat([first, first + self._strides[episode]]).tolist())
        return frames[: len(times)], frames[len(times) :]


def draw_steps(length: int, count: int, seed: int) -> Tensor:
    """Draws time steps t of a sequence that have a next one, each equally likely and none twice.

    Args:
        length: Latent actions of the sequence.
        count: How many steps are drawn; all where there are fewer.
        seed: Decides which.

    Returns:
        int64 (count,), ascending; shorter where the sequence is, and empty where it has no two latent actions.

    Example:
        >>> draw_steps(3, 5, seed=0).tolist(), draw_steps(1, 5, seed=0).tolist()
        ([0, 1], [])
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(max(length - 1, 0), generator=generator)[:count].sort().values
