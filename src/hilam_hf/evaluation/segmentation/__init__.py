"""How well segments meet the phases of recorded demonstrations, beside baselines."""

from .metrics import SegmentationScores, evaluate_segmentation

__all__ = ["SegmentationScores", "evaluate_segmentation"]
