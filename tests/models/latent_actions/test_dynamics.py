"""Encoding of videos against pairs one by one, with a model whose latent actions can be worked out by hand."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedConfig

from hilam_hf.models.latent_actions import batch_size as batch_size_module
from hilam_hf.models.latent_actions.batch_size import largest_batch, resolve_batch_size
from hilam_hf.models.latent_actions.dynamics import InverseDynamicsModel
from hilam_hf.models.latent_actions.pair_encoding import FrameBatch, FrameRun, join_pieces
from hilam_hf.models.uniskill.configuration_uniskill import UniSkillIDMConfig
from hilam_hf.models.uniskill.modeling_uniskill_idm import UniSkillIDM

MB = 2**20
SIZE, LATENT = 16, 6


def light_idm(**changes: Any) -> UniSkillIDM:
    """A real model that is quick."""
    torch.manual_seed(0)
    options = {"image_size": SIZE, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return UniSkillIDM(UniSkillIDMConfig.preset("light", latent_dim=LATENT, **options | changes)).eval()


class PairConfig(PreTrainedConfig):
    model_type = "test-pairs"

    image_size: int = 1
    latent_dim: int = 2


class PairIDM(InverseDynamicsModel):
    """The latent action of two frames of one pixel is that pair of pixels. `limit`: frames or pairs that fit."""

    config_class = PairConfig
    main_input_name = "frames"

    def __init__(self, config: PairConfig | None = None, limit: int = 10**9):
        super().__init__(config or PairConfig())
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.limit = limit
        self.error: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        self.frames_at_a_time: list[int] = []
        self.pairs_at_a_time: list[int] = []
        self.post_init()

    def extract_features(self, frames: Tensor) -> Tensor:
        self.frames_at_a_time.append(len(frames))
        return frames.flatten(1)[:, :1] * self.scale

    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        if len(features) > self.limit:
            raise self.error
        self.pairs_at_a_time.append(len(features))
        return torch.cat([features, next_features], dim=1)


def pixels(start: int, stop: int) -> Tensor:
    """Frames (N, 1, 1, 1) whose pixel is their number."""
    return torch.arange(start, stop, dtype=torch.float32).view(-1, 1, 1, 1)


def pairs(start: int, stop: int, stride: int) -> list[list[int]]:
    """What `PairIDM` must say of the video `pixels(start, stop)`."""
    return [[number, number + stride] for number in range(start, stop - stride)]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100, "auto"])
@pytest.mark.parametrize("stride", [1, 3, 9])
def test_a_video_gives_every_pair_once_and_computes_every_frame_once(stride: int, batch_size: int | str) -> None:
    idm = PairIDM()
    assert idm.encode_video(pixels(0, 10), stride, batch_size).tolist() == pairs(0, 10, stride)
    assert sum(idm.frames_at_a_time) == 10


def test_a_real_model_gives_what_it_gives_for_each_pair_alone() -> None:
    idm, frames = light_idm(), torch.randint(256, (9, 3, SIZE, SIZE), dtype=torch.uint8)
    floats = frames.float() / 255
    with torch.no_grad():
        expected = torch.cat([idm.encode(floats[t : t + 1], floats[t + 2 : t + 3]) for t in range(7)])
    for given in (frames, floats):
        torch.testing.assert_close(idm.encode_video(given, stride=2, batch_size=4), expected, atol=1e-5, rtol=0)


def test_pieces_of_any_size_and_fewer_at_a_time() -> None:
    idm = PairIDM()
    pieces = [pixels(0, 1), pixels(1, 1), pixels(1, 8), pixels(8, 10)]
    assert torch.cat(list(idm.encode_chunks(pieces, 3, batch_size=3))).tolist() == pairs(0, 10, 3)
    assert idm.frames_at_a_time == [1, 3, 3, 1, 2]
    assert max(idm.pairs_at_a_time) <= 3


def test_videos_share_batches_and_pairs_never_cross_them() -> None:
    """Four videos of 3, 2, 9 and 4 frames; the second is shorter than its stride, the third lies in three batches."""
    idm = PairIDM()
    batches = [
        FrameBatch(torch.cat([pixels(0, 3), pixels(10, 12), pixels(20, 21)]), runs((0, 1, 3), (1, 2, 2), (2, 4, 1))),
        FrameBatch(pixels(21, 27), runs((2, 4, 6))),
        FrameBatch(torch.cat([pixels(27, 29), pixels(30, 34)]), runs((2, 4, 2), (3, 3, 4))),
    ]
    expected = {0: pairs(0, 3, 1), 2: pairs(20, 29, 4), 3: pairs(30, 34, 3)}
    assert collected(idm.encode_batches(batches)) == expected
    assert idm.frames_at_a_time == [6, 6, 6]
    assert idm.pairs_at_a_time == [2, 3, 3]
    for size in (1, 2, 4, 5, 7):
        assert collected(idm.encode_batches(batches, size)) == expected


def runs(*numbers: tuple[int, int, int]) -> tuple[FrameRun, ...]:
    return tuple(FrameRun(*run) for run in numbers)


def collected(encoded: Iterator[tuple[int, Tensor]]) -> dict[int, list[list[int]]]:
    found: dict[int, list[list[int]]] = {}
    order = []
    for video, latents in encoded:
        found.setdefault(video, []).extend(latents.tolist())
        order.append(video)
    assert order == sorted(order)
    return found


def test_running_out_of_memory_halves_the_batch_and_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    idm = PairIDM(limit=3)
    batches = [FrameBatch(pixels(start, start + 16), runs((0, 2, 16))) for start in (0, 16)]
    with caplog.at_level(logging.WARNING):
        assert collected(idm.encode_batches(batches, 16, halve=True)) == {0: pairs(0, 32, 2)}
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory with 16 frames at a time; now 8",
        "out of memory with 8 frames at a time; now 4",
        "out of memory with 4 frames at a time; now 2",
    ]
    # Later batches begin with what fits.
    assert idm.frames_at_a_time[-8:] == [2] * 8


def test_a_number_that_does_not_fit_is_an_error() -> None:
    batches = [FrameBatch(pixels(0, 16), runs((0, 2, 16)))]
    with pytest.raises(torch.OutOfMemoryError):
        list(PairIDM(limit=3).encode_batches(batches, 16))
    with pytest.raises(torch.OutOfMemoryError):
        list(PairIDM(limit=0).encode_batches(batches, 16, halve=True))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    idm = PairIDM(limit=3)
    idm.error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        list(idm.encode_batches([FrameBatch(pixels(0, 16), runs((0, 2, 16)))], 16, halve=True))


class LiveFrames:
    """Pieces of a video whose memory is followed, whatever views of it there are."""

    def __init__(self, num_frames: int, piece: int) -> None:
        self.num_frames, self.piece = num_frames, piece
        self.live = self.peak = 0

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, self.num_frames, self.piece):
            yield self.track(np.full((self.piece, 3, 4, 4), start % 251, dtype=np.uint8))

    def track(self, array: np.ndarray) -> Tensor:
        self.live += len(array)
        self.peak = max(self.peak, self.live)
        weakref.finalize(array, self.forget, len(array))
        return torch.from_numpy(array)

    def forget(self, count: int) -> None:
        self.live -= count


def test_an_hour_takes_the_memory_of_a_minute() -> None:
    peaks = []
    for num_frames in (640, 38400):
        frames = LiveFrames(num_frames, piece=64)
        assert sum(map(len, PairIDM().encode_chunks(frames, stride=30))) == num_frames - 30
        peaks.append(frames.peak)
    assert peaks[0] == peaks[1] <= 2 * 64


def test_features_that_nobody_waits_for_are_freed() -> None:
    idm, held = PairIDM(), []
    extract = idm.extract_features
    idm.extract_features = lambda frames: tracked(extract(frames), held)
    for number, _ in enumerate(idm.encode_chunks((pixels(start, start + 8) for start in range(0, 80, 8)), stride=2)):
        assert [features for features in held if features() is not None] == [], number


def tracked(features: Tensor, held: list[weakref.ref]) -> Tensor:
    array = features.detach().numpy().copy()
    held.append(weakref.ref(array))
    return torch.from_numpy(array)


@pytest.mark.parametrize("lengths", [[3], [1] * 5, [1000, 30, 2000, 4000]])
def test_pieces_are_joined_in_their_order(lengths: list[int]) -> None:
    whole = torch.arange(2 * sum(lengths)).view(-1, 2)
    joined = join_pieces(iter(whole.split(lengths)))
    assert torch.equal(joined, whole)
    assert joined.dtype == torch.int64
    # No more than the rows themselves is kept.
    assert joined.untyped_storage().nbytes() == joined.nbytes
    with pytest.raises(ValueError, match="pieces: got none"):
        join_pieces([])


def test_no_pair_is_an_error() -> None:
    with pytest.raises(ValueError, match="a video of 3 frames has no pair of frames 3 apart"):
        PairIDM().encode_video(pixels(0, 3), 3)
    with pytest.raises(ValueError, match="stride must be at least 1 frame, got 0"):
        PairIDM().encode_video(pixels(0, 3), 0)


@pytest.mark.parametrize("value", [0, -4, 2.0, True, "all"])
def test_a_batch_size_that_is_none(value: object) -> None:
    with pytest.raises(ValueError, match="batch_size: got"):
        resolve_batch_size(PairIDM(), value)


@pytest.mark.parametrize(
    ("image_size", "expected"),
    # 4 MiB of float frames: 6 of 224 px, 5 of 256, 13 of 160, 85 of 64, 1 of 518; a power of two from 4 to 32.
    [(224, 4), (256, 4), (160, 8), (64, 32), (518, 4), (1, 32)],
)
def test_frames_at_a_time_on_a_cpu_follow_their_size(image_size: int, expected: int) -> None:
    assert resolve_batch_size(PairIDM(PairConfig(image_size=image_size)), "auto") == expected
    assert resolve_batch_size(PairIDM(), 7) == 7


def test_the_largest_batch_is_on_the_line_through_the_trials() -> None:
    # 100 MB and 10 MB a frame; three quarters of 1,600 MB leave room for 110 frames.
    peaks = {2: 120 * MB, 16: 260 * MB}
    assert largest_batch(peaks, 1600 * MB) == 110
    assert largest_batch(peaks, 100 * MB) == 1
    assert largest_batch(peaks, 10**15) == 512
    assert largest_batch({2: MB, 16: MB}, MB) == 512


class FakeMemory:
    """A GPU on which a trial takes 100 MB and 10 MB a frame, out of what is free."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int, largest: int = 10**9) -> None:
        self.trials: list[int] = []
        self.largest = largest
        monkeypatch.setattr(PairIDM, "device", torch.device("cuda", 0))
        monkeypatch.setattr(batch_size_module, "_trial", lambda idm, size: lambda: self.run(size))
        monkeypatch.setattr(batch_size_module, "_peak_bytes", lambda run, device: (100 + 10 * run()) * MB)
        monkeypatch.setattr(batch_size_module, "_free_bytes", lambda device: free * MB)

    def run(self, size: int) -> int:
        self.trials.append(size)
        if size > self.largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return size


def test_frames_at_a_time_on_a_gpu_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = FakeMemory(monkeypatch, free=1600)
    assert resolve_batch_size(PairIDM(), "auto") == 110
    assert memory.trials == [2, 2, 16]  # the first one only warms up
    assert resolve_batch_size(PairIDM(), 300) == 300


def test_where_the_larger_trial_does_not_fit_half_of_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeMemory(monkeypatch, free=1600, largest=15)
    assert resolve_batch_size(PairIDM(), "auto") == 8


@pytest.mark.gpu
def test_a_measured_batch_fits_and_gives_what_the_cpu_gives() -> None:
    idm, frames = light_idm(), torch.randint(256, (40, 3, SIZE, SIZE), dtype=torch.uint8)
    expected = idm.encode_video(frames, stride=3)
    found = idm.cuda().encode_video(frames, stride=3, batch_size="auto")
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=0)
