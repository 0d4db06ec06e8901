"""What a scripted expert sees: the privileged state of LIBERO's environment, by the names of the task's own goal."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .geometry import Points, geom_surface, thin

Goal = tuple[str, ...]
"""A predicate of the BDDL goal: its name, the object, and for two-place predicates where it shall be."""

_OBJECT_SPACING, _FIXTURE_SPACING = 0.006, 0.012


@dataclass(frozen=True)
class Region:
    """A region of the task: a box.

    Attributes:
        position: (3,) its middle.
        half_size: (3,) half lengths of its edges.
        rotation: (3, 3).
    """

    position: NDArray[np.float64]
    half_size: NDArray[np.float64]
    rotation: NDArray[np.float64]


class Scene:
    """The state of LIBERO's environment as it now is; lengths in metres, in the world's frame.

    Args:
        environment: LIBERO's robosuite environment (`BDDLBaseDomain`), after its reset.
    """

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.model = environment.sim.model._model
        self.data = environment.sim.data._data
        self.goals: list[Goal] = [tuple(goal) for goal in environment.parsed_problem["goal_state"]]
        self._grip = self.model.site("gripper0_grip_site").id
        self._fingers = [self.model.joint(f"gripper0_finger_joint{number}").qposadr[0] for number in (1, 2)]
        self._surfaces = self._sample_surfaces()

    @property
    def hand_position(self) -> NDArray[np.float64]:
        """(3,) of the grip site."""
        return self.data.site_xpos[self._grip].copy()

    @property
    def hand_rotation(self) -> NDArray[np.float64]:
        """(3, 3) of the grip site: the fingers close along x, the hand approaches along z."""
        return self.data.site_xmat[self._grip].reshape(3, 3).copy()

    @property
    def shoulder(self) -> NDArray[np.float64]:
        """(3,) of the arm's shoulder, which does not move."""
        return self.data.body("robot0_link2").xpos.copy()

    @property
    def opening(self) -> float:
        """Distance between the fingers, 0 to 0.08."""
        return float(self.data.qpos[self._fingers[0]] - self.data.qpos[self._fingers[1]])

    def holds(self, goal: Goal) -> bool:
        """Whether LIBERO's own predicate holds."""
        return bool(self.environment._eval_predicate(list(goal)))

    def kind(self, name: str) -> str:
        """The category of an object or a fixture, `plate` for `plate_1`."""
        return str(self.environment.get_object(name).category_name)

    def is_object(self, name: str) -> bool:
        """Whether the name is that of a movable object."""
        return name in self.environment.objects_dict

    def parent(self, region: str) -> str | None:
        """The object or fixture that a region belongs to, None for regions of the table."""
        return self.environment.object_sites_dict[region].parent_name

    def joint(self, name: str) -> str:
        """The joint of a fixture that has one, or of a region that moves with one (a drawer)."""
        sites = self.environment.object_sites_dict
        return str((sites[name] if name in sites else self.environment.get_object(name)).joints[0])

    def joint_value(self, joint: str) -> float:
        """The joint's position, in metres or rad."""
        return float(self.data.joint(joint).qpos[0])

    def joint_axis(self, joint: str) -> NDArray[np.float64]:
        """(3,) direction of the joint's axis."""
        return self.data.joint(joint).xaxis.copy()

    def joint_body(self, joint: str) -> int:
        """Number of the body that the joint moves."""
        return int(self.model.joint(joint).bodyid[0])

    def position(self, name: str) -> NDArray[np.float64]:
        """(3,) of an object or a fixture."""
        return self.data.xpos[self.environment.obj_body_id[name]].copy()

    def region(self, name: str) -> Region:
        """The box of a region as it now lies."""
        site = self.model.site(name).id
        return Region(
            self.data.site_xpos[site].copy(),
            self.model.site_size[site].copy(),
            self.data.site_xmat[site].reshape(3, 3).copy(),
        )

    def points(self, name: str) -> Points:
        """(N, 3) points on the surfaces of an object or a fixture."""
        return self._points([self._root(name)])

    def height_under(self, position: NDArray[np.float64], name: str, radius: float = 0.02) -> float:
        """Height of the highest point of an object or a fixture within a radius of a place (2,) in the plane."""
        points = self.points(name)
        return float(points[np.linalg.norm(points[:, :2] - position, axis=1) < radius, 2].max())

    def obstacles(self, without: Collection[str] = ()) -> Points:
        """(N, 3) points on the surfaces of all objects and fixtures, save those named; the table is left out."""
        left_out = {self._root(name) for name in without}
        return self._points([root for root in self._surfaces if root not in left_out])

    def body_geoms(self, body: int) -> list[int]:
        """Numbers of the geoms of one body that collide."""
        collides = (self.model.geom_contype > 0) | (self.model.geom_conaffinity > 0)
        return [int(geom) for geom in np.flatnonzero(collides & (self.model.geom_bodyid == body))]

    def _root(self, name: str) -> int:
        return int(self.model.body_rootid[self.environment.obj_body_id[name]])

    def _points(self, roots: list[int]) -> Points:
        clouds = [np.zeros((0, 3))]
        for root in roots:
            geoms, points = self._surfaces[root]
            rotations = self.data.geom_xmat[geoms].reshape(-1, 3, 3)
            clouds.append(np.einsum("nij,nj->ni", rotations, points) + self.data.geom_xpos[geoms])
        return np.concatenate(clouds)

    def _sample_surfaces(self) -> dict[int, tuple[NDArray[np.int_], Points]]:
        """For the root body of each object and fixture: the geom of each point, and the point in its geom's frame."""
        surfaces = {}
        named = {self._root(name): name for name in self.environment.obj_body_id}
        for root, name in named.items():
            spacing = _OBJECT_SPACING if self.is_object(name) else _FIXTURE_SPACING
            bodies = np.flatnonzero(self.model.body_rootid == root)
            geoms = [geom for body in bodies for geom in self.body_geoms(int(body))]
            points = [thin(geom_surface(self.model, geom, spacing), 0.6 * spacing) for geom in geoms]
            owners = np.repeat(np.array(geoms, dtype=np.int64), [len(cloud) for cloud in points])
            surfaces[root] = (owners, np.concatenate([np.zeros((0, 3)), *points]))
        return surfaces
