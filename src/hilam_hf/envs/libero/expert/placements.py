"""Placements that need more than to be carried over a spot and set down there."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from .arm import CLOSED, OPEN, UP, Arm, Plan, Vector
from .geometry import downward, grip_rotation
from .grasping import GraspStyle
from .picking import GraspChoice, Spot, pick, place

BOTTLE_STYLE = GraspStyle(depth=0.03, yaws=(0.0, math.radians(15.0), math.radians(165.0)))
BOOK_STYLE = GraspStyle(
    depth=0.016,
    yaws=tuple(math.radians(angle) for angle in range(0, 180, 5)),
    widest=0.037,
    centring=10.0,
    thinness=20.0,
)

_RACK_PITCH = math.radians(50.0)
_BOOK_LEAN = math.radians(16.0)
_BOOK_SETBACK = 0.009
"""How far behind the middle of its compartment a leaning book's lower edge stands."""
_MICROWAVE_PITCH = math.radians(38.0)
"""How far the hand leans back to reach into the microwave under its roof."""
_MICROWAVE_FLOOR = 0.024


def lean_in_rack(arm: Arm, bottle: str, region: str, choice: GraspChoice) -> Plan:
    """Lay a bottle on the slanting bed of a wine rack; returns whether it lies there."""
    scene = arm.scene
    if not (yield from pick(arm, bottle, BOTTLE_STYLE, choice)):
        return False
    rack = scene.region(region)
    across, normal, slope = (column if column[2] >= 0.0 else -column for column in rack.rotation.T)
    high = np.array([*scene.hand_position[:2], rack.position[2] + 0.3])
    yield from arm.move(high, scene.hand_rotation, "lift", tolerance=0.02, angle=9.0, steps=30)
    downhill = -slope * [1.0, 1.0, 0.0] / np.linalg.norm(slope[:2])
    approach = math.sin(_RACK_PITCH) * downhill - math.cos(_RACK_PITCH) * UP
    rotation = arm.nearest(grip_rotation(approach, across), grip_rotation(approach, -across))
    length = float(np.linalg.norm(scene.position(bottle) - scene.hand_position))
    bed = rack.position + 0.035 * slope + 0.012 * normal - length * approach
    yield from arm.move(bed + 0.12 * UP, rotation, "carry", tolerance=0.02, angle=0.2, steps=90)
    yield from arm.move(bed + 0.02 * UP, rotation, "place", tolerance=0.01, angle=0.15, steps=40, limit=0.5)
    yield from arm.move(bed - 0.005 * UP, rotation, "place", tolerance=0.006, angle=0.15, steps=25, limit=0.3)
    yield from arm.open()
    yield from arm.shift(-0.10 * approach, "retract", rotation=rotation, steps=20)
    return scene.holds(("on", bottle, region))


def stand_in_caddy(arm: Arm, book: str, region: str, choice: GraspChoice) -> Plan:
    """Put a book upright into a compartment of a caddy; returns whether it is in it."""
    scene = arm.scene
    stands = float(scene.position(book)[2] - scene.points(book)[:, 2].min())
    if not (yield from pick(arm, book, BOOK_STYLE, choice)):
        return False
    held = scene.hand_rotation
    yield from arm.move(scene.hand_position + 0.14 * UP, held, "lift", tolerance=0.02, angle=9.0, steps=30)
    upright = arm.nearest(downward(0.0), downward(math.pi))
    yield from arm.move(scene.hand_position, upright, "carry", tolerance=0.03, angle=0.1, steps=40)
    yield from place(arm, book, _slot(arm, book, region, upright, stands))
    return scene.holds(("in", book, region))


def _slot(arm: Arm, book: str, region: str, upright: Vector, stands: float) -> Spot:
    """Where the held book shall stand.

    On the floor of the back compartment a book's origin is too low for the region, so it is leant over there: its lower
    edge at the back wall, its upper part on the front wall.
    """
    scene, slot, points = arm.scene, arm.scene.region(region), arm.scene.points(book)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2.0
    position = slot.position[:2] + (scene.position(book) - middle)[:2]
    floor = scene.height_under(slot.position[:2], str(scene.parent(region)))
    spot = Spot(position, floor, tolerance=0.006, rotation=upright, clearance=0.05, retreat=0.12)
    lowest = slot.position[2] - abs(slot.rotation @ slot.half_size)[2] - 0.01
    if floor + stands > lowest:
        return spot
    leaning = Rotation.from_rotvec([0.0, _BOOK_LEAN, 0.0]).as_matrix() @ upright
    edge = np.array([slot.position[0] - _BOOK_SETBACK, position[1]])
    return replace(spot, position=edge, rotation=leaning, drop=0.003, tolerance=0.003, settle=3)


def put_in_microwave(arm: Arm, mug: str, region: str) -> Plan:
    """Put a mug into a microwave whose door is open, and push it in deeper; returns whether it is in it.

    As in all of LIBERO's scenes, the microwave faces against y.
    """
    scene = arm.scene
    oven = scene.position(str(scene.parent(region)))
    approach = np.array([0.0, math.sin(_MICROWAVE_PITCH), -math.cos(_MICROWAVE_PITCH)])
    rotation = arm.nearest(grip_rotation(approach, (1.0, 0.0, 0.0)), grip_rotation(approach, (-1.0, 0.0, 0.0)))
    if not (yield from _pinch_side(arm, mug, rotation)):
        return False
    before = np.array([oven[0] - 0.055, oven[1] - 0.25, oven[2] + _MICROWAVE_FLOOR + 0.012])
    inside = np.array([before[0], oven[1] - 0.080, before[2] - 0.002])

    def bring(goal: Vector) -> Vector:
        return goal - scene.position(mug) + scene.hand_position

    yield from arm.move(lambda: bring(before), rotation, "carry", tolerance=0.01, angle=0.1, steps=60)
    yield from arm.move(lambda: bring(inside), rotation, "place", angle=0.1, steps=40, limit=0.6)
    yield from arm.open(rotation=rotation)
    yield from arm.shift(-0.09 * approach, "retract", rotation=rotation, steps=20)
    yield from _push_deeper(arm, mug, rotation, oven[1] - 0.045)
    return scene.holds(("in", mug, region))


def _pinch_side(arm: Arm, mug: str, rotation: Vector) -> Plan:
    """Pinch the side of a mug's rim that is farther along x, and lift it."""
    scene, approach = arm.scene, rotation[:, 2]
    arm.gripper = OPEN
    for _ in range(3):
        origin, points = scene.position(mug), scene.points(mug)
        top = points[:, 2].max()
        side = points[(np.abs(points[:, 1] - origin[1]) < 0.012) & (points[:, 2] > top - 0.03)]
        side = side[side[:, 0] > origin[0], 0]
        if len(side) == 0:
            return False
        rim = np.array([(side.min() + side.max()) / 2.0, origin[1], top - 0.022])
        yield from arm.move(rim - 0.10 * approach, rotation, "approach", tolerance=0.012, angle=0.1)
        # At the edge of its reach the hand drifts outwards while it is fast.
        yield from arm.move(rim - 0.05 * approach, rotation, "descend", tolerance=0.006, steps=30, limit=0.6)
        yield from arm.move(rim, rotation, "descend", tolerance=0.005, steps=30, limit=0.6)
        yield from arm.close(rotation=rotation, at=rim)
        up = scene.hand_position + 0.09 * UP
        yield from arm.move(up, rotation, "lift", tolerance=0.015, angle=9.0, steps=20, limit=0.6)
        if scene.position(mug)[2] > origin[2] + 0.05:
            return True
        yield from arm.open(rotation=rotation)
        yield from arm.shift(-0.08 * approach, "retract", rotation=rotation, steps=20)
    return False


def _push_deeper(arm: Arm, mug: str, rotation: Vector, depth: float) -> Plan:
    """Push a mug along y with the closed fingers until it is at `depth`, and come back out."""
    scene = arm.scene
    arm.gripper = CLOSED
    start = scene.position(mug) + np.array([0.0, -0.10, 0.05])
    yield from arm.move(start, rotation, "approach", tolerance=0.012, angle=0.2, steps=40)
    for _ in range(arm.patience(40)):
        position = scene.position(mug)
        if position[1] > depth:
            break
        ahead = np.array([position[0], scene.hand_position[1] + 0.03, start[2]])
        yield arm.action_to(ahead, rotation, 0.6), "push"
    return (yield from arm.shift(np.array([0.0, -0.18, 0.02]), "retract", rotation=rotation, steps=20))
