"""The study on a corpus whose phases are known."""

import dataclasses

import numpy as np
import pytest
import torch

from hilam_hf.data import CorpusInfo, write_latent_action_corpus
from hilam_hf.evaluation.segmentation.baselines import change_points, random_boundaries
from hilam_hf.evaluation.segmentation.metrics import boundary_rate, evaluate_segmentation
from hilam_hf.evaluation.segmentation.study import (
    MethodScores,
    StudyData,
    StudySplit,
    conclusion,
    hilam_segmentations,
    load_study_data,
    mean_scores,
    score_baselines,
    score_hilam,
    spread_boundaries,
)
from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel

NAMES = np.array(["reach", "grasp", "pull"])
STRIDE = 2


def make_split(seed, count):
    generator = np.random.default_rng(seed)
    ids, latents, phases = [], [], []
    for number in range(count):
        labels = np.repeat(generator.permutation(3), generator.integers(8, 14, 3))
        means = 5 * np.eye(3)[labels] + [100, 0, 0]
        ids.append(f"task/{seed}-{number}")
        latents.append((means + 0.3 * generator.normal(size=means.shape)).astype(np.float32))
        phases.append(NAMES[labels])
    return StudySplit(ids=ids, latents=latents, phases=phases)


@pytest.fixture(scope="module")
def data():
    info = CorpusInfo(model="idm", latent_dim=3, stride=STRIDE)
    return StudyData(training=make_split(0, 10), held_out=make_split(1, 4), info=info)


@pytest.fixture
def corpus(tmp_path):
    """A corpus of two episodes a split, and the phases of their frames."""
    rows, phases = {}, {}
    for split, seed in (("train", 0), ("validation", 1)):
        episodes = make_split(seed, 2)
        rows[split] = []
        for name, latents, labels in zip(episodes.ids, episodes.latents, episodes.phases, strict=True):
            rows[split].append(
                {"id": name, "fps": 10.0, "num_frames": len(latents) + STRIDE, "latent_actions": latents}
            )
            phases[name] = [*labels.tolist(), *[labels[-1]] * STRIDE]
    info = CorpusInfo(model="idm", latent_dim=3, stride=STRIDE)
    write_latent_action_corpus(tmp_path / "corpus", rows, info=info)
    return tmp_path / "corpus", phases


def test_data_are_the_corpus_with_the_phase_of_each_latent(corpus):
    folder, phases = corpus
    data = load_study_data(folder, phases)
    assert (len(data.training), len(data.held_out), data.num_labels) == (2, 2, 3)
    for split in (data.training, data.held_out):
        for name, latents, labels in zip(split.ids, split.latents, split.phases, strict=True):
            assert labels.tolist() == phases[name][: len(latents)]
    assert data.info.stride == STRIDE


def test_data_refuse_phases_of_another_recording(corpus):
    folder, phases = corpus
    name = next(iter(phases))
    with pytest.raises(ValueError, match=f"'{name}': got phases of 3 frames"):
        load_study_data(folder, {**phases, name: ["reach"] * 3})
    with pytest.raises(ValueError, match="its phases are not there"):
        load_study_data(folder, {})


def test_the_training_episodes_standardise_both_splits(data):
    training = np.concatenate(data.standardised(data.training))
    np.testing.assert_allclose(training.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(training.std(axis=0), 1, atol=1e-4)
    held_out = np.concatenate(data.standardised(data.held_out))
    np.testing.assert_allclose(held_out.mean(axis=0), 0, atol=0.5)
    assert np.abs(held_out.mean(axis=0)).max() > 1e-3


def test_baselines_are_scored_at_the_true_and_at_their_best_rate(data):
    baselines = {"random": random_boundaries, "change points": change_points}
    results = score_baselines(data, tolerance=1, baselines=baselines, num_seeds=3)
    assert [result.name for result in results] == [
        "random, true rate",
        "random, best on training",
        "change points, true rate",
        "change points, best on training",
    ]
    # Two boundaries in each of four episodes, times three seeds.
    assert sum(count.true for count in results[0].scores.counts) == 24
    assert results[2].scores.f1 == results[2].scores.edit == 1
    assert results[0].scores.f1 < 0.6
    assert results[0].to_dict()["rate_choice"] == "true rate"


def test_hilam_is_scored_at_every_stage(data):
    torch.manual_seed(0)
    model = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=3, stride=STRIDE))
    rows = torch.from_numpy(np.concatenate(data.training.latents))
    model.set_latent_statistics(rows.mean(0), rows.std(0))
    results = score_hilam(data, model, tolerance=1)
    assert [result.name for result in results] == ["HiLAM stage 1", "HiLAM stage 2"]
    for stage, result in enumerate(results, start=1):
        expected = hilam_segmentations(model, data.held_out)[stage]
        assert all(np.array_equal(*pair) for pair in zip(result.segmentations, expected, strict=True))
        extraction = model.extract_skills(torch.from_numpy(data.held_out.latents[0]))
        np.testing.assert_array_equal(expected[0], extraction.stages[stage].boundaries)
        assert result.scores.boundary_rate == pytest.approx(boundary_rate(expected))


@pytest.mark.parametrize(
    ("hop", "expected"),
    # Kept steps 0, 3, 6: a boundary at the second kept one lies at 1, 2 or 3.
    [(1, [0, 1]), (2, [0, 2]), (3, [0, 2]), (5, [0, 3])],
)
def test_boundaries_of_every_hop_th_step_lie_between_the_kept_ones(hop, expected):
    boundaries = np.array([True, True, False])
    assert np.flatnonzero(spread_boundaries(boundaries, hop, 3 * hop - 1)).tolist() == expected


def test_hilam_sees_every_hop_th_latent(data):
    model = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=3, stride=STRIDE))
    rows = torch.from_numpy(np.concatenate(data.training.latents))
    model.set_latent_statistics(rows.mean(0), rows.std(0))
    latents = data.held_out.latents[0]
    seen = model.extract_skills(torch.from_numpy(latents[::3].copy()))
    found = hilam_segmentations(model, data.held_out, hop=3)
    assert found[1][0].sum() > 1
    for stage in (1, 2):
        expected = spread_boundaries(seen.stages[stage].boundaries.numpy(), 3, len(latents))
        np.testing.assert_array_equal(found[stage][0], expected)


def some_scores(data, seed, rate=0.1):
    return evaluate_segmentation(
        random_boundaries(data.held_out.latents, rate, seed=seed), data.held_out.phases, tolerance=1
    )


def test_seeds_are_pooled_in_counts_and_averaged_in_the_rest(data):
    first, second = some_scores(data, 0), some_scores(data, 1)
    mean = mean_scores([first, second])
    matched = sum(count.matched for run in (first, second) for count in run.counts)
    assert mean.precision == matched / sum(count.predicted for run in (first, second) for count in run.counts)
    assert mean.nmi == pytest.approx((first.nmi + second.nmi) / 2)
    assert mean.counts[0] == first.counts[0] + second.counts[0]
    assert mean.edit is None
    assert mean_scores([first]) is first


def test_the_conclusion_names_the_best_and_the_difference(data):
    random = MethodScores(method="random", rate_choice="true rate", scores=some_scores(data, 0), segmentations=[])
    perfect = evaluate_segmentation(data.held_out.phases, data.held_out.phases, tolerance=0)
    stage = dataclasses.replace(random, method="HiLAM stage 1", rate_choice="its own", scores=perfect)
    sentence = conclusion([random, stage])
    assert sentence.startswith("The highest F1 is that of HiLAM stage 1: 1.000; HiLAM stage 1 minus the best baseline")
    assert f"(random, true rate) is {1 - random.scores.f1:+.3f}" in sentence
    assert conclusion([random]) == f"The highest F1 is that of random, true rate: {random.scores.f1:.3f}."
