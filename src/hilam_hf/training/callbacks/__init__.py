"""Features of the training loop as callbacks with state, so that resuming is exact."""

from .averaging import WeightAveraging
from .base import Callback, TrainingState
from .checkpointing import Checkpointing
from .history import History
from .progress import ProgressBar
from .pushing import PushCheckpoints
from .tracking import Tracking
from .validation import Validate, Validation

__all__ = [
    "Callback",
    "Checkpointing",
    "History",
    "ProgressBar",
    "PushCheckpoints",
    "Tracking",
    "TrainingState",
    "Validate",
    "Validation",
    "WeightAveraging",
]
