"""Training: one accelerate loop for every stage, and the stages on top of it."""

from .callbacks import Callback, History, ProgressBar, TrainingState
from .config import TrainingConfig, load_config
from .errors import NonFiniteError, TrainingError, TrainingInterrupted
from .loop import TrainingResult, train

__all__ = [
    "Callback",
    "History",
    "NonFiniteError",
    "ProgressBar",
    "TrainingConfig",
    "TrainingError",
    "TrainingInterrupted",
    "TrainingResult",
    "TrainingState",
    "load_config",
    "train",
]
