"""Evaluation: rollouts in parallel environments, success rates with intervals, provenance, segmentation metrics."""

from ..acting_spec import ActingSpec
from .provenance import lighting_warning
from .rollouts.comparison import Comparison, compare
from .rollouts.policies import ExpertPolicy, Policy, RandomPolicy
from .rollouts.results import EpisodeResult, EvaluationResult, Fault, load_results
from .rollouts.rollout import evaluate
from .segmentation.metrics import SegmentationScores, evaluate_segmentation
from .statistics import PairedCounts, SuccessRate, wilson_interval

__all__ = [
    "ActingSpec",
    "Comparison",
    "EpisodeResult",
    "EvaluationResult",
    "ExpertPolicy",
    "Fault",
    "PairedCounts",
    "Policy",
    "RandomPolicy",
    "SegmentationScores",
    "SuccessRate",
    "compare",
    "evaluate",
    "evaluate_segmentation",
    "lighting_warning",
    "load_results",
    "wilson_interval",
]
