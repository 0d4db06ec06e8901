"""A study of segmentation: baselines and HiLAM's stages on the same latent actions, against the same true phases.

Shapes: N episodes of a split, T latent actions of an episode, D their width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...data.corpora.corpus import latent_actions_array, load_corpus
from ...data.corpora.info import CorpusInfo
from ...data.demonstrations.phases import latent_phases
from ...models.hilam import HiLAMModel
from ...models.numerics import is_constant
from .baselines import BASELINES, Baseline, best_rate, label_segments, random_boundaries
from .metrics import (
    Boundaries,
    BoundaryCounts,
    SegmentationScores,
    boundary_rate,
    evaluate_segmentation,
    f1_difference_interval,
    f1_interval,
)

RATE_FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Multiples of the true rate among which each baseline's best is looked for."""


@dataclass(frozen=True, kw_only=True)
class StudySplit:
    """Episodes of one split of a latent-action corpus.

    Attributes:
        ids: N ids.
        latents: N arrays float32 (T, D), in the corpus' units.
        phases: N arrays (T,) of names, the true segmentation.
    """

    ids: list[str]
    latents: list[NDArray[np.float32]]
    phases: list[NDArray[Any]]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class StudyData:
    """What a study compares methods on.

    Attributes:
        training: Episodes for all that is fitted or tuned.
        held_out: Episodes that methods are scored on.
        info: The corpus' card.
    """

    training: StudySplit
    held_out: StudySplit
    info: CorpusInfo

    def standardised(self, split: StudySplit) -> list[NDArray[np.float32]]:
        """A split's latents with mean 0 and variance 1 over the training episodes."""
        rows = np.concatenate(self.training.latents)
        mean, std = rows.mean(axis=0), rows.std(axis=0)
        return [(latents - mean) / np.where(is_constant(mean, std), 1, std) for latents in split.latents]

    @property
    def num_labels(self) -> int:
        """Number of different phases in the training episodes."""
        return len({phase for phases in self.training.phases for phase in phases})


def load_study_data(corpus: str | Path, phases: Mapping[str, Sequence[str]]) -> StudyData:
    """Loads a latent-action corpus with the splits "train" and "validation" and the phases of its episodes.

    Args:
        corpus: Folder of the corpus.
        phases: For every episode's id one name a frame, such as `demonstration_phases` returns. A latent action has the
            phase of its first frame: an arm follows its commands late, so that the frames up to k later show what they
            do.

    Raises:
        ValueError: If an episode has no phases, or its video had another number of frames.
    """
    splits = {}
    for split in ("train", "validation"):
        rows = load_corpus(corpus, split)
        names = [np.asarray(latent_phases(row, phases)) for row in rows]
        latents = [latent_actions_array(rows, index) for index in range(len(rows))]
        splits[split] = StudySplit(ids=list(rows["id"]), latents=latents, phases=names)
    return StudyData(training=splits["train"], held_out=splits["validation"], info=CorpusInfo.from_card(corpus))


@dataclass(frozen=True, kw_only=True)
class MethodScores:
    """One row of a study's table.

    Attributes:
        method: Name.
        rate_choice: How its boundary rate came about: "true rate", "best on training", or "its own".
        scores: On the held-out episodes.
        segmentations: N boundaries (T,), of the first seed.
    """

    method: str
    rate_choice: str
    scores: SegmentationScores
    segmentations: list[Boundaries]

    @property
    def name(self) -> str:
        """Method and, for a baseline, choice of rate."""
        return self.method if self.rate_choice == "its own" else f"{self.method}, {self.rate_choice}"

    def to_dict(self) -> dict[str, Any]:
        """What a JSON report holds of the row."""
        return {"method": self.method, "rate_choice": self.rate_choice, **self.scores.to_dict()}


def score_baselines(
    data: StudyData,
    *,
    tolerance: int,
    baselines: Mapping[str, Baseline] = BASELINES,
    num_seeds: int = 5,
    tune: bool = True,
) -> list[MethodScores]:
    """Scores every baseline at the true rate of the training episodes, and at its best one on them.

    Args:
        data: What to segment.
        tolerance: Steps that a matched pair of boundaries may be apart.
        baselines: Baselines by name.
        num_seeds: Seeds over which a random baseline is averaged.
        tune: Also look for the rate with the highest F1 on the training episodes, among `RATE_FACTORS` times the true
            one.
    """
    training, held_out = data.standardised(data.training), data.standardised(data.held_out)
    true_rate = boundary_rate(data.training.phases)
    rates = [min(1.0, factor * true_rate) for factor in RATE_FACTORS]
    results = []
    for name, baseline in baselines.items():
        chosen = {"true rate": true_rate}
        if tune:
            truth = data.training.phases
            chosen["best on training"] = best_rate(baseline, training, truth, rates, tolerance=tolerance)
        seeds = range(num_seeds if baseline is random_boundaries else 1)
        for choice, rate in chosen.items():
            runs = [
                [baseline(sequences, rate, training=training, seed=seed) for sequences in (training, held_out)]
                for seed in seeds
            ]
            scores = mean_scores([_score(data, fitted, scored, tolerance) for fitted, scored in runs])
            results.append(MethodScores(method=name, rate_choice=choice, scores=scores, segmentations=runs[0][1]))
    return results


def score_hilam(
    data: StudyData, model: HiLAMModel, *, tolerance: int, hop: int = 1, name: str = "HiLAM stage {stage}"
) -> list[MethodScores]:
    """Scores every stage of a trained HiLAM; its boundary rates are its own.

    Args:
        data: What to segment.
        model: HiLAM trained on the training episodes.
        tolerance: Steps that a matched pair of boundaries may be apart.
        hop: See `hilam_segmentations`.
        name: Name of the rows, formatted with `stage`.
    """
    training, held_out = (hilam_segmentations(model, split, hop) for split in (data.training, data.held_out))
    return [
        MethodScores(
            method=name.format(stage=stage),
            rate_choice="its own",
            scores=_score(data, training[stage], held_out[stage], tolerance),
            segmentations=held_out[stage],
        )
        for stage in held_out
    ]


def hilam_segmentations(model: HiLAMModel, split: StudySplit, hop: int = 1) -> dict[int, list[Boundaries]]:
    """Segments a split's episodes with HiLAM.

    Args:
        model: HiLAM.
        split: The episodes.
        hop: Show the model every hop-th latent action only. Neighbouring ones overlap in all but one frame; further
            apart they differ more at a change of motion.

    Returns:
        For each stage from 1, N boundaries (T,), at the resolution of all latent actions.
    """
    extractions = model.eval().extract_skills([torch.tensor(latents[::hop]) for latents in split.latents])
    lengths = [len(latents) for latents in split.latents]
    return {
        stage: [
            spread_boundaries(item.stages[stage].boundaries.numpy(), hop, length)
            for item, length in zip(extractions, lengths, strict=True)
        ]
        for stage in range(1, model.config.num_stages + 1)
    }


def spread_boundaries(boundaries: Boundaries, hop: int, length: int) -> Boundaries:
    """Boundaries of every hop-th step at the resolution of all steps.

    A boundary at kept step i says that a segment starts between the steps (i - 1) hop + 1 and i hop; it goes to the
    middle of these.

    Args:
        boundaries: (ceil(length / hop),).
        hop: Steps between two kept ones.
        length: T.

    Returns:
        (T,).
    """
    spread = np.zeros(length, dtype=np.bool_)
    spread[np.maximum(np.flatnonzero(boundaries) * hop - (hop - 1) // 2, 0)] = True
    return spread


def _score(
    data: StudyData, training: Sequence[Boundaries], held_out: Sequence[Boundaries], tolerance: int
) -> SegmentationScores:
    """Scores of held-out segmentations, their labels being clusters of the training ones' segments."""
    labels = label_segments(
        data.standardised(data.held_out),
        held_out,
        data.num_labels,
        training=(data.standardised(data.training), training),
    )
    return evaluate_segmentation(held_out, data.held_out.phases, tolerance=tolerance, predicted_labels=labels)


def mean_scores(runs: Sequence[SegmentationScores]) -> SegmentationScores:
    """Scores of several seeds as one: boundary counts are summed for each sequence, the other measures averaged.

    Args:
        runs: Scores of the same sequences in the same order, at least one.
    """
    if len(runs) == 1:
        return runs[0]
    counts = [sum(items, BoundaryCounts(0, 0, 0)) for items in zip(*(run.counts for run in runs), strict=True)]
    total = sum(counts, BoundaryCounts(0, 0, 0))
    averaged = {
        field.name: float(np.mean([getattr(run, field.name) for run in runs]))
        for field in dataclasses.fields(SegmentationScores)
        if isinstance(getattr(runs[0], field.name), float)
    }
    pooled = {name: getattr(total, name) for name in ("precision", "recall", "f1", "r_value")}
    return dataclasses.replace(runs[0], **{**averaged, **pooled}, f1_interval=f1_interval(counts), counts=tuple(counts))


def conclusion(results: Sequence[MethodScores]) -> str:
    """One sentence: which method has the highest F1, and by how much HiLAM's best stage leads or trails the baselines.

    Args:
        results: Rows of the table; those whose rate is "its own" are HiLAM's.
    """
    best = max(results, key=lambda result: result.scores.f1)
    sentence = f"The highest F1 is that of {best.name}: {best.scores.f1:.3f}"
    hilam, baselines = (
        [result for result in results if (result.rate_choice == "its own") is own] for own in (True, False)
    )
    if not hilam or not baselines:
        return f"{sentence}."
    stage, baseline = (max(group, key=lambda result: result.scores.f1) for group in (hilam, baselines))
    low, high = f1_difference_interval(stage.scores.counts, baseline.scores.counts)
    return (
        f"{sentence}; {stage.name} minus the best baseline ({baseline.name}) is "
        f"{stage.scores.f1 - baseline.scores.f1:+.3f} (95 % interval {low:+.3f} to {high:+.3f})."
    )
