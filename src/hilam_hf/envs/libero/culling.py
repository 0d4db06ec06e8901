"""Which of a model's geometries a camera may see: drawing the others changes no pixel, and costs most of a wrist view.

Shadows and reflections may show what is outside the view; there everything is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..rendering import RenderQuality

if TYPE_CHECKING:
    import mujoco

# Of MuJoCo's shapes these reflect: mjGEOM_PLANE and mjGEOM_BOX.
_MIRROR_SHAPES = (0, 6)


def needed_geometries(
    model: mujoco.MjModel, data: mujoco.MjData, camera: int, quality: RenderQuality
) -> NDArray[np.bool_]:
    """Find the geometries that have to be drawn for a camera's picture to be what it would be with all of them.

    Args:
        model: The model.
        data: Its state, positions computed.
        camera: Number of a perspective camera, whose picture is square.
        quality: What is drawn beside the objects' own colours.

    Returns:
        bool (geometries,).
    """
    visible = possibly_visible(model, data, camera)
    if quality is RenderQuality.FAST or not (model.light_castshadow.any() or _mirrors(model, visible).any()):
        return visible
    return np.ones_like(visible)


def _mirrors(model: mujoco.MjModel, visible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    reflectance = np.append(model.mat_reflectance, 0.0)[model.geom_matid]  # material -1 is none
    return np.asarray(visible & (reflectance > 0) & np.isin(model.geom_type, _MIRROR_SHAPES))


def possibly_visible(model: mujoco.MjModel, data: mujoco.MjData, camera: int) -> NDArray[np.bool_]:
    """Find the geometries whose bounding box is not wholly outside a camera's view.

    Args:
        model: The model.
        data: Its state, positions computed.
        camera: Number of a perspective camera, whose picture is square.

    Returns:
        bool (geometries,); True for those without bounds, such as planes.
    """
    half_angle = np.deg2rad(model.cam_fovy[camera]) / 2
    sine, cosine = np.sin(half_angle), np.cos(half_angle)
    # Inward normals of the view's four sides in the camera's frame, which looks along its -z.
    sides = np.array([[cosine, 0, -sine], [-cosine, 0, -sine], [0, cosine, -sine], [0, -cosine, -sine]])
    normals = sides @ data.cam_xmat[camera].reshape(3, 3).T

    axes = data.geom_xmat.reshape(-1, 3, 3)
    center, half_size = model.geom_aabb[:, :3], model.geom_aabb[:, 3:]
    offset = data.geom_xpos + np.einsum("gij,gj->gi", axes, center) - data.cam_xpos[camera]
    reach = np.einsum("sgj,gj->sg", np.abs(np.einsum("si,gij->sgj", normals, axes)), half_size)
    inside = (normals @ offset.T + reach > 0).all(axis=0)
    return np.asarray(inside | (model.geom_rbound == 0))
