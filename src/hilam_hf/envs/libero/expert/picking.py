"""Picking objects up, carrying them and setting them down."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np

from .arm import OPEN, Arm, Plan, Vector
from .geometry import Points, thin
from .grasping import Grasp, GraspStyle, search_grasps

_ATTEMPTS = 3
_STAND_OFF = 0.08
"""Distance along the approach from which the hand goes down on a grasp."""
_SHALLOWER = (1.0, 0.75, 0.55, 0.4)
"""Shares of a style's depth that are tried until a grasp is free."""
_LEANING = tuple(
    (share, math.radians(side * lean)) for share, lean in ((0.75, 15.0), (0.6, 25.0), (0.6, 35.0)) for side in (1, -1)
)
"""Shares of the depth and angles by which the hand leans over to grasp an object that is not free from above."""
_FEW_HITS = 4
"""Points within the margin of the hand that don't hinder it."""


@dataclass(frozen=True)
class Spot:
    """Where a held object shall be set down.

    Attributes:
        position: (2,) for the origin of the object's body, in the horizontal plane.
        support: Height of what it shall stand on.
        drop: Height above the support at which the hand lets go.
        tolerance: Distance in the plane that is near enough.
        rotation: (3, 3) of the hand; None for the rotation of the grasp.
        clearance: Height to keep over what is in the way.
        retreat: How far the hand leaves along its approach.
        settle: Number of steps that the object rests over the spot before it is lowered.
    """

    position: Vector
    support: float
    drop: float = 0.006
    tolerance: float = 0.008
    rotation: Vector | None = None
    clearance: float = 0.035
    retreat: float = 0.09
    settle: int = 1


@dataclass
class GraspChoice:
    """Chooses among grasps: at random among nearly equal ones, never one that has failed.

    Attributes:
        generator: Source of the choice; None always takes the best.
        taken: The grasp of each object that was taken last.
        failed: The grasps of each object that have failed.
    """

    generator: np.random.Generator | None = None
    taken: dict[str, Grasp] = field(default_factory=dict)
    failed: dict[str, list[Grasp]] = field(default_factory=dict)

    def choose(self, name: str, grasps: list[Grasp], variety: float) -> Grasp | None:
        """Take one of the grasps of an object, sorted by their scores; None when there is none left.

        Args:
            name: Object.
            grasps: Its grasps, the best first.
            variety: Grasps whose scores differ less are equally good.
        """
        failed = self.failed.get(name, [])
        left = [grasp for grasp in grasps if not any(grasp.resembles(other) for other in failed)]
        if not left:
            return None
        best = left[0]
        equal = [g for g in left if g.hits <= best.hits and g.score >= best.score - variety]
        return best if self.generator is None else equal[int(self.generator.integers(len(equal)))]

    def reject(self, name: str) -> None:
        """Remember that the grasp of an object that was taken last has failed; without one there is nothing to do."""
        if name in self.taken:
            self.failed.setdefault(name, []).append(self.taken.pop(name))


def pick(arm: Arm, name: str, style: GraspStyle, choice: GraspChoice) -> Plan:
    """Grasp an object and lift it by 5 cm, with another grasp each time that it slips.

    Args:
        arm: The arm.
        name: Object.
        style: How to grasp it.
        choice: Chooses among the grasps that fit.

    Returns:
        Whether the object is lifted.
    """
    for _ in range(_ATTEMPTS):
        grasp = find_grasp(arm, name, style, choice)
        if grasp is None:
            return False
        choice.taken[name] = grasp
        yield from reach(arm, grasp, [name])
        yield from arm.close(rotation=grasp.rotation, at=grasp.position)
        if (yield from lift(arm, name, grasp.rotation)):
            return True
        choice.reject(name)
        yield from arm.open(rotation=grasp.rotation)
        yield from arm.shift(-0.08 * grasp.rotation[:, 2], "retract", rotation=grasp.rotation)
    return False


def find_grasp(arm: Arm, name: str, style: GraspStyle, choice: GraspChoice) -> Grasp | None:
    """Choose a grasp of an object: as deep as the style asks, shallower or leaning over where that isn't free."""
    points, obstacles = arm.scene.points(name), arm.scene.obstacles([name])
    styles = [replace(style, depth=share * style.depth) for share in _SHALLOWER]
    styles += [replace(style, depth=share * style.depth, lean=lean) for share, lean in _LEANING]
    best: Grasp | None = None
    for variant in styles:
        grasps = search_grasps(points, obstacles, variant, arm.reachable)
        grasp = choice.choose(name, grasps, style.variety)
        if grasp is not None and (best is None or grasp.hits < best.hits):
            best = grasp
        if best is not None and best.hits <= _FEW_HITS:
            break
    return best


def reach(arm: Arm, grasp: Grasp, without: Collection[str]) -> Plan:
    """Bring the open hand over obstacles to a grasp and down on it; returns whether it got there."""
    arm.gripper = OPEN
    before = grasp.position - _STAND_OFF * grasp.rotation[:, 2]
    yield from fly(arm, before, grasp.rotation, without)
    yield from arm.move(before, grasp.rotation, "approach", tolerance=0.012, angle=0.08, steps=40)
    return (
        yield from arm.move(grasp.position, grasp.rotation, "descend", tolerance=0.005, angle=0.05, steps=30, limit=0.6)
    )


def fly(arm: Arm, goal: Vector, rotation: Vector, without: Collection[str] = ()) -> Plan:
    """Bring the free hand to above a place, over what stands in between."""
    start = arm.scene.hand_position
    height = arm.travel_height(start, goal, 0.0, without, clearance=0.03)
    if start[2] < height - 0.02 and np.linalg.norm((start - goal)[:2]) > 0.05:
        over = np.array([*start[:2], max(height, goal[2])])
        yield from arm.move(over, rotation, "clear", tolerance=0.03, angle=9.0, steps=25)
    above = np.array([*goal[:2], max(goal[2], min(height, arm.scene.hand_position[2]))])
    near = 0.015 if height > goal[2] + 0.03 else 0.03
    return (yield from arm.move(above, rotation, "approach", tolerance=near, angle=0.25, steps=60))


def lift(arm: Arm, name: str, rotation: Vector, height: float = 0.05) -> Plan:
    """Raise a grasped object the way that the hand came; returns whether it comes along."""
    start = arm.scene.position(name)[2]
    target = arm.scene.hand_position - height * rotation[:, 2]
    yield from arm.move(target, rotation, "lift", tolerance=0.02, angle=9.0, steps=12, limit=0.8)
    return bool(arm.scene.position(name)[2] > start + 0.015)


def place(arm: Arm, name: str, spot: Spot) -> Plan:
    """Carry the held object to a spot, lower it, let go and leave.

    Returns:
        False when the object was lost on the way; the hand is then open.
    """
    load = _Load(arm, name, spot)
    held = arm.scene.hand_rotation
    rotation = held if spot.rotation is None else spot.rotation
    aside = way_up(arm.scene.points(name), arm.scene.obstacles([name]))
    if aside.any():
        yield from arm.shift(aside, "clear", rotation=held)
    start = arm.scene.hand_position
    height = load.carrying_height(start)
    straight = np.array([*start[:2], height])
    yield from arm.move(straight, held, "lift", tolerance=0.025, angle=9.0, steps=40)
    yield from _carry(arm, load, height, rotation)
    if load.lost():
        yield from arm.open()
        return False
    low = load.letting_go_height(height, rotation)
    yield from arm.move(
        lambda: load.over(low), rotation, "place", tolerance=spot.tolerance, angle=0.08, steps=40, limit=0.6
    )
    yield from arm.open()
    yield from arm.shift(-spot.retreat * arm.scene.hand_rotation[:, 2], "retract", rotation=rotation, steps=20)
    return True


class _Load:
    """A held object on its way to a spot."""

    def __init__(self, arm: Arm, name: str, spot: Spot) -> None:
        self._arm, self._name, self.spot = arm, name, spot
        self._grip = np.linalg.norm(self._offset())

    def lost(self) -> bool:
        """Whether the object is no longer in the hand."""
        return bool(np.linalg.norm(self._offset()) > self._grip + 0.05)

    def over(self, height: float) -> Vector:
        """Where the grip site must be, at some height, for the object to be over its spot; (3,)."""
        return np.array([*(self.spot.position - self._offset()[:2]), height])

    def carrying_height(self, start: Vector) -> float:
        """Height of the grip site at which the object clears what is in the way, within the arm's reach."""
        goal, below = self.over(0.0), self._below()
        way = self._arm.travel_height(start, goal, below, [self._name], self.spot.clearance)
        return min(max(way, self.spot.support + below + 0.03), self._arm.highest(goal))

    def letting_go_height(self, highest: float, rotation: Vector) -> float:
        """Height of the grip site at which the object is put down, or the hand comes near to something."""
        height = self.spot.support + self.spot.drop + self._below()
        while height < highest - 0.005 and self._arm.blocked(self.over(height), rotation, [self._name]):
            height += 0.005
        return height

    def _offset(self) -> Vector:
        return self._arm.scene.position(self._name) - self._arm.scene.hand_position

    def _below(self) -> float:
        """How far the object reaches below the grip site."""
        scene = self._arm.scene
        return float(scene.hand_position[2] - scene.points(self._name)[:, 2].min())


def _carry(arm: Arm, load: _Load, height: float, rotation: Vector) -> Plan:
    """Bring a load over its spot, quickly first, then exactly."""

    def over() -> Vector:
        return load.over(height)

    yield from arm.move(over, rotation, "carry", tolerance=0.02, angle=0.3, lost=load.lost)
    near, settle = 1.5 * load.spot.tolerance, load.spot.settle
    return (
        yield from arm.move(
            over, rotation, "carry", tolerance=near, angle=0.08, steps=25, settle=settle, lost=load.lost
        )
    )


def way_up(points: Points, obstacles: Points) -> Vector:
    """The least displacement in the plane (3,) after which nothing is above an object; zero if nothing is.

    Args:
        points: (N, 3) of the object's surface.
        obstacles: (M, 3) of everything else.
    """
    near = np.linalg.norm(obstacles[:, :2] - points[:, :2].mean(axis=0), axis=1) < 0.3
    above = thin(obstacles[near & (obstacles[:, 2] > points[:, 2].max() + 0.01)], 0.01)[:, :2]
    if len(above) == 0:
        return np.zeros(3)
    base = thin(points * [1.0, 1.0, 0.0], 0.01)[:, :2]
    angles = np.arange(0.0, 2.0 * math.pi, math.pi / 8.0)
    rays = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for distance in np.arange(0.0, 0.16, 0.02):
        shifted = base + distance * rays[:, None]  # (rays, N, 2)
        gaps = np.linalg.norm(shifted[:, :, None] - above, axis=3).min(axis=(1, 2))
        if gaps.max() > 0.012:
            return np.append(distance * rays[gaps.argmax()], 0.0)
    return np.zeros(3)
