"""Models are given the same pictures, to the bit, where they learn and where they are used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hilam_hf.data import FramePairDataset, PolicyDataset, scan_videos
from hilam_hf.data.corpora.extraction import encode_episodes
from hilam_hf.data.samples.frame_store import FrameStore, VideoSource
from hilam_hf.data.samples.policy import PolicyEpisode
from hilam_hf.models.hierarchical import HierarchicalPolicy
from hilam_hf.models.latent_actions import RegressionFDMConfig
from hilam_hf.models.latent_actions.modeling_regression_fdm import RegressionFDM
from hilam_hf.training.lam.train import LatentActionModel
from hilam_hf.training.policy.collator import PolicyCollator, encode_instructions
from hilam_hf.video import VideoReader, write_video
from tests.models.hierarchical.test_hierarchical import (
    ACTION_DIM,
    AGENT_POS_DIM,
    CHUNK,
    pretraining_policy,
)
from tests.models.hilam.test_hilam import make_model
from tests.models.hilam.test_streaming import tiny_idm_config

LENGTH, STRIDE = 9, 3


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Noise, larger than any model's pictures, whose resized values lie anywhere between two levels."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (LENGTH, 3, 48, 64), dtype=torch.uint8, generator=generator)
    write_video(tmp_path / "videos" / "noise.mp4", frames, fps=10)
    return tmp_path / "videos" / "noise.mp4"


def noted(module: nn.Module) -> list[Tensor]:
    """What a module is called with, from now on."""
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    return seen


def acting_policy() -> HierarchicalPolicy:
    policy = pretraining_policy()
    policy.prepare_for_finetuning(action_dim=ACTION_DIM, chunk_size=CHUNK, agent_pos_dim=AGENT_POS_DIM)
    policy.set_statistics(
        actions=(-torch.ones(ACTION_DIM), torch.ones(ACTION_DIM)),
        agent_pos=(torch.zeros(AGENT_POS_DIM), torch.ones(AGENT_POS_DIM)),
    )
    return policy.eval()


def test_a_policy_acts_on_the_pictures_that_it_learns_from(video: Path) -> None:
    policy = acting_policy()
    episode = PolicyEpisode(
        id="noise",
        language="open it",
        frame_indices=torch.arange(LENGTH),
        agent_pos=torch.zeros(LENGTH, AGENT_POS_DIM),
        actions=torch.zeros(LENGTH, ACTION_DIM),
    )
    store = FrameStore([VideoSource(str(video), LENGTH)], policy.config.low_config.image_size, progress=False)
    dataset = PolicyDataset([episode], store, camera="front", chunk_size=CHUNK)
    collate = PolicyCollator(encode_instructions(policy, dataset))
    seen = [noted(level.vision_encoders["shared"]) for level in (policy.high_level, policy.low_level)]
    with torch.no_grad():
        policy(**collate([dataset[3], dataset[7]]))
    learnt_from = [frames.pop() for frames in seen]

    full = VideoReader(video).read([3, 7]).permute(0, 2, 3, 1).numpy()
    observation = {"pixels": {"front": full}, "agent_pos": torch.zeros(2, AGENT_POS_DIM).numpy(), "task": "open it"}
    policy.select_action(observation)
    for learnt, acted_on in zip(learnt_from, seen, strict=True):
        assert learnt.shape == (2, 3, 32, 32) and 0.3 < learnt.mean() < 0.7
        assert torch.equal(acted_on[0], learnt)


def inputs_of(idm: Any, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The frames that an inverse dynamics model takes features of, from now on."""
    seen: list[Tensor] = []
    extract = idm.extract_features

    def noting(frames: Tensor) -> Tensor:
        seen.append(frames.detach().clone())
        return extract(frames)

    monkeypatch.setattr(idm, "extract_features", noting)
    return seen


def taken(seen: list[Tensor]) -> Tensor:
    """All frames noted so far, which are forgotten."""
    frames = torch.cat(seen)
    seen.clear()
    return frames


def training_frames(pairs: FramePairDataset, seen: list[Tensor], model: LatentActionModel) -> Tensor:
    """The frames 0..T - 1 as training gives them, from the pairs of a whole video."""
    columns: Sequence[str] = ("frames", "next_frames", "idm_frames", "idm_next_frames")
    items = [pairs[index] for index in range(len(pairs))]
    batch = {name: torch.stack([item[name] for item in items]) for name in columns if name in items[0]}
    model(**batch)
    first, second = taken(seen).chunk(2)
    assert torch.equal(first[STRIDE:], second[:-STRIDE])
    return torch.cat([first, second[-STRIDE:]])


def test_an_idm_is_given_the_same_frames_by_training_extraction_and_streaming(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(idm_config=tiny_idm_config(), stride=STRIDE)
    idm, size = model.idm, model.idm.config.image_size
    fdm = RegressionFDM(RegressionFDMConfig(image_size=24, latent_dim=idm.config.latent_dim))
    episodes = scan_videos(video.parent, progress=False).episodes
    seen = inputs_of(idm, monkeypatch)

    pairs = FramePairDataset(episodes, 24, idm_size=size, stride=STRIDE, progress=False)
    expected = training_frames(pairs, seen, LatentActionModel(idm, fdm))
    assert expected.shape == (LENGTH, 3, size, size)
    # Eight-bit levels, of which the video has many.
    levels = expected.double() * 255
    assert (levels - levels.round()).abs().max() < 1e-4 and levels.round().unique().numel() > 50

    list(encode_episodes(idm, episodes, [STRIDE], 4))
    assert torch.equal(taken(seen), expected)
    model.extract_skills(video)
    assert torch.equal(taken(seen), expected)
    stream = model.stream()
    for frame in VideoReader(video).read():
        stream.push(frame)
    assert torch.equal(taken(seen), expected)
