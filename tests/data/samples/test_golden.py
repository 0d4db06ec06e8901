"""The samples of fine-tuning against every `baku_dataset` case of the golden folder (env HILAM_GOLDENS).

Published samples are normalised and padded with zeros beyond an episode's end; ours are in data units, and padding is
marked by `action_mask`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from hilam_hf.data.samples.policy import PolicyDataset, PolicyEpisode
from tests.models.goldens import Case, Tensors, case_names, golden_statistic, load_case

PUBLISHED_NORMALISATION_EPS = 1e-5
PROPRIOCEPTION = ("joint_states", "gripper_states")


class StoredFrames:
    """Frames of every episode, in memory."""

    def __init__(self, episodes: list[Tensor]) -> None:
        self.episodes = [frames.permute(0, 3, 1, 2) for frames in episodes]

    def read(self, episode: int, indices: Iterable[int]) -> Tensor:
        return self.episodes[episode][list(indices)]


def dataset_of(case: Case, tensors: Tensors) -> PolicyDataset:
    names = sorted({key.split("/")[1] for key in tensors if key.startswith("inputs/episode")})
    episodes = {int(name.removeprefix("episode")): f"inputs/{name}/" for name in names}
    prefixes = [episodes[number] for number in range(len(episodes))]
    cameras = [
        key.removeprefix(prefixes[0])
        for key, value in tensors.items()
        if key.startswith(prefixes[0]) and value.dtype == torch.uint8
    ]
    labels = [
        PolicyEpisode(
            id=prefix,
            language="",
            frame_indices=torch.arange(len(tensors[f"{prefix}actions"])),
            agent_pos=torch.cat([tensors[prefix + part] for part in PROPRIOCEPTION], dim=-1),
            actions=tensors[f"{prefix}actions"],
        )
        for prefix in prefixes
    ]
    stores = {camera: StoredFrames([tensors[prefix + camera] for prefix in prefixes]) for camera in cameras}
    return PolicyDataset(labels, stores, chunk_size=case["chunk"])


def normalised(values: Tensor, case: Case, tensors: Tensors, quantity: str) -> Tensor:
    low, high = (golden_statistic(case["stats"], tensors, f"{quantity}_{bound}") for bound in ("min", "max"))
    return (values - low) / (high - low + PUBLISHED_NORMALISATION_EPS)


@pytest.mark.parametrize("name", case_names("baku_dataset"))
def test_golden_samples(name: str) -> None:
    case, tensors = load_case(name)
    dataset = dataset_of(case, tensors)
    for number, (episode, start) in enumerate(case["picks"]):
        first = sum(len(earlier.frame_indices) for earlier in dataset.episodes[:episode]) + start
        for step in range(case["history_len"]):
            prefix = f"outputs/{number}/"
            published = {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}
            assert torch.equal(published.pop("task_emb"), tensors["inputs/task_emb"])
            sample = dataset[first + step]
            assert (sample["episode"], sample["index"]) == (episode, start + step)
            compare(sample, {key: value[step] for key, value in published.items()}, case, tensors)


def compare(sample: dict[str, Any], published: Tensors, case: Case, tensors: Tensors) -> None:
    mask = sample["action_mask"]
    padded = torch.where(mask[:, None], sample["actions"], 0)
    results = {
        "proprioceptive": normalised(sample["agent_pos"], case, tensors, "proprio"),
        "actions": normalised(padded, case, tensors, "action"),
        **{camera: frame.float() / 255 for camera, frame in sample["pixels"].items()},
    }
    assert results.keys() == published.keys()
    for key, value in results.items():
        torch.testing.assert_close(value.double(), published[key].double(), rtol=1e-6, atol=1e-6)
    episode_length = len(tensors[f"inputs/episode{sample['episode']}/actions"])
    assert mask.tolist() == [sample["index"] + step < episode_length for step in range(case["chunk"])]
