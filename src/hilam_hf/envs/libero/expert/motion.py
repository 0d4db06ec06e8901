"""The control law: from where the hand is and shall be to an OSC pose action, and when a movement gets no further."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

POSITION_SCALE = 0.05
"""Displacement in metres that an action of 1 asks for."""
ROTATION_SCALE = 0.5
"""Rotation in rad that an action of 1 asks for."""
POSITION_GAIN = 2.2
ROTATION_GAIN = 1.6


def rotation_between(present: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation vector (3,), in rad and the world's frame, that turns one rotation matrix (3, 3) into another."""
    return Rotation.from_matrix(wanted @ present.T).as_rotvec()


def pose_action(
    displacement: NDArray[np.float64], rotation: NDArray[np.float64], speed: float = 1.0, limit: float = 1.0
) -> NDArray[np.float64]:
    """Proportional control within the action's bounds; a part that exceeds its bound is scaled, not bent.

    Args:
        displacement: (3,) from the hand to its target, in metres.
        rotation: (3,) rotation vector from the hand's rotation to the target's, in rad.
        speed: Factor on the gains and on the bounds.
        limit: Largest component of the displacement's part at speed 1.

    Returns:
        (6,) in [-1, 1]: displacement and rotation in the action's units.
    """
    translate = _bounded(speed * POSITION_GAIN / POSITION_SCALE * displacement, min(1.0, speed * limit))
    turn = _bounded(speed * ROTATION_GAIN / ROTATION_SCALE * rotation, min(1.0, speed))
    return np.concatenate([translate, turn])


class StallGuard:
    """Notices when an error has stopped to shrink.

    Args:
        patience: Number of steps without progress that are a stall.
        progress: By how much the error must shrink below its least value to count as progress.
    """

    def __init__(self, patience: int = 10, progress: float = 0.0006) -> None:
        self._patience = patience
        self._progress = progress
        self._least = float("inf")
        self._idle = 0

    def stalled(self, error: float) -> bool:
        """Take the error of the present step, and say whether the movement has stalled."""
        if error < self._least - self._progress:
            self._least, self._idle = error, 0
        else:
            self._idle += 1
        return self._idle > self._patience


def _bounded(vector: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    largest = np.abs(vector).max()
    return vector * (bound / largest) if largest > bound else vector
