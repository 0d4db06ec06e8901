"""Frames of robot demonstrations at the size that a policy takes, from memory where they fit.

Shapes: T frames, N frames asked for, C = 3 channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from tqdm import tqdm

from ...video import image_size, resize_frames
from ..demonstrations.demonstration import RobotEpisode
from .frame_store import DEFAULT_CACHE_BYTES


class RobotFrameStore:
    """Random access to the resized frames of one camera, as `FrameStore` gives those of videos.

    Args:
        episodes: The episodes.
        camera: The camera.
        size: Edge length or (height, width) of the frames.
        cache_bytes: Memory budget in bytes; when all frames fit they are read once, here, into one tensor that
            DataLoader workers share. 0 always reads from the files.
        progress: Show a progress bar while reading.

    Attributes:
        in_memory: Whether frames come from memory.
        num_bytes: What all frames take.

    Raises:
        ValueError: An episode has no such camera, or its frames are damaged.
    """

    def __init__(
        self,
        episodes: Sequence[RobotEpisode],
        camera: str,
        size: int | tuple[int, int],
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        progress: bool = True,
    ) -> None:
        self.episodes = list(episodes)
        self.camera = camera
        self.size = image_size(size)
        self._starts = [0, *accumulate(episode.num_frames for episode in self.episodes)]
        self.num_bytes = self._starts[-1] * 3 * self.size[0] * self.size[1]
        self._cache: Tensor | None = None
        if self.num_bytes <= cache_bytes:
            self._cache = self._read_all(progress)

    @property
    def in_memory(self) -> bool:
        return self._cache is not None

    def read(self, episode: int, indices: Iterable[int]) -> Tensor:
        """Frames of one episode.

        Args:
            episode: Row in `episodes`.
            indices: Frame indices in [0, T), in any order.

        Returns:
            uint8 (N, C, H, W); a copy, safe to change.

        Raises:
            IndexError: A frame index is outside [0, T).
        """
        wanted = list(indices)
        if self._cache is None:
            return self._resized(self.episodes[episode], wanted)
        length = self.episodes[episode].num_frames
        wrong = next((index for index in wanted if not 0 <= index < length), None)
        if wrong is not None:
            raise IndexError(f"episode {self.episodes[episode].id!r}: frame index {wrong} is outside 0..{length - 1}")
        return self._cache[torch.tensor(wanted, dtype=torch.long) + self._starts[episode]]

    def _read_all(self, progress: bool) -> Tensor:
        cache = torch.empty((self._starts[-1], 3, *self.size), dtype=torch.uint8)
        for number, episode in enumerate(tqdm(self.episodes, desc=f"Reading {self.camera}", disable=not progress)):
            cache[self._starts[number] : self._starts[number + 1]] = self._resized(episode)
        return cache

    def _resized(self, episode: RobotEpisode, indices: Sequence[int] | None = None) -> Tensor:
        return resize_frames(episode.frames(self.camera, indices), self.size)
