"""Measures of latent action models, against values worked out by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hilam_hf.evaluation.lam import displacements, linear_probe, next_frame_errors


class ShiftIDM:
    """Encodes the change of the mean brightness."""

    device = torch.device("cpu")

    def encode(self, frames: Tensor, next_frames: Tensor) -> Tensor:
        return (next_frames - frames).mean((1, 2, 3))[:, None]


class ShiftFDM:
    """Adds `gain` times the latent to every pixel."""

    def __init__(self, gain: float):
        self.gain = gain

    def predict(self, frames: Tensor, latents: Tensor) -> Tensor:
        return frames + self.gain * latents[:, :, None, None]


def brightness(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)


def test_errors_are_means_over_pairs_of_squared_differences() -> None:
    pairs = [(brightness(0, 0), brightness(51, 102)), (brightness(51), brightness(51))]
    errors = next_frame_errors(ShiftIDM(), ShiftFDM(gain=0.5), pairs)
    # Changes of 0.2, 0.4 and 0; half of each stays unpredicted; the first two swap latents, the third keeps its own.
    assert errors.copy_error == pytest.approx((0.04 + 0.16 + 0) / 3)
    assert errors.next_frame_error == pytest.approx((0.01 + 0.04 + 0) / 3)
    assert errors.shuffled_error == pytest.approx((0 + 0.09 + 0) / 3)
    assert errors.error_vs_copy == pytest.approx(0.25)
    assert errors.num_pairs == 3


def test_a_forward_model_that_ignores_the_latent_has_equal_shuffled_error() -> None:
    errors = next_frame_errors(ShiftIDM(), ShiftFDM(gain=0), [(brightness(0, 0, 0), brightness(10, 20, 30))])
    assert errors.shuffled_error == errors.next_frame_error == errors.copy_error


def test_still_video_and_no_pairs_are_errors() -> None:
    with pytest.raises(ValueError, match="frames of every pair are equal"):
        _ = next_frame_errors(ShiftIDM(), ShiftFDM(1), [(brightness(5), brightness(5))]).error_vs_copy
    with pytest.raises(ValueError, match="no frame pairs"):
        next_frame_errors(ShiftIDM(), ShiftFDM(1), [])


def test_the_probe_finds_a_linear_map_and_nothing_in_noise() -> None:
    rng = np.random.default_rng(0)
    latents, held_out = rng.normal(size=(500, 4)), rng.normal(size=(200, 4))
    matrix = rng.normal(size=(4, 3))
    linear = linear_probe(latents, latents @ matrix + 7, held_out, held_out @ matrix + 7, regularisation=1e-6)
    assert linear.r2 == pytest.approx(1, abs=1e-6)
    noise = linear_probe(latents, rng.normal(size=(500, 3)), held_out, rng.normal(size=(200, 3)))
    assert noise.r2 < 0.05
    # Half of the variance of the second dimension is noise that no probe can know.
    motion, held_out_motion = (x @ matrix[:, :2] for x in (latents, held_out))
    scale = held_out_motion[:, 1].std()
    mixed = linear_probe(
        latents, motion, held_out, held_out_motion + np.stack([np.zeros(200), scale * rng.normal(size=200)], 1)
    )
    assert mixed.r2_per_dimension[0] == pytest.approx(1, abs=0.01)
    assert mixed.r2_per_dimension[1] == pytest.approx(0.5, abs=0.15)
    assert mixed.r2 == pytest.approx(np.mean(mixed.r2_per_dimension))


def test_a_probe_needs_matching_lengths_and_motion_that_varies() -> None:
    latents = np.random.default_rng(0).normal(size=(10, 2))
    with pytest.raises(ValueError, match="training latents and motion"):
        linear_probe(latents, latents[:9], latents, latents)
    with pytest.raises(ValueError, match="never varies"):
        linear_probe(latents, latents, latents, latents * [1, 0])


def test_displacements_stay_within_episodes() -> None:
    first, second = np.array([[0.0], [1.0], [3.0], [6.0]]), np.array([[10.0], [20.0], [40.0]])
    np.testing.assert_array_equal(displacements([first, second], 2), [[3.0], [5.0], [30.0]])
