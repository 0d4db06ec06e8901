"""Time steps of the reconstruction loss and their frames."""

from pathlib import Path

import torch
from torch import Tensor

from hilam_hf.data import CorpusInfo, load_corpus, write_latent_action_corpus
from hilam_hf.data.samples.reconstruction import ReconstructionFrames, draw_steps

VALID = {(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_steps_are_drawn_evenly_and_without_replacement_while_they_last() -> None:
    """Sequences of 4, 1 and 3 latent actions have 3, 0 and 2 steps with a next one."""
    seen: list[tuple[int, int]] = []
    for seed in range(200):
        drawn = [tuple(step) for step in draw_steps([4, 1, 3], 3, seeded(seed)).tolist()]
        assert len(set(drawn)) == 3
        seen += drawn
    assert set(seen) == VALID
    # 600 draws of 5 equally likely steps: 120 each, with a deviation of at most 200 * 0.6 * 0.4 = 48 in variance.
    assert all(abs(seen.count(step) - 120) < 5 * 48**0.5 for step in VALID)
    assert draw_steps([4, 1, 3], 3, seeded(7)).equal(draw_steps([4, 1, 3], 3, seeded(7)))


def test_too_few_steps_are_drawn_again_and_none_stay_none() -> None:
    drawn = [tuple(step) for step in draw_steps([4, 1, 3], 10, seeded(0)).tolist()]
    assert all(drawn.count(step) == 2 for step in VALID)
    assert draw_steps([1, 1], 10, seeded(0)).shape == (0, 2)


class NumberedFrames:
    """Frames of one pixel whose three channels are episode, number and 0; keeps what was read."""

    sizes = ((1, 1),)

    def __init__(self) -> None:
        self.num_read = 0

    def read(self, episode: int, indices: list[int]) -> Tensor:
        self.num_read += len(indices)
        frames = torch.tensor([[episode, index, 0] for index in indices], dtype=torch.uint8)
        return frames[..., None, None]


def test_frames_follow_each_rows_own_stride_and_frame_indices(tmp_path: Path) -> None:
    rows = [
        {"id": "slow", "fps": 5.0, "num_frames": 9, "stride": 1, "latent_actions": torch.randn(8, 2)},
        {
            "id": "fast",
            "fps": 30.0,
            "num_frames": 40,
            "stride": 6,
            "frame_indices": [0, 4, 9, 30],
            "latent_actions": torch.randn(4, 2),
        },
    ]
    info = CorpusInfo(model="m", latent_dim=2, stride_seconds=0.2)
    write_latent_action_corpus(tmp_path / "corpus", rows, info=info)
    store = NumberedFrames()
    source = ReconstructionFrames(load_corpus(tmp_path / "corpus"), store, num_steps=5)
    own_frames, strides = [list(range(8)), [0, 4, 9, 30]], [1, 6]
    episodes = [1, 0, 1]
    for seed in range(20):
        drawn = source.draw(episodes, seeded(seed))
        triples = zip(
            drawn["reconstruction_steps"].tolist(),
            drawn["reconstruction_frames"].flatten(1).tolist(),
            drawn["reconstruction_targets"].flatten(1).tolist(),
            strict=True,
        )
        for (sequence, time), frame, target in triples:
            episode = episodes[sequence]
            first = own_frames[episode][time + 1]
            assert frame == [episode, first, 0]
            assert target == [episode, first + strides[episode], 0]
    assert store.num_read == 20 * 5 * 2


def test_without_a_step_the_frames_are_empty(tmp_path: Path) -> None:
    row = {"id": "a", "fps": 5.0, "num_frames": 3, "latent_actions": torch.randn(1, 2)}
    write_latent_action_corpus(tmp_path / "corpus", [row], info=CorpusInfo(model="m", latent_dim=2, stride=2))
    drawn = ReconstructionFrames(load_corpus(tmp_path / "corpus"), NumberedFrames(), 4).draw([0], seeded(0))
    assert {name: tuple(each.shape) for name, each in drawn.items()} == {
        "reconstruction_steps": (0, 2),
        "reconstruction_frames": (0, 3, 1, 1),
        "reconstruction_targets": (0, 3, 1, 1),
    }
