"""Surface points and the hand's volume, against closed forms and points placed by hand."""

import numpy as np
import pytest

from hilam_hf.envs.libero.expert.geometry import (
    HandVolume,
    box_surface,
    cylinder_surface,
    downward,
    geom_surface,
    grip_rotation,
    mesh_surface,
    sphere_surface,
    thin,
)

GEOMS = """
<mujoco>
  <asset><mesh name="wedge" vertex="0 0 0  0.1 0 0  0 0.1 0  0 0 0.1"/></asset>
  <worldbody>
    <geom type="plane" size="1 1 1"/>
    <geom type="box" size="0.02 0.03 0.04"/>
    <geom type="cylinder" size="0.02 0.05"/>
    <geom type="sphere" size="0.03"/>
    <geom type="capsule" size="0.01 0.04"/>
    <geom type="mesh" mesh="wedge"/>
    <geom type="ellipsoid" size="0.01 0.02 0.03"/>
  </worldbody>
</mujoco>
"""


def _model():
    # Once loaded, MuJoCo keeps to its renderer: not before the one for tests is chosen.
    import mujoco

    return mujoco.MjModel.from_xml_string(GEOMS)


def _covered(points, samples, distance):
    """Whether each of some samples of a surface has a point nearby."""
    return np.linalg.norm(points[:, None] - samples, axis=2).min(axis=0).max() < distance


def test_box_points_lie_on_its_surface_and_cover_it():
    half = np.array([0.02, 0.03, 0.045])
    points = box_surface(half, 0.01)
    np.testing.assert_allclose((np.abs(points) / half).max(axis=1), 1.0)
    assert len(np.unique(points, axis=0)) == len(points)
    samples = np.random.default_rng(0).uniform(-1, 1, (200, 3)) * half
    samples[:, 1] = half[1]
    assert _covered(points, samples, 0.01)
    corners = half * np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T
    assert _covered(points, corners, 1e-9)


def test_large_boxes_are_sampled_more_coarsely():
    assert len(box_surface([1.0, 1.0, 0.01], 0.01)) < 2 * 41 * 41 + 4 * 41 * 3


def test_cylinder_points_lie_on_its_side_and_discs():
    points = cylinder_surface(0.03, 0.05, 0.008)
    radius, height = np.linalg.norm(points[:, :2], axis=1), np.abs(points[:, 2])
    assert (np.isclose(radius, 0.03) | np.isclose(height, 0.05)).all()
    assert (radius < 0.03 + 1e-9).all()
    assert (height < 0.05 + 1e-9).all()
    angle = np.linspace(0, 2 * np.pi, 50)
    side = np.stack([0.03 * np.cos(angle), 0.03 * np.sin(angle), np.linspace(-0.05, 0.05, 50)], axis=1)
    disc = np.stack([0.017 * np.cos(angle), 0.017 * np.sin(angle), np.full(50, 0.05)], axis=1)
    assert _covered(points, np.concatenate([side, disc]), 0.008)


def test_sphere_points_lie_on_it_evenly():
    points = sphere_surface(0.05, 0.01)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.05)
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=1e-3)
    samples = np.random.default_rng(1).normal(size=(200, 3))
    assert _covered(points, 0.05 * samples / np.linalg.norm(samples, axis=1, keepdims=True), 0.01)


def test_mesh_points_spread_with_the_area():
    # A large and a small triangle in two planes.
    vertices = np.array([[0, 0, 0], [0.3, 0, 0], [0, 0.2, 0], [0, 0, 0.1], [0, 0.02, 0.1], [0.02, 0, 0.1]], dtype=float)
    points = mesh_surface(vertices, np.array([[0, 1, 2], [3, 4, 5]]), 0.01)
    low, high = points[points[:, 2] == 0], points[points[:, 2] == 0.1]
    assert len(low) + len(high) == len(points)
    assert (low[:, 0] / 0.3 + low[:, 1] / 0.2 < 1 + 1e-9).all()
    inside = np.random.default_rng(2).dirichlet([1, 1, 1], 200) @ vertices[:3]
    assert _covered(low, inside, 0.012)
    assert len(high) < 0.05 * len(low)


@pytest.mark.sim
def test_geoms_of_a_model_in_their_own_frames():
    model = _model()
    clouds = [geom_surface(model, geom, 0.006) for geom in range(6)]
    assert [cloud.shape[1] for cloud in clouds] == [3] * 6
    assert len(clouds[0]) == 0
    np.testing.assert_allclose(np.abs(clouds[1]).max(axis=0), [0.02, 0.03, 0.04])
    np.testing.assert_allclose(np.abs(clouds[2]).max(axis=0), [0.02, 0.02, 0.05], rtol=0.02)
    np.testing.assert_allclose(np.linalg.norm(clouds[3], axis=1), 0.03)
    beyond = np.maximum(np.abs(clouds[4][:, 2]) - 0.04, 0.0)
    ends = np.isclose(np.hypot(np.linalg.norm(clouds[4][:, :2], axis=1), beyond), 0.01)
    flat = np.isclose(np.abs(clouds[4][:, 2]), 0.04)
    assert (ends | flat).all()
    assert np.abs(clouds[4][:, 2]).max() == pytest.approx(0.05, abs=5e-4)
    # MuJoCo moves a mesh into the frame of its inertia; what it holds is 0.1 long along its edges all the same.
    vertices = model.mesh_vert[:4]
    assert _covered(clouds[5], vertices, 1e-6)
    assert (clouds[5] >= vertices.min(axis=0) - 1e-6).all()


@pytest.mark.sim
def test_a_kind_of_geom_that_libero_does_not_use():
    model = _model()
    with pytest.raises(ValueError, match="geom 6 is of MuJoCo's kind 4"):
        geom_surface(model, 6, 0.01)


def test_thin_keeps_one_point_a_cube():
    points = np.random.default_rng(3).uniform(-0.05, 0.05, (500, 3))
    kept = thin(points, 0.02)
    cubes = {tuple(cube) for cube in np.floor(points / 0.02).astype(int)}
    assert {tuple(cube) for cube in np.floor(kept / 0.02).astype(int)} == cubes
    assert len(kept) == len(cubes)
    assert thin(np.zeros((0, 3)), 0.02).shape == (0, 3)


def test_grip_rotation_is_proper_and_points_where_told():
    rotation = grip_rotation((0.0, 1.0, -2.0), (3.0, 1.0, 0.0))
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation[:, 2], np.array([0.0, 1.0, -2.0]) / np.sqrt(5.0))
    assert rotation[:, 0] @ [3.0, 1.0, 0.0] > 0.0
    np.testing.assert_allclose(downward(np.pi / 2), [[0, 1, 0], [1, 0, 0], [0, 0, -1]], atol=1e-12)


# In the grip frame, with the fingers 4 cm from the middle: where a point is, and whether it is in the hand.
PLACES = [
    ((0.0, 0.0, 0.0), False),  # between the fingers
    ((0.05, 0.0, 0.0), True),  # in a finger
    ((-0.05, 0.0, -0.02), True),  # in the other
    ((0.05, 0.02, 0.0), False),  # beside a finger
    ((0.05, 0.0, 0.02), False),  # below its tip
    ((0.08, 0.0, 0.0), False),  # outside
    ((0.09, 0.0, -0.08), True),  # in the palm
    ((0.0, 0.04, -0.08), False),  # beside the palm
    ((0.0, 0.05, -0.2), True),  # in the wrist
    ((0.09, 0.0, -0.2), False),  # beside the wrist
]


@pytest.mark.parametrize(("place", "within"), PLACES)
def test_hand_volume(place, within):
    rotation = grip_rotation((0.6, 0.0, -0.8), (0.0, 1.0, 0.0))
    position = np.array([0.3, -0.2, 1.1])
    point = position + rotation @ place
    away = np.add(position, [0.0, 0.0, 1.0])
    hits = HandVolume().count_hits(point[None], np.stack([position, away]), rotation)
    assert hits.tolist() == [int(within), 0]


def test_hand_volume_without_wrist_with_margin_and_closed():
    points = np.array([[0.0, 0.0, -0.2], [0.0, 0.0, 0.012], [0.01, 0.0, 0.0]])
    origin, upright = np.zeros((1, 3)), np.eye(3)
    assert HandVolume(opening=0.04, margin=0.0).count_hits(points, origin, upright) == 1
    assert HandVolume(opening=0.04, margin=0.0).count_hits(points, origin, upright, wrist=False) == 0
    assert HandVolume(opening=0.0, margin=0.0).count_hits(points, origin, upright, wrist=False) == 1
    assert HandVolume(opening=0.0, margin=0.004).count_hits(points, origin, upright, wrist=False) == 2
