"""Drawing a plate over the table with the finger tips."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .arm import CLOSED, UP, Arm, Plan, Vector
from .geometry import downward
from .motion import StallGuard

_TIP_HEIGHT = -0.008
"""Height of the grip site over a plate's origin that the hand aims at: the finger tips press on the plate."""
_LEAD = 0.065
"""How far ahead of a plate's middle the fingers are sent to draw it along."""
_SLIPPED = 0.08
"""Distance from a plate's middle at which the fingers have slipped over its rim."""
_NEAR = 0.012
_DETOUR = 0.06
"""How far beside the goal a plate is drawn first, around what is in its way."""
_INSET = 0.5
"""Share of a region's extent within which the plate's middle is drawn."""


def tow_plate(arm: Arm, plate: str, region: str) -> Plan:
    """Draw a plate over the table with closed fingers that press on it; returns whether it lies in the region."""
    scene = arm.scene
    box, start, points = scene.region(region), scene.position(plate), scene.points(plate)
    inside = _INSET * box.half_size[:2]
    # The nearest place well inside: nothing is pushed farther than need be.
    goal = box.position[:2] + (start - box.position)[:2].clip(-inside, inside)
    radius = float(np.linalg.norm((points - start)[:, :2], axis=1).max())
    obstacles = scene.obstacles([plate])
    low = obstacles[obstacles[:, 2] < points[:, 2].max() + 0.01, :2]
    way = goal - start[:2]
    rotation = downward(math.atan2(way[1], way[0]))
    arm.gripper = CLOSED
    yield from arm.move(np.array([*start[:2], start[2] + 0.11]), rotation, "approach", tolerance=0.015, angle=0.2)
    yield from arm.move(np.array([*start[:2], start[2] + 0.015]), rotation, "descend", angle=0.1, steps=30)
    for point in way_round(start[:2], goal, low, radius):
        if not (yield from _tow(arm, plate, point, rotation, start[2] + _TIP_HEIGHT)):
            break
    yield from arm.shift(0.10 * UP, "retract", rotation=rotation)
    return scene.holds(("on", plate, region))


def way_round(start: Vector, goal: Vector, obstacles: NDArray[np.float64], radius: float) -> list[Vector]:
    """Points by which to draw a disc to a goal: beside it first if something is in the straight way.

    Args:
        start: (2,).
        goal: (2,).
        obstacles: (N, 2) points of what stands around.
        radius: The disc's.

    Returns:
        The goal, after a point (2,) on the side of the way that is away from the obstacle if there is one.
    """
    length = float(np.linalg.norm(goal - start))
    along = (goal - start) / max(length, 1e-9)
    aside = np.array([-along[1], along[0]])
    ahead, side = (obstacles - start) @ along, (obstacles - start) @ aside
    # What is beside the disc from the start is left behind.
    blocking = (ahead > 0.5 * radius) & (ahead < length + radius) & (np.abs(side) < radius)
    if not blocking.any():
        return [goal]
    return [goal - np.sign(side[blocking].mean()) * _DETOUR * aside, goal]


def _tow(arm: Arm, plate: str, goal: Vector, rotation: Vector, height: float) -> Plan:
    """Draw the plate's middle to a point (2,); returns whether it got there."""
    guard = StallGuard(patience=12, progress=0.001)
    for _ in range(arm.patience(100)):
        middle = arm.scene.position(plate)[:2]
        rest = goal - middle
        distance = float(np.linalg.norm(rest))
        if distance < _NEAR:
            return True
        slipped = np.linalg.norm(arm.scene.hand_position[:2] - middle) > _SLIPPED
        if slipped or guard.stalled(distance):
            return False
        ahead = middle + _LEAD * rest / distance
        yield arm.action_to(np.array([*ahead, height]), rotation, 0.6), "push"
    return False
