"""Drawing a plate over the table with the finger tips."""

from __future__ import annotations

import math

import numpy as np

from .arm import CLOSED, UP, Arm, Plan, Vector
from .geometry import downward
from .motion import StallGuard

_TIP_HEIGHT = -0.008
"""Height of the grip site over a plate's origin that the hand aims at: the finger tips press on the plate."""
_LEAD = 0.1
"""How far ahead of a plate's middle the fingers are sent to draw it along."""
_SLIPPED = 0.08
"""Distance from a plate's middle at which the fingers have slipped over its rim."""
_NEAR = 0.012
_INSET = 0.5
"""Share of a region's extent within which the plate's middle is drawn."""


def tow_plate(arm: Arm, plate: str, region: str) -> Plan:
    """Draw a plate over the table with closed fingers that press on it; returns whether it lies in the region."""
    scene = arm.scene
    box, start = scene.region(region), scene.position(plate)
    inside = _INSET * box.half_size[:2]
    # The nearest place well inside: nothing is pushed farther than need be.
    goal = box.position[:2] + (start - box.position)[:2].clip(-inside, inside)
    way = goal - start[:2]
    rotation = downward(math.atan2(way[1], way[0]))
    arm.gripper = CLOSED
    yield from arm.move(np.array([*start[:2], start[2] + 0.11]), rotation, "approach", tolerance=0.015, angle=0.2)
    yield from arm.move(np.array([*start[:2], start[2] + 0.015]), rotation, "descend", angle=0.1, steps=30)
    yield from _tow(arm, plate, goal, rotation, start[2] + _TIP_HEIGHT)
    yield from arm.shift(0.10 * UP, "retract", rotation=rotation)
    return scene.holds(("on", plate, region))


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
