"""How a training run ends early, each with what to do about it."""

from pathlib import Path


class TrainingError(RuntimeError):
    """A run cannot go on; the message says why and what to change."""


class NonFiniteError(TrainingError, ValueError):
    """A loss or a gradient was no number. No update was made from it, and no checkpoint has it."""


class TrainingInterrupted(Exception):
    """A signal stopped a run, whose state was kept where there is a folder for it.

    Attributes:
        checkpoint: The checkpoint from which the run goes on; None where the run writes nothing.
    """

    def __init__(self, message: str, checkpoint: Path | None):
        super().__init__(message)
        self.checkpoint = checkpoint
