"""Frame pairs, which latent action models learn from, and whole episodes of frames.

Shapes: T frames, C = 3 channels, H height, W width; k the stride from one frame of a pair to the other.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Sequence
from typing import TypedDict

from torch import Tensor
from torch.utils.data import Dataset

from ...video import VideoReader, image_size
from ..episodes import Episode, resolve_stride
from .frame_store import DEFAULT_CACHE_BYTES, FrameStore, VideoSource

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
    """All pairs (frame t, frame t + k) of some episodes.

    An item is `{"frames": uint8 (C, H, W), "next_frames": uint8 (C, H, W), "episode": row in `episodes`, "index": t}`.
    Where the inverse dynamics model takes another size (`idm_size`), it also has `"idm_frames"` and `"idm_next_frames"`
    at that size, resized from the same decoded frames. Items are ordered by episode, then by t. Frames are kept in
    memory when they fit into `cache_bytes`, and decoded as they are asked for otherwise (by each DataLoader worker for
    itself).

    Args:
        episodes: Episodes, of any sizes and rates.
        size: Edge length or (height, width) that frames are resized to (squashed, see `resize_frames`).
        idm_size: The inverse dynamics model's size where it differs from `size`, which is the forward model's.
        stride: k in frames, the same for all episodes; or
        stride_seconds: k in seconds, which gives each episode its own k from its rate.
        cache_bytes: Memory budget for decoded frames, at both sizes, in bytes; 0 always reads from the files.
        num_workers: Threads that decode into memory.
        progress: Show a progress bar while decoding into memory.

    Attributes:
        strides: k of each episode, in frames.
        without_pairs: Episodes with at most k frames, which give no pair; they are also logged as a warning.

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
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        num_workers: int = 2,
        progress: bool = True,
    ) -> None:
        self.episodes = list(episodes)
        self.strides = [resolve_stride(e.fps, frames=stride, seconds=stride_seconds) for e in self.episodes]
        self._ends: list[int] = []
        total = 0
        for episode, k in zip(self.episodes, self.strides, strict=True):
            total += max(0, episode.num_frames - k)
            self._ends.append(total)
        self.without_pairs = [e for e, k in zip(self.episodes, self.strides, strict=True) if e.num_frames <= k]
        self._report_short(total)
        self.store = FrameStore(
            [VideoSource(episode.path, episode.num_frames) for episode in self.episodes],
            size,
            other_sizes=[] if idm_size is None or image_size(idm_size) == image_size(size) else [idm_size],
            cache_bytes=cache_bytes,
            num_workers=num_workers,
            progress=progress,
        )

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, item: int) -> FramePair:
        if not 0 <= item < len(self):
            raise IndexError(f"item {item} is outside 0..{len(self) - 1}")
        episode = bisect.bisect_right(self._ends, item)
        index = item - (self._ends[episode - 1] if episode else 0)
        frames, *idm_frames = self.store.read_sizes(episode, [index, index + self.strides[episode]])
        pair: FramePair = {"frames": frames[0], "next_frames": frames[1], "episode": episode, "index": index}
        for first, second in idm_frames:
            pair["idm_frames"], pair["idm_next_frames"] = first, second
        return pair

    def _report_short(self, num_pairs: int) -> None:
        if num_pairs == 0:
            raise ValueError(
                f"none of the {len(self.episodes)} episodes has a pair of frames "
                f"{max(self.strides, default=0)} frames apart: use a smaller stride or longer videos"
            )
        if self.without_pairs:
            logger.warning(
                "%d of %d episodes are too short for a pair of frames at this stride and are left out: %s",
                len(self.without_pairs),
                len(self.episodes),
                ", ".join(episode.id for episode in self.without_pairs[:10]),
            )


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
