"""What HiLAM is trained on: the latent-action sequences of a corpus, and frames for its reconstruction loss.

Shapes: B sequences, T latent actions of the longest, D their width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset as Corpus
from torch import Tensor
from torch.utils.data import Dataset

from ...data.corpora.corpus import latent_actions_array
from ...data.samples.collate import collate_sequences
from ...data.samples.keys import SampleKey
from ...data.samples.reconstruction import ReconstructionFrames
from ...fingerprint import data_fingerprint


class LatentSequences(Dataset[Tensor]):
    """The latent-action sequences of a corpus, kept in memory (a latent action takes 256 bytes)."""

    def __init__(self, corpus: Corpus):
        # float32, or codes, for which the loss takes int64.
        arrays = [latent_actions_array(corpus, row) for row in range(len(corpus))]
        self.sequences = [torch.tensor(a) if a.dtype == np.float32 else torch.tensor(a).long() for a in arrays]
        self.episode_ids: list[str] = list(corpus["id"])

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> Tensor:
        return self.sequences[index]

    def check_finite(self) -> None:
        """Checks that all latent actions are numbers.

        Raises:
            ValueError: Some are not, with their episode.
        """
        for name, sequence in zip(self.episode_ids, self.sequences, strict=True):
            if not torch.isfinite(sequence).all():
                raise ValueError(f"episode {name!r}: its latent actions hold NaN or infinity; extract them again")

    def fingerprint(self) -> str:
        """Says which sequences these are: 16 hexadecimal digits, from ids and latent actions in their order."""
        return data_fingerprint(self.episode_ids, *self.sequences)

    def sample_id(self, index: int) -> str:
        """The id of the episode."""
        return self.episode_ids[index]


class SequencesToReconstruct(Dataset[tuple[Tensor, SampleKey]]):
    """Latent-action sequences with the keys that their frames are drawn by, see `CollateWithFrames`.

    Args:
        sequences: The sequences.
        frames: What `CollateWithFrames` reads for them; it counts to the fingerprint.
    """

    draws_samples = True

    def __init__(self, sequences: LatentSequences, frames: ReconstructionFrames | None = None):
        self.sequences = sequences
        self.frames = frames

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, SampleKey]:
        return self.sequences[key.row], key

    def fingerprint(self) -> str:
        """Says which sequences and frames these are: 16 hexadecimal digits, the same on every machine."""
        return data_fingerprint(self.sequences.fingerprint(), self.frames and self.frames.fingerprint())

    def sample_id(self, index: int) -> str:
        """The id of the episode."""
        return self.sequences.sample_id(index)


def collate_latent_actions(sequences: Sequence[Tensor]) -> dict[str, Tensor]:
    """Pads sequences (T_i, D) to HiLAM's inputs: `latent_actions` (B, T, D) and `attention_mask` (B, T)."""
    batch = collate_sequences(sequences)
    return {"latent_actions": batch["latents"], "attention_mask": batch["attention_mask"]}


class CollateWithFrames:
    """Pads sequences to HiLAM's inputs and adds the frames of the time steps of the reconstruction loss.

    The steps are drawn here and not in the model, so that no other frame is read; those of a sequence depend on its own
    key alone.
    """

    def __init__(self, frames: ReconstructionFrames):
        self.frames = frames

    def __call__(self, items: Sequence[tuple[Tensor, SampleKey]]) -> dict[str, Tensor]:
        sequences, keys = zip(*items, strict=True)
        return {**collate_latent_actions(sequences), **self.frames.draw(keys)}
