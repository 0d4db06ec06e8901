"""What a latent action model is trained and validated on: episodes split in two, pairs of frames at the models' sizes.

Shapes: C channels, H and W pixels, k stride in frames.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from ...data.corpora.corpus import load_corpus
from ...data.corpora.info import CorpusInfo
from ...data.episodes import Episode, resolve_stride_range, split_episodes
from ...data.samples.frame_pairs import FramePairDataset, first_frame
from ...data.samples.frame_store import DEFAULT_CACHE_BYTES
from ...data.samples.keys import SampleKey
from ...models.latent_actions.dynamics import ForwardDynamicsModel, InverseDynamicsModel
from ..processes import process_state

FRAME_KEYS = ("frames", "next_frames", "idm_frames", "idm_next_frames")


def lam_episodes(
    episodes: Sequence[Episode],
    *,
    stride: int | None = None,
    stride_seconds: float | None = None,
    stride_range: tuple[int, int] | None = None,
    stride_seconds_range: tuple[float, float] | None = None,
    skip_front: float = 0.0,
    held_out_fraction: float = 0.0,
    corpus: str | None = None,
) -> tuple[list[Episode], list[Episode]]:
    """Episodes to train on and episodes to validate on.

    Episodes without a pair of frames stay among those to train on, where [`FramePairDataset`] reports them.

    Args:
        episodes: Episodes of a folder of videos, of `scan_videos`.
        stride: k in frames; or
        stride_seconds: in seconds; or
        stride_range: its smallest and largest value in frames; or
        stride_seconds_range: in seconds.
        skip_front: Fraction of each episode's frames that is cut at its front.
        held_out_fraction: Fraction of the episodes to validate on, in [0, 1), by their ids.
        corpus: Hub id or folder of a corpus: only its episodes are used, and those of its validation split, if it has
            one, are validated on.

    Returns:
        (training, held-out) episodes.

    Raises:
        ValueError: An episode of the corpus has no video, the fraction is out of range or asked for beside a corpus'
            own split, or holds out none or all of the episodes with a pair of frames.
    """
    if corpus is not None:
        by_split = _episodes_of_corpus(corpus, episodes)
        if "validation" in by_split:
            if held_out_fraction:
                raise ValueError(
                    f"{corpus} has a validation split, which is held out; leave out the fraction {held_out_fraction}"
                )
            return by_split["train"], by_split["validation"]
        episodes = by_split["train"]
    strides: dict[str, Any] = {
        "frames": stride,
        "seconds": stride_seconds,
        "frames_range": stride_range,
        "seconds_range": stride_seconds_range,
    }
    long_enough = [
        episode
        for episode in episodes
        if episode.num_frames - first_frame(episode, skip_front) > resolve_stride_range(episode.fps, **strides)[0]
    ]
    # Where there is no pair at all, the data set says so.
    _, held_out = split_episodes(long_enough, held_out_fraction if long_enough else 0.0)
    held_out_ids = {episode.id for episode in held_out}
    return [episode for episode in episodes if episode.id not in held_out_ids], held_out


def _episodes_of_corpus(corpus: str, episodes: Sequence[Episode]) -> dict[str, list[Episode]]:
    by_id = {episode.id: episode for episode in episodes}
    by_split = {}
    for split in CorpusInfo.from_card(corpus).splits:
        ids = list(load_corpus(corpus, split)["id"])
        missing = [name for name in ids if name not in by_id]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(ids)} episodes of {corpus} have no video, for one {missing[0]!r}: "
                "give the folder of videos that the corpus was made from"
            )
        by_split[split] = [by_id[name] for name in ids]
    return by_split


def frame_pairs(
    episodes: Sequence[Episode],
    idm: InverseDynamicsModel,
    fdm: ForwardDynamicsModel,
    *,
    stride: int | None = None,
    stride_seconds: float | None = None,
    stride_range: tuple[int, int] | None = None,
    stride_seconds_range: tuple[float, float] | None = None,
    skip_front: float = 0.0,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> FramePairDataset:
    """All pairs of frames of some episodes at the sizes of both models; see [`FramePairDataset`].

    Args:
        episodes: The episodes.
        idm: Inverse dynamics model.
        fdm: Forward dynamics model.
        stride: k in frames; or
        stride_seconds: in seconds; or
        stride_range: its smallest and largest value in frames, between which it is drawn; or
        stride_seconds_range: in seconds.
        skip_front: Fraction of each episode's frames that is cut at its front.
        cache_bytes: Memory budget of each process for decoded frames, in bytes; 0 always reads from the files.

    Raises:
        ValueError: No episode has a pair.
        VideoError: A video cannot be decoded.
    """
    return FramePairDataset(
        episodes,
        fdm.config.image_size,
        idm_size=idm.config.image_size,
        stride=stride,
        stride_seconds=stride_seconds,
        stride_range=stride_range,
        stride_seconds_range=stride_seconds_range,
        skip_front=skip_front,
        cache_bytes=cache_bytes,
        progress=process_state().is_main_process,
    )


class FramesOnly(Dataset[dict[str, Tensor]]):
    """Drops what says where a pair comes from: the models get frames and nothing else."""

    def __init__(self, pairs: Any):
        self.pairs = pairs
        self.draws_samples: bool = getattr(pairs, "draws_samples", False)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int | SampleKey) -> dict[str, Tensor]:
        pair = self.pairs[index]
        return {key: pair[key] for key in FRAME_KEYS if key in pair}

    def fingerprint(self) -> str | None:
        """That of the pairs; None where a data set of somebody else's has none."""
        return self.pairs.fingerprint() if hasattr(self.pairs, "fingerprint") else None

    def sample_id(self, index: int) -> str:
        """What the pairs call the sample; its number where they call it nothing."""
        return self.pairs.sample_id(index) if hasattr(self.pairs, "sample_id") else f"sample {index}"
