"""Evaluation: rollouts in parallel environments, success rates with intervals, provenance records."""

from .policies import ExpertPolicy, Policy, RandomPolicy
from .rollout import EpisodeResult, EvaluationResult, evaluate
from .statistics import SuccessRate, wilson_interval

__all__ = [
    "EpisodeResult",
    "EvaluationResult",
    "ExpertPolicy",
    "Policy",
    "RandomPolicy",
    "SuccessRate",
    "evaluate",
    "wilson_interval",
]
