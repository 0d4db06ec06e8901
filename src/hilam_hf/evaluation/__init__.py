"""Evaluation: rollouts in parallel environments, success rates with intervals, provenance, segmentation metrics."""

from .policies import ExpertPolicy, Policy, RandomPolicy
from .rollout import EpisodeResult, EvaluationResult, evaluate
from .segmentation import SegmentationScores, evaluate_segmentation
from .statistics import SuccessRate, wilson_interval

__all__ = [
    "EpisodeResult",
    "EvaluationResult",
    "ExpertPolicy",
    "Policy",
    "RandomPolicy",
    "SegmentationScores",
    "SuccessRate",
    "evaluate",
    "evaluate_segmentation",
    "wilson_interval",
]
