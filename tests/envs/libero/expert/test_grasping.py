"""The search for grasps on synthetic objects, against what a slow loop over poses finds."""

import math

import numpy as np
import pytest

from hilam_hf.envs.libero.expert.geometry import HandVolume, box_surface, cylinder_surface, thin
from hilam_hf.envs.libero.expert.grasping import Grasp, GraspStyle, search_grasps
from hilam_hf.envs.libero.expert.picking import GraspChoice, way_up


def _at(points, *offset):
    """Points of an object, moved."""
    return np.add(points, offset)


NOTHING = np.zeros((0, 3))
TABLE = 0.9
# 4 cm between the sides along x, too much for the hand along y.
BOX = _at(box_surface([0.02, 0.05, 0.03], 0.005), 0.1, -0.2, TABLE + 0.03)


def _ring(radius, height):
    """A thin-walled cup."""
    walls = [cylinder_surface(r, height / 2, 0.004) for r in (radius, radius - 0.004)]
    walls = [wall[np.linalg.norm(wall[:, :2], axis=1) > radius - 0.005] for wall in walls]
    return _at(np.concatenate(walls), 0.0, 0.0, TABLE + height / 2)


def _free(points, grasp, margin=0.001):
    """Whether the hand at a grasp has the object's points between the fingers alone."""
    local = (points - grasp.position) @ grasp.rotation
    opened = [local[:, 0] > 0.039, local[:, 0] < 0.068, np.abs(local[:, 1]) < 0.011 + margin]
    finger = np.logical_and.reduce([*opened, local[:, 2] > -0.05, local[:, 2] < 0.010 + margin])
    palm = (
        (np.abs(local[:, 0]) < 0.103) & (np.abs(local[:, 1]) < 0.033) & (local[:, 2] < -0.031) & (local[:, 2] > -0.12)
    )
    return finger.sum() + palm.sum() <= 1


def test_box_is_grasped_across_its_narrow_side():
    grasps = search_grasps(BOX, NOTHING, GraspStyle(depth=0.024))
    best = grasps[0]
    assert best.yaw == pytest.approx(0.0)
    np.testing.assert_allclose(best.position[:2], [0.1, -0.2], atol=0.006)
    assert best.position[2] == pytest.approx(TABLE + 0.06 - 0.024, abs=1e-9)
    assert best.width == pytest.approx(0.04, abs=1e-6)
    assert best.hits == 0
    assert [grasp.score for grasp in grasps] == sorted((grasp.score for grasp in grasps), reverse=True)


def test_all_grasps_are_possible_and_centred():
    for points, style in ((BOX, GraspStyle()), (_ring(0.05, 0.06), GraspStyle(depth=0.026, widest=0.03))):
        grasps = search_grasps(points, NOTHING, style)
        assert grasps
        cloud = thin(points, 0.005)
        for grasp in grasps:
            assert _free(cloud, grasp)
            local = (cloud - grasp.position) @ grasp.rotation
            band = (np.abs(local[:, 1]) < 0.011) & (local[:, 2] < 0.006) & (local[:, 2] > -0.013)
            held = local[band & (np.abs(local[:, 0]) < 0.039), 0]
            assert abs(held.min() + held.max()) / 2 < 0.0015
            assert np.ptp(held) == pytest.approx(grasp.width)
            assert grasp.width <= style.widest
            # The finger tips, a centimetre below the grip site, stay above the table.
            assert grasp.position[2] - 0.010 > TABLE


def test_finds_what_a_slow_search_finds():
    """Every yaw at which some position of a fine grid is possible has a grasp; along the box there is none."""
    cloud = thin(BOX, 0.005)
    found = {round(math.degrees(grasp.yaw)) % 180 for grasp in search_grasps(BOX, NOTHING, GraspStyle(depth=0.024))}
    possible = set()
    for degrees in range(0, 180, 15):
        yaw = math.radians(degrees)
        x = np.array([math.cos(yaw), math.sin(yaw), 0.0])
        rotation = np.stack([x, np.cross([0.0, 0.0, -1.0], x), [0.0, 0.0, -1.0]], axis=1)
        for along in np.arange(-0.05, 0.051, 0.0025):
            for across in np.arange(-0.02, 0.021, 0.001):
                position = np.array([0.1 + across, -0.2 + along, TABLE + 0.036])
                local = (cloud - position) @ rotation
                held = local[(np.abs(local[:, 1]) < 0.011) & (np.abs(local[:, 0]) < 0.039)]
                held = held[(held[:, 2] < 0.006) & (held[:, 2] > -0.013), 0]
                centred = len(held) > 1 and abs(held.min() + held.max()) / 2 < 0.0015 and np.ptp(held) <= 0.072
                if centred and HandVolume(margin=0.001).count_hits(cloud, position[None], rotation)[0] <= 1:
                    possible.add(degrees)
    assert {0, 15, 165} <= possible <= found
    assert 90 not in found


def test_rims_are_pinched_radially():
    points = _ring(0.05, 0.06)
    grasps = search_grasps(points, NOTHING, GraspStyle(depth=0.026, widest=0.03, radial=0.93))
    for grasp in grasps:
        ray = grasp.position[:2] - points[:, :2].mean(axis=0)
        assert np.linalg.norm(ray) == pytest.approx(0.048, abs=0.004)
        closing = grasp.rotation[:2, 0]
        assert abs(ray @ closing) >= 0.93 * np.linalg.norm(ray)
        assert grasp.width < 0.02


def test_a_neighbour_is_avoided():
    beside = _at(box_surface([0.02, 0.15, 0.05], 0.005), 0.16, -0.2, TABLE + 0.05)
    ring = _ring(0.05, 0.06)
    wall = _at(box_surface([0.02, 0.15, 0.1], 0.005), 0.09, 0.0, TABLE + 0.1)
    across = GraspStyle(depth=0.024, yaws=(0.0,))
    assert all(grasp.hits == 0 for grasp in search_grasps(BOX, NOTHING, across))
    assert all(grasp.hits > 0 for grasp in search_grasps(BOX, beside, across))
    best = search_grasps(ring, wall, GraspStyle(depth=0.026, widest=0.03, radial=0.93))[0]
    assert best.hits == 0
    assert best.position[0] < 0.0


def test_out_of_reach_is_marked_and_comes_last():
    def reachable(positions, rotation):
        return positions[:, 1] < -0.2

    grasps = search_grasps(BOX, NOTHING, GraspStyle(), reachable)
    reached = [grasp.position[1] < -0.2 for grasp in grasps]
    assert reached[0]
    assert not all(reached)
    assert reached == sorted(reached, reverse=True)
    assert all(grasp.hits == (0 if grasp.position[1] < -0.2 else 100) for grasp in grasps)


def test_leaning_over_turns_the_approach_about_the_closing_direction():
    lean = math.radians(25.0)
    for grasp in search_grasps(BOX, NOTHING, GraspStyle(depth=0.015, yaws=(0.0,), lean=lean)):
        np.testing.assert_allclose(grasp.rotation[:, 0], [1.0, 0.0, 0.0], atol=1e-12)
        assert -grasp.rotation[2, 2] == pytest.approx(math.cos(lean))


def test_nothing_to_grasp():
    assert search_grasps(cylinder_surface(0.08, 0.03, 0.005), NOTHING, GraspStyle()) == []


def _grasp(score, hits=0, x=0.0, yaw=0.0):
    closing = np.array([math.cos(yaw), math.sin(yaw), 0.0])
    rotation = np.stack([closing, np.cross([0.0, 0.0, -1.0], closing), [0.0, 0.0, -1.0]], axis=1)
    return Grasp(np.array([x, 0.0, 0.0]), rotation, 0.01, hits, score)


def test_choice_without_a_generator_is_the_best():
    grasps = [_grasp(0.5), _grasp(0.49, x=0.1)]
    assert GraspChoice().choose("mug", grasps, 0.04) is grasps[0]
    assert GraspChoice().choose("mug", [], 0.04) is None


def test_choice_is_among_nearly_equal_grasps():
    grasps = [_grasp(0.50), _grasp(0.47, x=0.1), _grasp(0.48, hits=1, x=0.2), _grasp(0.40, x=0.3)]
    choice = GraspChoice(np.random.default_rng(0))
    chosen = [choice.choose("mug", grasps, 0.04) for _ in range(40)]
    assert {id(grasp) for grasp in chosen} == {id(grasps[0]), id(grasps[1])}
    assert choice.choose("mug", grasps, 0.0) is grasps[0]


def test_choice_leaves_out_what_failed():
    grasps = [_grasp(0.5), _grasp(0.45, x=0.005, yaw=0.1), _grasp(0.4, yaw=1.0), _grasp(0.3, x=0.1)]
    choice = GraspChoice()
    choice.reject("mug")
    assert choice.choose("mug", grasps, 0.0) is grasps[0]
    choice.taken["mug"] = grasps[0]
    choice.reject("mug")
    assert choice.choose("mug", grasps, 0.0) is grasps[2]
    assert choice.choose("bowl", grasps, 0.0) is grasps[0]
    for grasp in grasps[2:]:
        choice.taken["mug"] = grasp
        choice.reject("mug")
    assert choice.choose("mug", grasps, 0.0) is None


def test_fingers_are_alike_after_half_a_turn():
    assert _grasp(0.0, yaw=0.05).resembles(_grasp(0.0, yaw=math.pi - 0.05))
    assert not _grasp(0.0, yaw=0.0).resembles(_grasp(0.0, yaw=math.pi / 2))


def test_way_up_leads_from_under_an_overhang():
    shelf = _at(box_surface([0.1, 0.1, 0.01], 0.005), 0.1, 0.0, 1.2)
    assert not way_up(_at(BOX, -0.3, 0.0, 0.0), shelf).any()
    assert not way_up(BOX, _at(box_surface([0.1, 0.1, 0.01], 0.005), 0.1, -0.2, 0.8)).any()
    under = _at(box_surface([0.02, 0.02, 0.02], 0.005), 0.01, 0.0, 1.0)
    aside = way_up(under, shelf)
    assert aside[2] == 0.0
    # It lies from -0.01 to 0.03 and the shelf begins at 0: 3 cm and the clearance of 1.2 cm, in steps of 2 cm.
    np.testing.assert_allclose(aside, [-0.06, 0.0, 0.0], atol=1e-9)
