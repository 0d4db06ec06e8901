"""How well HiLAM predicts, and how it segments, on held-out sequences of latent actions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.corpora.segment_lengths import SegmentLengthCounts
from ..models.hilam import HiLAMModel, SkillExtraction


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """Segmentation of one stage.

    Attributes:
        stage: The stage, from 1.
        boundary_rate: Segments divided by the tokens of the stage below.
        target_rate: 1 / N of the stage's ratio loss.
        mean_segment_length: In latent actions (video frames).
        num_segments: Segments in all sequences.
        one_step_share, median_length, length_90, segments_per_episode: As in `SegmentLengths`.
        warning: A sentence where most segments are one step long; None otherwise.
    """

    stage: int
    boundary_rate: float
    target_rate: float
    mean_segment_length: float
    num_segments: int
    one_step_share: float
    median_length: int
    length_90: int
    segments_per_episode: float
    warning: str | None


@dataclass(frozen=True, kw_only=True)
class HiLAMSummary:
    """Prediction and segmentation on held-out sequences.

    Attributes:
        next_latent_error: Mean absolute error of the predicted next latent action, in standard deviations.
        repeat_error: The same of repeating the last latent action.
        stages: Segmentation of every stage.
    """

    next_latent_error: float
    repeat_error: float
    stages: tuple[StageSummary, ...]

    @property
    def error_vs_repeat(self) -> float:
        """`next_latent_error` as a fraction of `repeat_error`; lower is better."""
        if self.repeat_error == 0:
            raise ValueError("the latent actions never change, so there is no error of repeating to compare with")
        return self.next_latent_error / self.repeat_error


@torch.no_grad()
def evaluate_hilam(model: HiLAMModel, sequences: Sequence[Tensor]) -> HiLAMSummary:
    """Measures next-latent prediction (paper eq. 4, its first term) and segmentation (eq. 5).

    Args:
        model: HiLAM with statistics set.
        sequences: Held-out latent actions, each (T, D) with T >= 2, in original units.

    Raises:
        ValueError: If no sequence has two latent actions.
    """
    usable = [sequence.to(model.device) for sequence in sequences if len(sequence) > 1]
    if not usable:
        raise ValueError("no sequence has two latent actions, so there is no next one to predict; give longer videos")
    model.eval()
    error, repeat, count = 0.0, 0.0, 0
    for sequence in usable:
        predicted = model.standardise(model(sequence[None]).predictions[0, :-1])
        target = model.standardise(sequence)
        error += (predicted - target[1:]).abs().sum().item()
        repeat += (target[:-1] - target[1:]).abs().sum().item()
        count += target[1:].numel()
    extractions = model.extract_skills(usable)
    tokens = [
        sum(len(item.stages[stage].skills) for item in extractions) for stage in range(len(extractions[0].stages))
    ]
    stages = tuple(
        StageSummary(
            stage=stage,
            boundary_rate=tokens[stage] / tokens[stage - 1],
            target_rate=1 / ratio,
            mean_segment_length=tokens[0] / tokens[stage],
            num_segments=tokens[stage],
            **_lengths(extractions, stage),
        )
        for stage, ratio in enumerate(model.config.target_ratios, start=1)
    )
    return HiLAMSummary(next_latent_error=error / count, repeat_error=repeat / count, stages=stages)


def _lengths(extractions: Sequence[SkillExtraction], stage: int) -> dict[str, Any]:
    counts = SegmentLengthCounts()
    for extraction in extractions:
        counts.add(extraction.stages[stage].boundaries.cpu().numpy())
    summary = counts.summary()
    return {**vars(summary), "warning": summary.warning(stage)}
