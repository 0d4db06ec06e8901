"""Samples that policies learn from: labels of a skill corpus (pretraining) or recorded actions (fine-tuning).

Shapes: N latent actions or steps of an episode, C = 3 channels, H height, W width, P width of proprioception,
D of a latent action, D_s of a skill, A of an action, Q steps of an action chunk.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset as Table
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ...fingerprint import data_fingerprint
from ..corpora.corpus import latent_actions_array, unpack_boundaries, vectors_array
from ..corpora.info import CorpusInfo
from ..demonstrations.loader import Demonstrations
from ..episodes import Episode, split_rows
from .frame_store import DEFAULT_CACHE_BYTES, CameraSource, FrameStore, VideoSource


class Frames(Protocol):
    """Where frames of the episodes come from: a `FrameStore`, or what stands for one."""

    def read(self, episode: int, indices: Iterable[int]) -> Tensor:
        """uint8 (N, C, H, W) of one episode."""

    def select(self, rows: Sequence[int]) -> Frames:
        """Those of some of the episodes."""

    def fingerprint(self) -> str:
        """Says which frames these are, the same on every machine and in any folder."""


@dataclass(frozen=True)
class PolicyEpisode:
    """Labels of one episode; what a data set does not have is None.

    Attributes:
        id: Id of the episode.
        language: Instruction in words; "" where there is none.
        frame_indices: int64 (N,), the video frame of each sample.
        agent_pos: float32 (N, P).
        actions: float32 (N, A).
        latent_actions: float32 (N, D).
        skills: float32 (S_s, D_s), one a segment.
        segments: int64 (N,), row in `skills` of each sample (k_t - 1 of eq. 5).
    """

    id: str
    language: str
    frame_indices: Tensor
    agent_pos: Tensor | None = None
    actions: Tensor | None = None
    latent_actions: Tensor | None = None
    skills: Tensor | None = None
    segments: Tensor | None = None

    def fingerprint(self) -> str:
        """Says what it holds: 16 hexadecimal digits, the same on every machine."""
        labels = (self.agent_pos, self.actions, self.latent_actions, self.skills, self.segments)
        return data_fingerprint(self.id, self.language, self.frame_indices, *labels)


class PolicyDataset(Dataset[dict[str, Any]]):
    """One sample an observation.

    A sample is `{"pixels": {camera: uint8 (C, H, W)}, "language": str, "id": of the episode, "episode": row in
    `episodes`, "index": row within the episode}`, and in pretraining also `"latent_action"` (D,) and `"skill"` (D_s,);
    in fine-tuning `"agent_pos"` (P,), `"actions"` (Q, A) and `"action_mask"` bool (Q,). Past the end of an episode the
    last action is repeated and the mask is False. Batch samples with `collate_policy`. Use `from_skill_corpus` or
    `from_demonstrations`.

    Args:
        episodes: Labels.
        store: Frames of the same episodes, in the same order; of several cameras, by name.
        camera: Name of the only camera in `pixels`. Names must be those that the policy is configured for.
        chunk_size: Q, for episodes with actions.

    Attributes:
        stores: Frames by camera.
        instructions: The different instructions, sorted.
    """

    def __init__(
        self,
        episodes: Sequence[PolicyEpisode],
        store: Frames | Mapping[str, Frames],
        *,
        camera: str = "pixels",
        chunk_size: int = 1,
    ) -> None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size: got {chunk_size}, expected at least 1")
        self.episodes = list(episodes)
        self.stores = dict(store) if isinstance(store, Mapping) else {camera: store}
        self.chunk_size = chunk_size
        self._ends = np.cumsum([len(episode.frame_indices) for episode in self.episodes]).tolist()
        self.instructions = sorted({episode.language for episode in self.episodes})

    @classmethod
    def from_skill_corpus(
        cls,
        corpus: Table,
        episodes: Sequence[Episode],
        image_size: int | tuple[int, int],
        stage: int = 2,
        *,
        info: CorpusInfo | None = None,
        camera: str = "pixels",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        progress: bool = True,
    ) -> PolicyDataset:
        """Samples labelled with latent actions and skills.

        Args:
            corpus: A skill corpus.
            episodes: Episodes of the same ids, for their frames (of `scan_videos`); others may be among them.
            image_size: Edge length or (height, width) of the frames.
            stage: Stage s whose skills are the labels.
            info: What the corpus' card says; needed where latent actions are codes, which become their vectors.
            camera: Name of the camera in `pixels`.
            cache_bytes: Memory budget for decoded frames, in bytes.
            progress: Show a progress bar while decoding.

        Raises:
            ValueError: An episode of the corpus has no video, or the corpus no such stage.
            VideoError: A video cannot be decoded.
        """
        by_id = {episode.id: episode for episode in episodes}
        ids = list(corpus["id"])
        missing = [name for name in ids if name not in by_id]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(ids)} episodes of the corpus have no video, for one {missing[0]!r}: "
                "give the folder of videos that the corpus was made from"
            )
        for name, labelled_frames in zip(ids, corpus["num_frames"], strict=True):
            if labelled_frames != by_id[name].num_frames:
                raise ValueError(
                    f"episode {name!r} has {labelled_frames} frames in the corpus, its video {by_id[name].num_frames}: "
                    "give the folder of videos that the corpus was made from"
                )
        labelled = [_labelled_episode(corpus, row, stage, info) for row in range(len(corpus))]
        videos = [VideoSource(by_id[name].path, by_id[name].num_frames) for name in ids]
        store = FrameStore(videos, image_size, cache_bytes=cache_bytes, progress=progress)
        return cls(labelled, store, camera=camera)

    @classmethod
    def from_demonstrations(
        cls,
        demonstrations: Demonstrations,
        image_size: int | tuple[int, int],
        chunk_size: int,
        *,
        camera_names: Mapping[str, str] | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        progress: bool = True,
    ) -> PolicyDataset:
        """Samples labelled with recorded actions, with every camera that the demonstrations were loaded with.

        Args:
            demonstrations: Of `load_demonstrations`.
            image_size: Edge length or (height, width) of the frames.
            chunk_size: Q, actions a sample.
            camera_names: Names in `pixels` of cameras that the policy knows by another name.
            cache_bytes: Memory budget for frames of all cameras, in bytes.
            progress: Show a progress bar while reading.

        Raises:
            ValueError: `chunk_size` is below 1, a camera to rename does not exist, or frames are damaged.
            FileNotFoundError: A file is missing.

        Example:
            >>> PolicyDataset.from_demonstrations(load_demonstrations("recordings"), image_size=64, chunk_size=10)
        """
        names = {camera: camera for camera in demonstrations.cameras} | dict(camera_names or {})
        if len(names) != len(demonstrations.cameras) or len(set(names.values())) != len(names):
            raise ValueError(
                f"camera_names: got {camera_names}, expected different names for some of the cameras "
                f"{', '.join(demonstrations.cameras)}"
            )
        episodes = [
            PolicyEpisode(
                id=episode.id,
                language=episode.language,
                frame_indices=torch.arange(episode.num_frames),
                agent_pos=torch.from_numpy(episode.agent_pos),
                actions=torch.from_numpy(episode.actions),
            )
            for episode in demonstrations
        ]
        share = cache_bytes // len(names)
        stores = {
            name: FrameStore(
                [CameraSource(each, camera) for each in demonstrations],
                image_size,
                cache_bytes=share,
                progress=progress,
            )
            for camera, name in names.items()
        }
        return cls(episodes, stores, chunk_size=chunk_size)

    @property
    def episode_ids(self) -> list[str]:
        """Ids of the episodes, in order."""
        return [episode.id for episode in self.episodes]

    def select(self, rows: Sequence[int]) -> PolicyDataset:
        """The samples of some of the episodes; frames in memory are shared.

        Args:
            rows: Rows in `episodes`, in any order.
        """
        stores = {camera: store.select(rows) for camera, store in self.stores.items()}
        return PolicyDataset([self.episodes[row] for row in rows], stores, chunk_size=self.chunk_size)

    def split(self, held_out_fraction: float) -> tuple[PolicyDataset, PolicyDataset]:
        """Holds whole episodes out by their ids, see `held_out_rows`; frames in memory are shared.

        Returns:
            (training, held-out) samples.

        Raises:
            ValueError: The fraction is out of range, or it is above 0 and holds out no episode or all of them.
        """
        training, held_out = split_rows(self.episode_ids, held_out_fraction)
        return self.select(training), self.select(held_out)

    def fingerprint(self) -> str:
        """Says which samples these are: 16 hexadecimal digits, the same on every machine and in any folder.

        Ids, instructions, labels, chunk size, names of cameras, sizes and files of the frames decide it, in their
        order. Of the files sizes and both ends are read.

        Raises:
            OSError: A file cannot be read.
        """
        stores = [[camera, store.fingerprint()] for camera, store in self.stores.items()]
        return data_fingerprint(self.chunk_size, stores, [episode.fingerprint() for episode in self.episodes])

    def sample_id(self, index: int) -> str:
        """Names a sample, such as "drawer-open/0003, frame 12".

        Raises:
            IndexError: There is no such sample.
        """
        number, row = self._place(index)
        episode = self.episodes[number]
        return f"{episode.id}, frame {int(episode.frame_indices[row])}"

    @property
    def cameras(self) -> list[str]:
        """Names in `pixels`, in order."""
        return list(self.stores)

    @property
    def store(self) -> Frames:
        """Frames of the first camera."""
        return next(iter(self.stores.values()))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, item: int) -> dict[str, Any]:
        number, index = self._place(item)
        episode = self.episodes[number]
        frame = int(episode.frame_indices[index])
        pixels = {camera: store.read(number, [frame])[0] for camera, store in self.stores.items()}
        sample: dict[str, Any] = {"pixels": pixels, "language": episode.language}
        sample |= {"id": episode.id, "episode": number, "index": index}
        if episode.agent_pos is not None:
            sample["agent_pos"] = episode.agent_pos[index]
        if episode.latent_actions is not None:
            sample["latent_action"] = episode.latent_actions[index]
        if episode.skills is not None and episode.segments is not None:
            sample["skill"] = episode.skills[episode.segments[index]]
        if episode.actions is not None:
            sample["actions"], sample["action_mask"] = self._chunk(episode.actions, index)
        return sample

    def _place(self, item: int) -> tuple[int, int]:
        """Row of a sample's episode, and row within it."""
        if not 0 <= item < len(self):
            raise IndexError(f"item {item} is outside 0..{len(self) - 1}")
        number = bisect.bisect_right(self._ends, item)
        return number, item - (self._ends[number - 1] if number else 0)

    def _chunk(self, actions: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Q actions from `index` on, and which of them exist."""
        steps = torch.arange(index, index + self.chunk_size)
        return actions[steps.clamp(max=len(actions) - 1)], steps < len(actions)


def _labelled_episode(corpus: Table, row: int, stage: int, info: CorpusInfo | None) -> PolicyEpisode:
    columns = ["id", "language", "num_latents", "frame_indices", f"stage{stage}_boundaries"]
    if columns[-1] not in corpus.column_names:
        raise ValueError(f"stage {stage}: not in the corpus; its columns are {', '.join(corpus.column_names)}")
    values = corpus.select_columns(columns)[row]
    segments = np.cumsum(unpack_boundaries(values, stage)) - 1
    skills = vectors_array(corpus, f"stage{stage}_skills", row)
    if segments[-1] + 1 != len(skills):
        raise ValueError(
            f"episode {values['id']!r}: stage {stage} has {segments[-1] + 1} segments but {len(skills)} skills"
        )
    return PolicyEpisode(
        id=values["id"],
        language=values["language"] or "",
        frame_indices=torch.tensor(values["frame_indices"], dtype=torch.long),
        latent_actions=torch.tensor(_latent_vectors(latent_actions_array(corpus, row), info)),
        skills=torch.tensor(skills),
        segments=torch.from_numpy(segments),
    )


def _latent_vectors(latents: NDArray[Any], info: CorpusInfo | None) -> NDArray[np.float32]:
    if info is not None:
        return info.latent_vectors(latents)
    if not np.issubdtype(latents.dtype, np.floating):
        raise ValueError("the corpus' latent actions are codes: pass info, whose codebook has their vectors")
    return latents
