"""Search for grasps: where fingers fit around an object's surface points without touching anything else.

Shapes: N points, C candidates. Lengths are in metres.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .geometry import HandVolume, Points, downward, thin

_GRID = 0.01
_FINGER_HALF_WIDTH = 0.011
_REACH = 0.038
"""How far from the middle the open fingers' inner sides may find the object."""
_TIP = 0.010
"""How far the finger tips reach beyond the grip site."""
_FREE_ASCENT = (0.05, 0.10, 0.15)
"""Distances back along the approach at which the hand must be free too: it comes and goes that way."""

Reachable = Callable[[Points, NDArray[np.float64]], NDArray[np.bool_]]

ALL_YAWS = tuple(math.radians(angle) for angle in range(0, 180, 15))


@dataclass(frozen=True)
class GraspStyle:
    """How a kind of object is grasped.

    Attributes:
        depth: How far below the object's top, between the fingers, the grip site goes.
        widest: Largest extent between the fingers.
        yaws: Angles of the closing direction, in rad.
        radial: For hollow objects, whose rim is pinched: least cosine between the closing direction and the ray from
            the object's middle; 0 for no such demand.
        centring: How much a grasp loses a metre of distance from the object's middle.
        thinness: How much it loses a metre of width.
        lean: Angle (rad) by which the hand leans over, about its closing direction.
        variety: Grasps whose scores differ less are equally good.
    """

    depth: float = 0.029
    widest: float = 0.072
    yaws: Sequence[float] = ALL_YAWS
    radial: float = 0.0
    centring: float = 8.0
    thinness: float = 3.0
    lean: float = 0.0
    variety: float = 0.03


@dataclass(frozen=True)
class Grasp:
    """A pose of the grip site in which to close the fingers.

    Attributes:
        position: (3,).
        rotation: (3, 3).
        width: Extent of the object between the fingers.
        hits: Points of other things that the hand would touch there or on its way; 0 for a free grasp. Being out of
            reach counts like 100 of them.
        score: The higher the better.
        middle: (3,) middle of the object at the time of the search.
    """

    position: NDArray[np.float64]
    rotation: NDArray[np.float64]
    width: float
    hits: int
    score: float
    middle: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    @property
    def yaw(self) -> float:
        """Angle (rad) of the closing direction in the horizontal plane."""
        return math.atan2(self.rotation[1, 0], self.rotation[0, 0])

    def resembles(self, other: Grasp) -> bool:
        """Whether two grasps take nearly the same part of an object in nearly the same way."""
        apart = np.linalg.norm((self.position - self.middle) - (other.position - other.middle))
        turned = abs(math.remainder(self.yaw - other.yaw, math.pi))
        return bool(apart < 0.012 and turned < math.radians(20.0))


def search_grasps(
    points: Points, obstacles: Points, style: GraspStyle, reachable: Reachable | None = None
) -> list[Grasp]:
    """Find the poses in which the fingers fit around a part of an object.

    Args:
        points: (N, 3) on the object's surface.
        obstacles: (N, 3) on the surfaces of everything else but the table.
        style: What to look for.
        reachable: Says which positions (C, 3) of the grip site, of one rotation, the arm reaches; None for all.

    Returns:
        Grasps, the best first; none when the fingers fit nowhere.
    """
    cloud = thin(points, 0.005)
    low, high = cloud.min(axis=0), cloud.max(axis=0)
    middle = (low + high) / 2.0
    near = (np.abs(obstacles[:, :2] - middle[:2]) < 0.25).all(axis=1) & (obstacles[:, 2] > low[2] - 0.02)
    surroundings = _Surroundings(thin(obstacles[near], 0.007), reachable)
    grasps = [grasp for yaw in style.yaws for grasp in _grasps_at(cloud, middle, yaw, style, surroundings)]
    return sorted(grasps, key=lambda grasp: -grasp.score)


@dataclass(frozen=True)
class _Surroundings:
    """What limits the hand besides the object: points (N, 3) of other things, and the arm's reach."""

    obstacles: Points
    reachable: Reachable | None

    def hits(self, positions: Points, rotation: NDArray[np.float64]) -> NDArray[np.int_]:
        """Points (C,) that the hand would touch, at the grasp or on its way there; 100 more out of reach."""
        hits = HandVolume(margin=0.003).count_hits(self.obstacles, positions, rotation)
        for distance in _FREE_ASCENT:
            hits += HandVolume(margin=0.001).count_hits(self.obstacles, positions - distance * rotation[:, 2], rotation)
        if self.reachable is not None:
            raised = positions - _FREE_ASCENT[0] * rotation[:, 2]
            hits += np.where(self.reachable(positions, rotation) & self.reachable(raised, rotation), 0, 100)
        return hits

    def close(self, positions: Points, rotation: NDArray[np.float64]) -> NDArray[np.int_]:
        """Points (C,) that the hand would come near to."""
        return HandVolume(margin=0.014).count_hits(self.obstacles, positions, rotation)


def _grasps_at(
    cloud: Points, middle: NDArray[np.float64], yaw: float, style: GraspStyle, surroundings: _Surroundings
) -> list[Grasp]:
    """The grasps of one closing direction."""
    rotation = downward(yaw) @ _about_x(style.lean)
    positions, widths, depths = _fits(cloud, rotation, float(cloud[:, 2].min()), style)
    ray = positions[:, :2] - middle[:2]
    away = np.linalg.norm(ray, axis=1)
    possible = np.abs(ray @ [math.cos(yaw), math.sin(yaw)]) >= style.radial * away
    possible &= HandVolume(margin=0.001).count_hits(cloud, positions, rotation) <= 1
    if not possible.any():
        return []
    positions, widths = positions[possible], widths[possible]
    hits = surroundings.hits(positions, rotation)
    close = surroundings.close(positions, rotation)
    aside = abs(math.remainder(yaw - math.pi / 2.0, math.pi)) / (math.pi / 2.0)
    score = (
        -0.3 * np.minimum(hits, 300)
        - 0.25 * np.minimum(close, 20) / 20.0
        - style.centring * away[possible]
        - 0.06 * aside
        - style.thinness * widths
        + 10.0 * np.minimum(0.03, depths[possible])
    )
    return [
        Grasp(position, rotation, float(widths[index]), int(hits[index]), float(score[index]), middle)
        for index, position in enumerate(positions)
    ]


def _fits(
    cloud: Points, rotation: NDArray[np.float64], floor: float, style: GraspStyle
) -> tuple[Points, NDArray[np.float64], NDArray[np.float64]]:
    """Positions (C, 3) that centre the fingers on a part of the object, the part's widths (C,) and depths (C,)."""
    local = cloud @ rotation
    x, y, z = _candidates(local)
    sideways = np.abs(local[:, 1] - y[:, None]) < _FINGER_HALF_WIDTH  # (C, N)
    near = sideways & (np.abs(local[:, 0] - x[:, None]) < _REACH)
    kept = near.sum(axis=1) >= 3
    x, y, sideways, near = x[kept], y[kept], sideways[kept], near[kept]
    top = np.where(near, local[:, 2], np.inf).min(axis=1)
    z = np.minimum(top + style.depth, _deepest(rotation, x, y, floor))
    band = sideways & (local[:, 2] < z[:, None] + 0.006) & (local[:, 2] > z[:, None] - 0.013)
    centred = np.zeros(len(x), dtype=bool)
    width = np.zeros(len(x))
    for _ in range(4):
        offset = local[:, 0] - x[:, None]
        held = band & (np.abs(offset) < _REACH + 0.001)
        some = held.sum(axis=1) >= 2
        least = np.where(held, offset, 1.0).min(axis=1, initial=1.0)
        most = np.where(held, offset, -1.0).max(axis=1, initial=-1.0)
        shift = np.where(some & ~centred, (least + most) / 2.0, 0.0)
        width = np.where(some & ~centred, most - least, width)
        centred |= some & (np.abs(shift) < 0.0015)
        x = np.where(centred, x, x + shift)
    good = centred & (width <= style.widest)
    found = np.stack([x, y, z], axis=1)[good]
    _, unique = np.unique(np.round(found[:, :2] / 0.004), axis=0, return_index=True)
    return found[unique] @ rotation.T, width[good][unique], (z - top)[good][unique]


def _candidates(local: Points) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """A grid (C,) over the object's extent, as seen along the approach."""
    low, high = local.min(axis=0), local.max(axis=0)
    axes = []
    for axis in (0, 1):
        line = np.arange(low[axis], high[axis] + 0.001, _GRID)
        axes.append(line - line.mean() + (low[axis] + high[axis]) / 2.0)
    x, y = (grid.ravel() for grid in np.meshgrid(*axes))
    return x, y, np.zeros_like(x)


def _deepest(
    rotation: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64], floor: float
) -> NDArray[np.float64]:
    """How far along the approach the grip site may go for the fingers to stay above what the object stands on."""
    below = _TIP * abs(rotation[2, 2]) + 0.067 * abs(rotation[2, 0]) + _FINGER_HALF_WIDTH * abs(rotation[2, 1])
    height = floor + below + 0.001 - rotation[2, 0] * x - rotation[2, 1] * y
    return height / rotation[2, 2]


def _about_x(angle: float) -> NDArray[np.float64]:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
