"""Training: one accelerate loop for every stage, and the stages on top of it."""

from .callbacks import Callback, History, ProgressBar, TrainingState
from .config import TrainingConfig, load_config
from .loop import TrainingResult, train

__all__ = [
    "Callback",
    "History",
    "ProgressBar",
    "TrainingConfig",
    "TrainingResult",
    "TrainingState",
    "load_config",
    "train",
]
