"""Next-frame errors with own, other and constant latent actions, against values worked out by hand."""

import numpy as np
import pytest
import torch

from hilam_hf.evaluation.lam.decoding import (
    decoding_errors,
    episode_derangement,
    predict,
    psnr,
    ratio_interval,
    typical_latent,
)
from tests.evaluation.lam.stand_ins import BothModels, BrightnessFDM, NoisyFDM, make_pairs


@pytest.mark.parametrize("sizes", [[1, 1], [3, 3], [4, 1, 2, 1], [5, 5, 5, 5, 5], [1] * 7, [10, 3, 7]])
def test_every_pair_gets_one_of_another_episode(sizes: list[int]) -> None:
    episode = np.repeat(np.arange(len(sizes)), sizes)
    for seed in range(20):
        partners = episode_derangement(episode, seed)
        assert sorted(partners) == list(range(len(episode)))
        assert (episode != episode[partners]).all()


@pytest.mark.parametrize("sizes", [[2], [5], [7, 2], [9, 1, 1]])
def test_where_one_episode_dominates_no_pair_keeps_its_own(sizes: list[int]) -> None:
    episode = np.repeat(np.arange(len(sizes)), sizes)
    for seed in range(20):
        partners = episode_derangement(episode, seed)
        assert sorted(partners) == list(range(len(episode)))
        assert (partners != np.arange(len(episode))).all()


def test_the_seed_chooses_the_order() -> None:
    episode = np.repeat(np.arange(4), 5)
    assert (episode_derangement(episode, 1) == episode_derangement(episode, 1)).all()
    assert (episode_derangement(episode, 1) != episode_derangement(episode, 2)).any()


def two_videos(gain: float = 1.0):
    """One pair of each: brighter by 0.2, and by 0.4; the decoder adds `gain` times the latent action."""
    pairs = make_pairs([0, 1], [[0.2], [0.4]], frames=[51, 102], next_frames=[102, 204])
    return decoding_errors(BrightnessFDM(gain), pairs)


def test_errors_are_those_worked_out_by_hand() -> None:
    errors = two_videos(gain=0.5)
    assert errors.copy_error == pytest.approx((0.04 + 0.16) / 2)
    assert errors.next_frame_error == pytest.approx((0.01 + 0.04) / 2)
    # Half of 0.4 for a change of 0.2, and half of 0.2 for one of 0.4.
    assert errors.shuffled_error == pytest.approx((0 + 0.09) / 2)
    # Half of the mean, 0.3.
    assert errors.constant_error == pytest.approx((0.05**2 + 0.25**2) / 2)
    assert errors.error_vs_copy == pytest.approx(0.25)
    assert errors.shuffled_vs_own == pytest.approx(1.8)
    assert errors.improvement_lost_shuffled == pytest.approx((0.045 - 0.025) / (0.1 - 0.025))
    assert errors.constant_latent == "mean"
    assert [(e.id, e.num_pairs) for e in errors.episodes] == [("e0", 1), ("e1", 1)]
    assert [e.error_vs_copy for e in errors.episodes] == pytest.approx([0.25, 0.25])
    assert errors.error_vs_copy_interval == pytest.approx((0.25, 0.25))


def test_an_oracle_and_a_decoder_that_does_not_listen() -> None:
    oracle, deaf = two_videos(1.0), two_videos(0.0)
    assert oracle.next_frame_error == pytest.approx(0, abs=1e-12)
    assert oracle.improvement_lost_shuffled == pytest.approx(0.04 / 0.1)
    assert deaf.shuffled_vs_own == deaf.constant_vs_own == deaf.error_vs_copy == 1
    assert deaf.improvement_lost_shuffled is None


def test_still_videos_have_no_ratio() -> None:
    pairs = make_pairs([0, 1], [[0.0], [0.0]], frames=[51, 102], next_frames=[51, 102])
    errors = decoding_errors(BrightnessFDM(), pairs)
    assert errors.error_vs_copy is None and errors.shuffled_vs_own is None
    assert errors.error_vs_copy_interval is None
    assert all(episode.error_vs_copy is None for episode in errors.episodes)


def test_a_model_that_samples_draws_the_same_noise_for_every_latent_action() -> None:
    pairs = make_pairs([0, 0, 1, 1], [[0.1]] * 4, frames=[50, 60, 70, 80], next_frames=[60, 70, 80, 90])
    before = torch.get_rng_state()
    errors = decoding_errors(NoisyFDM(), pairs, batch_size=3)
    assert errors.next_frame_error == errors.shuffled_error == errors.constant_error != errors.copy_error
    assert decoding_errors(NoisyFDM(), pairs, batch_size=3) == errors
    assert decoding_errors(NoisyFDM(), pairs, batch_size=3, seed=1) != errors
    assert torch.equal(torch.get_rng_state(), before)


def test_codes_reach_the_decoder_as_codes_and_the_constant_is_the_most_frequent() -> None:
    codes = torch.tensor([[1, 3], [1, 3], [0, 3]])
    pairs = make_pairs([0, 1, 2], [[0.0]] * 3, latents=codes, frames=[100] * 3, next_frames=[112, 112, 88])
    errors = decoding_errors(BothModels(), pairs)
    # It adds 0.05 for the code 1 and takes 0.05 away for the code 0; the truth is 12 / 255 either way.
    miss, wrong = (0.05 - 12 / 255) ** 2, (0.05 + 12 / 255) ** 2
    assert errors.next_frame_error == pytest.approx(miss, rel=1e-4)
    assert errors.constant_error == pytest.approx((2 * miss + wrong) / 3, rel=1e-4)
    assert errors.constant_latent == "most frequent codes"


def test_a_latent_action_that_is_nan_makes_the_error_unknown_and_not_the_constant() -> None:
    pairs = make_pairs([0, 1, 2], [[0.2], [np.nan], [0.2]], frames=[51] * 3, next_frames=[102] * 3)
    errors = decoding_errors(BrightnessFDM(), pairs)
    assert np.isnan(errors.next_frame_error) and np.isnan(errors.shuffled_error)
    assert errors.constant_error == pytest.approx(0, abs=1e-12)
    assert errors.error_vs_copy_interval is None


def test_one_pair_cannot_be_shuffled() -> None:
    with pytest.raises(ValueError, match="got 1 pairs to decode; shuffling their latent actions takes at least 2"):
        decoding_errors(BrightnessFDM(), make_pairs([0], [[0.1]], frames=[51], next_frames=[60]))


def test_intervals_of_ratios() -> None:
    above, below = np.array([1.0, 3.0]), np.array([2.0, 2.0])
    # A quarter of the samples each draws one episode twice: 0.5 and 1.5 are the outermost values.
    assert ratio_interval(above, below) == (0.5, 1.5)
    assert ratio_interval(above[:1], below[:1]) is None
    assert ratio_interval(above, np.zeros(2)) is None
    assert ratio_interval(np.array([np.nan, 1.0]), below) is None
    # A video without any change adds nothing below; samples of it alone have no ratio and are left out.
    assert ratio_interval(np.array([0.0, 1.0]), np.array([0.0, 2.0])) == (0.5, 0.5)


def test_the_interval_covers_the_ratio_of_means() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(100):
        below = rng.uniform(1, 2, size=30)
        interval = ratio_interval(0.7 * below + rng.normal(scale=0.2, size=30), below, resamples=300, seed=seed)
        assert interval is not None
        hits += interval[0] <= 0.7 <= interval[1]
    assert 88 <= hits <= 99


def test_typical_latents_and_decibels() -> None:
    assert typical_latent(torch.tensor([[1.0, 2.0], [3.0, 6.0]])).tolist() == [2, 4]
    assert typical_latent(torch.tensor([[1, 2], [0, 2], [0, 2], [1, 2], [1, 0]])).tolist() == [0, 2]
    assert psnr(0.01) == pytest.approx(20)
    assert psnr(0) is None


def test_predictions_come_back_as_float32_on_the_cpu() -> None:
    predicted = predict(BrightnessFDM().to(torch.bfloat16), torch.full((2, 3, 8, 8), 0.5), torch.ones(2, 1), seed=0)
    assert predicted.dtype == torch.float32
    torch.testing.assert_close(predicted, torch.full((2, 3, 8, 8), 1.5))
