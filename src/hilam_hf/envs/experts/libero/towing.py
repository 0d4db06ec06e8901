"""Drawing a plate over the table with the finger tips, around what stands there.

Shapes: N points, G goals, W way points. Lengths are in metres.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .arm import CLOSED, UP, Arm, Plan, Vector
from .geometry import Points, grip_rotation, thin

_TIP_HEIGHT = 0.006
"""Height of the grip site over a plate's origin at which the finger tips press on the plate."""
_LEAD = 0.085
"""How far ahead of a plate's middle the fingers are sent to draw it along by its rim."""
_SLIPPED = 0.08
"""Distance from a plate's middle at which the fingers have slipped over its rim."""
_LEAN = math.radians(25.0)
_CLEARANCE = 0.008
_LACK_WEIGHT = 10.0
_GRID = 0.02
_NEAR = 0.012


def tow_plate(arm: Arm, plate: str, region: str) -> Plan:
    """Draw a plate over the table with closed fingers inside its rim; returns whether it lies in the region."""
    scene = arm.scene
    start = scene.position(plate)
    height = start[2] + _TIP_HEIGHT
    # Leaning outwards the hand reaches farther.
    rotation = grip_rotation((math.sin(_LEAN), 0.0, -math.cos(_LEAN)), (0.0, 1.0, 0.0))
    route = _plan_route(arm, plate, region, rotation)
    arm.gripper = CLOSED
    yield from arm.move(np.array([*start[:2], height + 0.10]), rotation, "approach", tolerance=0.015, angle=0.2)
    yield from arm.move(np.array([*start[:2], height]), rotation, "descend", tolerance=0.006, angle=0.1, steps=30)
    for point in route:
        if not (yield from _tow(arm, plate, point, rotation, height, last=point is route[-1])):
            break
    yield from arm.shift(0.10 * UP, "retract", rotation=rotation)
    return scene.holds(("on", plate, region))


def _tow(arm: Arm, plate: str, goal: Vector, rotation: Vector, height: float, last: bool) -> Plan:
    """Draw the plate's middle to a point (2,); returns whether it got there."""
    for _ in range(60):
        middle = arm.scene.position(plate)[:2]
        rest = goal - middle
        if np.linalg.norm(rest) < (_NEAR if last else 2.0 * _NEAR):
            return True
        if np.linalg.norm(arm.scene.hand_position[:2] - middle) > _SLIPPED:
            return False
        ahead = middle + _LEAD * rest / np.linalg.norm(rest)
        yield arm.action_to(np.array([*ahead, height]), rotation, 0.6), "push"
    return False


def _plan_route(arm: Arm, plate: str, region: str, rotation: Vector) -> list[Vector]:
    """Points (2,) to draw a plate to one after the other, the last of them within a region."""
    scene = arm.scene
    start, box, points = scene.position(plate), scene.region(region), scene.points(plate)
    radius = float(np.linalg.norm(points[:, :2] - start[:2], axis=1).max())
    obstacles = scene.obstacles([plate])
    low = thin(obstacles[obstacles[:, 2] < points[:, 2].max() + 0.01], 0.01)
    inset = 0.5 * box.half_size[:2]
    goals = box.position[:2] + np.array([[x, y] for x in (0.0, -1.0, 1.0) for y in (0.0, -1.0, 1.0)]) * inset
    grid = np.meshgrid(np.arange(-0.4, 0.4, _GRID), np.arange(-0.4, 0.4, _GRID))
    around = start + np.stack([grid[0].ravel(), grid[1].ravel(), np.zeros(grid[0].size)], axis=1)
    points = around[arm.reachable(around, rotation), :2]
    return clear_route(start[:2], goals, points, low[:, :2], radius + _CLEARANCE)


def clear_route(
    start: Vector, goals: Points, points: Points, obstacles: Points, clearance: float
) -> list[Vector]:
    """Find a short way in the plane to one of some goals, straight or by one point, that keeps off obstacles.

    Args:
        start: (2,).
        goals: (G, 2), the preferred one first.
        points: (W, 2) points by which the way may go.
        obstacles: (N, 2) points.
        clearance: Distance to keep from them; what is lacking of it weighs `_LACK_WEIGHT` times as much as length.

    Returns:
        The points (2,) to go to, a goal the last of them.
    """
    first = _clearances(np.broadcast_to(start, points.shape), points, obstacles)
    first_length = np.linalg.norm(points - start, axis=1)
    ways: list[tuple[float, list[Vector]]] = []
    for index, goal in enumerate(goals):
        preference = 0.0 if index == 0 else _GRID
        straight = max(0.0, clearance - float(_clearances(start[None], goal[None], obstacles)[0]))
        ways.append((float(np.linalg.norm(goal - start)) + preference + _LACK_WEIGHT * straight, [goal]))
        second = _clearances(points, np.broadcast_to(goal, points.shape), obstacles)
        lacks = np.maximum(0.0, clearance - np.minimum(first, second))
        lengths = first_length + np.linalg.norm(points - goal, axis=1)
        costs = lengths + preference + _LACK_WEIGHT * lacks
        ways.append((float(costs.min()), [points[costs.argmin()], goal]))
    return min(ways, key=lambda way: way[0])[1]


def _clearances(starts: Points, ends: Points, obstacles: Points) -> NDArray[np.float64]:
    """Least distances (W,) between obstacles (N, 2) and the segments from starts (W, 2) to ends (W, 2)."""
    along = ends - starts
    offsets = obstacles[None] - starts[:, None]  # (W, N, 2)
    length = np.maximum(1e-12, (along**2).sum(axis=1))[:, None]
    share = ((offsets * along[:, None]).sum(axis=2) / length).clip(0.0, 1.0)
    nearest = offsets - share[..., None] * along[:, None]
    return np.sqrt((nearest**2).sum(axis=2)).min(axis=1, initial=np.inf)
