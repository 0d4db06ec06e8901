"""Geometry of grasping: points on the surfaces of collision geoms, and the room that a hand takes up.

Shapes: N points, C candidate positions. Lengths are in metres. The grip frame is that of the robot's grip site: the
fingers close along its x, the hand approaches along its z, and its origin lies between the finger tips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]

_SPAN_LIMIT = 40
"""Most intervals along one edge of a geom: large fixtures are sampled more coarsely."""


def box_surface(half_size: ArrayLike, spacing: float) -> Points:
    """Points on the surface of a box that is centred on the origin.

    Args:
        half_size: (3,) half lengths of the edges.
        spacing: Aimed distance between neighbours.

    Returns:
        (N, 3), the corners among them.
    """
    half = np.asarray(half_size, dtype=np.float64)
    faces = []
    for axis in range(3):
        first, second = (other for other in range(3) if other != axis)
        grid = np.meshgrid(_span(half[first], spacing), _span(half[second], spacing))
        for side in (-1.0, 1.0):
            face = np.empty((grid[0].size, 3))
            face[:, first], face[:, second], face[:, axis] = grid[0].ravel(), grid[1].ravel(), side * half[axis]
            faces.append(face)
    return np.unique(np.concatenate(faces), axis=0)


def cylinder_surface(radius: float, half_length: float, spacing: float) -> Points:
    """Points on the surface of an upright cylinder that is centred on the origin, its two discs included; (N, 3)."""
    side = [_circle(radius, height, spacing) for height in _span(half_length, spacing)]
    radii = np.arange(0.0, radius, spacing)
    discs = [_circle(float(r), height, spacing) for height in (-half_length, half_length) for r in radii]
    return np.concatenate(side + discs)


def sphere_surface(radius: float, spacing: float) -> Points:
    """Points on the surface of a sphere that is centred on the origin, spread along a golden spiral; (N, 3)."""
    count = max(24, int(4.0 * math.pi * radius**2 / spacing**2))
    index = np.arange(count) + 0.5
    height = 1.0 - 2.0 * index / count
    angle = math.pi * (1.0 + math.sqrt(5.0)) * index
    ring = np.sqrt(1.0 - height**2)
    return radius * np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)


def mesh_surface(vertices: Points, faces: NDArray[np.int_], spacing: float) -> Points:
    """Points on the surface of a triangle mesh: evenly spread over its area, and its vertices, thinned to `spacing`.

    Args:
        vertices: (V, 3).
        faces: (F, 3) indices of vertices.
        spacing: Aimed distance between neighbours.

    Returns:
        (N, 3).
    """
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2.0
    count = int(np.clip(3.0 * area.sum() / spacing**2, 20, 6000))
    # Systematic sampling over the cumulated area, and a low-discrepancy sequence within each triangle.
    index = np.arange(count)
    chosen = np.searchsorted(np.cumsum(area) / area.sum(), (index + 0.5) / count).clip(max=len(faces) - 1)
    u, v = (index * 0.7548776662466927) % 1.0, (index * 0.5698402909980532) % 1.0
    outside = u + v > 1.0
    u, v = np.where(outside, 1.0 - u, u)[:, None], np.where(outside, 1.0 - v, v)[:, None]
    spread = a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]
    return thin(np.concatenate([vertices, spread]), 0.6 * spacing)


def geom_surface(model: Any, geom: int, spacing: float) -> Points:
    """Points on the surface of one of a MuJoCo model's geoms, in the geom's own frame.

    Args:
        model: `mujoco.MjModel`.
        geom: The geom's number.
        spacing: Aimed distance between neighbours.

    Returns:
        (N, 3); none for planes, which have no bounded surface.

    Raises:
        ValueError: The geom is of a kind that LIBERO does not use.
    """
    kinds = {0: "plane", 2: "sphere", 3: "capsule", 5: "cylinder", 6: "box", 7: "mesh"}
    kind, size = kinds.get(int(model.geom_type[geom])), model.geom_size[geom]
    if kind == "plane":
        return np.zeros((0, 3))
    if kind == "box":
        return box_surface(size, spacing)
    if kind == "sphere":
        return sphere_surface(size[0], spacing)
    if kind == "cylinder":
        return cylinder_surface(size[0], size[1], spacing)
    if kind == "capsule":
        ball = sphere_surface(size[0], spacing)
        ends = ball + np.sign(ball[:, 2:]) * np.array([0.0, 0.0, size[1]])
        return np.concatenate([cylinder_surface(size[0], size[1], spacing), ends])
    if kind == "mesh":
        mesh = model.geom_dataid[geom]
        vertex, face = model.mesh_vertadr[mesh], model.mesh_faceadr[mesh]
        vertices = model.mesh_vert[vertex : vertex + model.mesh_vertnum[mesh]].astype(np.float64)
        return mesh_surface(vertices, model.mesh_face[face : face + model.mesh_facenum[mesh]], spacing)
    raise ValueError(f"geom {geom} is of MuJoCo's kind {int(model.geom_type[geom])}, expected one of {kinds}")


def thin(points: Points, spacing: float) -> Points:
    """Keep one point of each cube of edge `spacing`; (N, 3) to (at most N, 3), in the order of the points."""
    if len(points) == 0:
        return points
    _, kept = np.unique(np.floor(points / spacing).astype(np.int64), axis=0, return_index=True)
    return points[np.sort(kept)]


def grip_rotation(approach: ArrayLike, closing: ArrayLike) -> NDArray[np.float64]:
    """The grip frame's rotation (3, 3) that approaches along one vector and closes the fingers along another.

    Args:
        approach: (3,) direction of the grip frame's z, of any length.
        closing: (3,) direction of its x; the part along `approach` is left out.
    """
    z = np.asarray(approach, dtype=np.float64)
    z = z / np.linalg.norm(z)
    x = np.asarray(closing, dtype=np.float64)
    x = x - z * (x @ z)
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def downward(yaw: float) -> NDArray[np.float64]:
    """The grip rotation (3, 3) straight down with fingers that close along the angle `yaw` (rad) of the horizontal."""
    return grip_rotation((0.0, 0.0, -1.0), (math.cos(yaw), math.sin(yaw), 0.0))


@dataclass(frozen=True)
class HandVolume:
    """The room of Panda's hand in the grip frame, as boxes: two fingers, the palm, the wrist.

    Attributes:
        opening: Distance from the middle to the inner side of each finger; 0.04 is wide open.
        margin: By how much the boxes are widened.
    """

    opening: float = 0.04
    margin: float = 0.004

    def count_hits(
        self, points: Points, positions: Points, rotation: NDArray[np.float64], wrist: bool = True
    ) -> NDArray[np.int_]:
        """Count the points that lie within the hand.

        Args:
            points: (N, 3).
            positions: (C, 3) of the grip site.
            rotation: (3, 3) of the grip site, the same for all positions.
            wrist: Whether the wrist above the palm counts.

        Returns:
            (C,) counts.
        """
        local = points @ rotation - (positions @ rotation)[:, None]  # (C, N, 3)
        x, y, z = np.abs(local[..., 0]), np.abs(local[..., 1]), local[..., 2]
        m = self.margin
        finger = (x > self.opening - 0.001) & (x < self.opening + 0.027 + m) & (y < 0.011 + m)
        inside = finger & (z > -0.05) & (z < 0.010 + m)
        inside |= (x < 0.103 + m) & (y < 0.033 + m) & (z < -0.031 + m) & (z > -0.125)
        if wrist:
            inside |= (x < 0.06 + m) & (y < 0.06 + m) & (z <= -0.125) & (z > -0.25)
        return inside.sum(axis=1)


def _span(half: float, spacing: float) -> NDArray[np.float64]:
    intervals = int(np.clip(math.ceil(2.0 * half / spacing), 1, _SPAN_LIMIT))
    return np.linspace(-half, half, intervals + 1)


def _circle(radius: float, height: float, spacing: float) -> Points:
    count = max(1 if radius == 0.0 else 8, math.ceil(2.0 * math.pi * radius / spacing))
    angle = np.linspace(0.0, 2.0 * math.pi, count, endpoint=False)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(count, height)], axis=1)
