"""Frame pairs, which latent action models learn from, and whole episodes of frames.

Shapes: T frames, C = 3 channels, H height, W width; k the stride from one frame of a pair to the other.
"""

from __future__ import annotations

import bisect
import copy
import itertools
import logging
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ...fingerprint import data_fingerprint
from ...video import VideoReader, image_size
from ..episodes import Episode, held_out_rows, resolve_stride_range
from .frame_store import DEFAULT_CACHE_BYTES, FrameStore, VideoSource
from .keys import SampleKey

logger = logging.getLogger(__name__)


class _FramePair(TypedDict):
    frames: Tensor
    next_frames: Tensor
    episode: int
    index: int


class FramePair(_FramePair, total=False):
    """One item of `FramePairDataset`: frame t and frame t + k of an episode, where asked for at a second size, too."""

    idm_frames: Tensor
    idm_next_frames: Tensor


class FramePairDataset(Dataset[FramePair]):
    """All pairs (frame t, frame t + k) of some episodes, or one for each frame t where k is drawn from a range.

    An item is `{"frames": uint8 (C, H, W), "next_frames": uint8 (C, H, W), "episode": row in `episodes`, "index": t}`.
    Where the inverse dynamics model takes another size (`idm_size`), it also has `"idm_frames"` and `"idm_next_frames"`
    at that size, resized from the same decoded frames. Items are ordered by episode, then by t. Frames are kept in
    memory when they fit into `cache_bytes`, and decoded as they are asked for otherwise (by each DataLoader worker for
    itself).

    With a range, items are asked for by a `SampleKey`, whose seed draws k, each value that ends within the episode
    equally likely; an index alone stands for a key with itself as the seed, so it always gives the same k. UniSkill
    draws k so, from 10 to 30 frames unless the data set has its own range. It draws k before t, so that frames near the
    end of an episode begin fewer pairs than here.

    Args:
        episodes: Episodes, of any sizes and rates.
        size: Edge length or (height, width) that frames are resized to (squashed, see `resize_frames`).
        idm_size: The inverse dynamics model's size where it differs from `size`, which is the forward model's.
        stride: k in frames, the same for all episodes; or
        stride_seconds: k in seconds, which gives each episode its own k from its rate; or
        stride_range: the smallest and the largest k in frames; or
        stride_seconds_range: the same in seconds.
        skip_front: Fraction of each episode's frames, in [0, 1), that is cut at its front: no pair begins there.
            UniSkill cuts 0.4 of the clips of Something-Something V2.
        cache_bytes: Memory budget for decoded frames, at both sizes, in bytes; 0 always reads from the files.
        num_workers: Threads that decode into memory.
        progress: Show a progress bar while decoding into memory.

    Attributes:
        stride_ranges: Smallest and largest k of each episode, in frames.
        draws_samples: Whether k is drawn, so that items are asked for by `SampleKey`.
        without_pairs: Episodes that are too short for a pair, which give none; they are also logged as a warning.

    Raises:
        ValueError: No episode has a pair, or an option is out of range.
        VideoError: A video cannot be decoded.

    Example:
        >>> pairs = FramePairDataset(scan_videos("clips").episodes, size=64, stride_seconds=0.5)
        >>> pairs[0]["frames"].shape
        torch.Size([3, 64, 64])
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        size: int | tuple[int, int],
        *,
        idm_size: int | tuple[int, int] | None = None,
        stride: int | None = None,
        stride_seconds: float | None = None,
        stride_range: tuple[int, int] | None = None,
        stride_seconds_range: tuple[float, float] | None = None,
        skip_front: float = 0.0,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        num_workers: int = 2,
        progress: bool = True,
    ) -> None:
        self.draws_samples = stride_range is not None or stride_seconds_range is not None
        self.skip_front = skip_front
        ranges = [
            resolve_stride_range(
                episode.fps,
                frames=stride,
                seconds=stride_seconds,
                frames_range=stride_range,
                seconds_range=stride_seconds_range,
            )
            for episode in episodes
        ]
        self._set_episodes(episodes, ranges)
        self._report_short()
        self.store = FrameStore(
            [VideoSource(episode.path, episode.num_frames) for episode in self.episodes],
            size,
            other_sizes=[] if idm_size is None or image_size(idm_size) == image_size(size) else [idm_size],
            cache_bytes=cache_bytes,
            num_workers=num_workers,
            progress=progress,
        )

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, key: int | SampleKey) -> FramePair:
        row, seed = key if isinstance(key, SampleKey) else (key, key)
        episode, index = self._place(row)
        k = self._stride(episode, index, seed)
        frames, *idm_frames = self.store.read_sizes(episode, [index, index + k])
        pair: FramePair = {"frames": frames[0], "next_frames": frames[1], "episode": episode, "index": index}
        for first, second in idm_frames:
            pair["idm_frames"], pair["idm_next_frames"] = first, second
        return pair

    @property
    def episode_ids(self) -> list[str]:
        """Ids of the episodes, in order."""
        return [episode.id for episode in self.episodes]

    def select(self, rows: Sequence[int]) -> FramePairDataset:
        """The pairs of some of the episodes; frames in memory are shared.

        Args:
            rows: Rows in `episodes`, in any order.
        """
        chosen = copy.copy(self)
        chosen._set_episodes([self.episodes[row] for row in rows], [self.stride_ranges[row] for row in rows])
        chosen.store = self.store.select(rows)
        return chosen

    def split(self, held_out_fraction: float) -> tuple[FramePairDataset, FramePairDataset]:
        """Holds whole episodes out by their ids, see `held_out_rows`; frames in memory are shared.

        Episodes without a pair are trained on, where they do no harm.

        Returns:
            (training, held-out) pairs.

        Raises:
            ValueError: The fraction is out of range, or it is above 0 and holds out none or all of the episodes that
                have a pair.
        """
        with_pairs = [row for row, count in enumerate(self._counts) if count]
        measured = held_out_rows([self.episodes[row].id for row in with_pairs], held_out_fraction)
        held_out = [with_pairs[row] for row in measured]
        return self.select(sorted(set(range(len(self.episodes))) - set(held_out))), self.select(held_out)

    def fingerprint(self) -> str:
        """Says which pairs these are: 16 hexadecimal digits, the same on every machine and in any folder.

        Ids, lengths, rates, strides, sizes and files decide it, in the order of the episodes. Of the files sizes and
        both ends are read.

        Raises:
            OSError: A file cannot be read.
        """
        episodes = [
            [episode.id, episode.num_frames, episode.fps, *strides]
            for episode, strides in zip(self.episodes, self.stride_ranges, strict=True)
        ]
        return data_fingerprint(episodes, self.draws_samples, self.skip_front, self.store.fingerprint())

    def sample_id(self, index: int) -> str:
        """Names a pair by its first frame, such as "drawer-open/0003, frame 12".

        Raises:
            IndexError: There is no such pair.
        """
        episode, frame = self._place(index)
        return f"{self.episodes[episode].id}, frame {frame}"

    def _set_episodes(self, episodes: Sequence[Episode], stride_ranges: Sequence[tuple[int, int]]) -> None:
        self.episodes = list(episodes)
        self.stride_ranges = list(stride_ranges)
        self._first = [first_frame(episode, self.skip_front) for episode in self.episodes]
        self._counts = [
            max(0, episode.num_frames - first - k)
            for episode, first, (k, _) in zip(self.episodes, self._first, self.stride_ranges, strict=True)
        ]
        self._ends = list(itertools.accumulate(self._counts))
        self.without_pairs = [episode for episode, count in zip(self.episodes, self._counts, strict=True) if not count]

    def _place(self, row: int) -> tuple[int, int]:
        """Row of a pair's episode, and t."""
        if not 0 <= row < len(self):
            raise IndexError(f"item {row} is outside 0..{len(self) - 1}")
        episode = bisect.bisect_right(self._ends, row)
        return episode, self._first[episode] + row - (self._ends[episode - 1] if episode else 0)

    def _stride(self, episode: int, index: int, seed: int) -> int:
        """k of the pair that begins at a frame."""
        low, high = self.stride_ranges[episode]
        high = min(high, self.episodes[episode].num_frames - 1 - index)
        # NumPy mixes the seed, so that the neighbouring seeds of a batch give unrelated numbers.
        return low if low == high else int(np.random.default_rng(seed).integers(low, high, endpoint=True))

    def _report_short(self) -> None:
        if not len(self):
            smallest = max((k for k, _ in self.stride_ranges), default=0)
            behind = f" behind the first {self.skip_front:.0%}" if self.skip_front else ""
            raise ValueError(
                f"none of the {len(self.episodes)} episodes has a pair of frames {smallest} frames apart{behind}: "
                "use a smaller stride or longer videos"
            )
        if self.without_pairs:
            logger.warning(
                "%d of %d episodes are too short for a pair of frames at this stride and are left out: %s",
                len(self.without_pairs),
                len(self.episodes),
                ", ".join(episode.id for episode in self.without_pairs[:10]),
            )


def first_frame(episode: Episode, skip_front: float) -> int:
    """The first frame of an episode that is used where a fraction is cut at its front.

    Raises:
        ValueError: The fraction is not in [0, 1).
    """
    if not 0 <= skip_front < 1:
        raise ValueError(f"skip_front: got {skip_front}, expected a fraction in [0, 1), such as 0.4")
    return int(skip_front * episode.num_frames)


def load_episode_frames(episode: Episode, size: int | tuple[int, int] | None = None) -> Tensor:
    """All frames of an episode.

    Args:
        episode: The episode.
        size: Edge length or (height, width) that frames are resized to; None keeps their own size.

    Returns:
        uint8 (T, C, H, W).

    Raises:
        VideoError: A frame cannot be decoded.
    """
    return VideoReader(episode.path, size).read()
