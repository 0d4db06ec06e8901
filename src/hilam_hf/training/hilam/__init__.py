"""Training of HiLAM: sequences, models that fit a corpus, the training itself."""

from .models import new_hilam
from .train import HiLAMTrainingConfig, train_hilam

__all__ = ["HiLAMTrainingConfig", "new_hilam", "train_hilam"]
