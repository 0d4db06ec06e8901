"""Time steps of the reconstruction loss and their frames."""

from pathlib import Path

import torch
from torch import Tensor

from hilam_hf.data import CorpusInfo, load_corpus, write_latent_action_corpus
from hilam_hf.data.samples.keys import SampleKey
from hilam_hf.data.samples.reconstruction import ReconstructionFrames, draw_steps


def test_steps_are_drawn_evenly_and_without_replacement() -> None:
    """A sequence of 5 latent actions has 4 steps with a next one."""
    seen: list[int] = []
    for seed in range(400):
        drawn = draw_steps(5, 2, seed).tolist()
        assert drawn == sorted(set(drawn)) and len(drawn) == 2
        seen += drawn
    # Each step is one of two drawn of four: 200 of 400 times, with a variance of 400 * 0.5 * 0.5 = 100.
    assert set(seen) == {0, 1, 2, 3}
    assert all(abs(seen.count(step) - 200) < 5 * 10 for step in range(4))


def test_a_short_sequence_gives_all_its_steps_or_none() -> None:
    assert draw_steps(3, 10, seed=0).tolist() == [0, 1]
    assert draw_steps(2, 1, seed=0).tolist() == [0]
    for length in (0, 1):
        assert draw_steps(length, 10, seed=0).shape == (0,) and draw_steps(length, 10, seed=0).dtype == torch.long


class NumberedFrames:
    """Frames of one pixel whose three channels are episode, number and 0; keeps what was read."""

    sizes = ((1, 1),)

    def __init__(self) -> None:
        self.num_read = 0

    def read(self, episode: int, indices: list[int]) -> Tensor:
        self.num_read += len(indices)
        frames = torch.tensor([[episode, index, 0] for index in indices], dtype=torch.uint8)
        return frames[..., None, None]

    def fingerprint(self) -> str:
        return "numbered"


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
    source = ReconstructionFrames(load_corpus(tmp_path / "corpus"), store, num_steps=2)
    own_frames, strides = [list(range(8)), [0, 4, 9, 30]], [1, 6]
    for seed in range(20):
        keys = [SampleKey(row, 3 * seed + number) for number, row in enumerate([1, 0, 1])]
        drawn = source.draw(keys)
        assert drawn["reconstruction_steps"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
        triples = zip(
            drawn["reconstruction_steps"].tolist(),
            drawn["reconstruction_frames"].flatten(1).tolist(),
            drawn["reconstruction_targets"].flatten(1).tolist(),
            strict=True,
        )
        for (sequence, time), frame, target in triples:
            episode = keys[sequence].row
            first = own_frames[episode][time + 1]
            assert frame == [episode, first, 0]
            assert target == [episode, first + strides[episode], 0]
    assert store.num_read == 20 * 3 * 2 * 2


def test_what_is_drawn_of_a_sequence_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    rows = [{"id": str(n), "fps": 5.0, "num_frames": 32, "latent_actions": torch.randn(30, 2)} for n in range(4)]
    write_latent_action_corpus(tmp_path / "corpus", rows, info=CorpusInfo(model="m", latent_dim=2, stride=2))
    source = ReconstructionFrames(load_corpus(tmp_path / "corpus"), NumberedFrames(), num_steps=3)
    keys = [SampleKey(row, 100 + row) for row in range(4)]
    whole = source.draw(keys)
    parts = [source.draw(part) for part in (keys[:1], keys[1:3], keys[3:])]
    for name in ("reconstruction_frames", "reconstruction_targets"):
        assert torch.equal(whole[name], torch.cat([part[name] for part in parts]))
    times = [part["reconstruction_steps"][:, 1] for part in parts]
    assert torch.equal(whole["reconstruction_steps"][:, 1], torch.cat(times))
    # Another seed draws others: of 29 steps, the same three by 1 : 3654 a sequence.
    others = source.draw([SampleKey(key.row, key.seed + 1) for key in keys])
    assert not torch.equal(others["reconstruction_steps"], whole["reconstruction_steps"])


def test_what_is_drawn_from_is_told_apart(tmp_path: Path) -> None:
    def source(num_frames: int = 32, stride: int = 2, num_steps: int = 1) -> ReconstructionFrames:
        folder = tmp_path / f"{num_frames} {stride} {num_steps}"
        row = {"id": "a", "fps": 5.0, "num_frames": num_frames, "latent_actions": torch.zeros(num_frames - stride, 2)}
        if not folder.exists():
            write_latent_action_corpus(folder, [row], info=CorpusInfo(model="m", latent_dim=2, stride=stride))
        return ReconstructionFrames(load_corpus(folder), NumberedFrames(), num_steps)

    told = {source(*changes).fingerprint() for changes in [(), (31,), (32, 3), (32, 2, 2)]}
    assert len(told) == 4 and source().fingerprint() in told


def test_without_a_step_the_frames_are_empty(tmp_path: Path) -> None:
    row = {"id": "a", "fps": 5.0, "num_frames": 3, "latent_actions": torch.randn(1, 2)}
    write_latent_action_corpus(tmp_path / "corpus", [row], info=CorpusInfo(model="m", latent_dim=2, stride=2))
    drawn = ReconstructionFrames(load_corpus(tmp_path / "corpus"), NumberedFrames(), 4).draw([SampleKey(0, 0)])
    assert {name: tuple(each.shape) for name, each in drawn.items()} == {
        "reconstruction_steps": (0, 2),
        "reconstruction_frames": (0, 3, 1, 1),
        "reconstruction_targets": (0, 3, 1, 1),
    }
