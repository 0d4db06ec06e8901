"""LIBERO stepped and drawn by us against LIBERO's own environment: equal to the last bit."""

import os
import subprocess
import sys

import numpy as np
import pytest

from hilam_hf.envs.libero import LiberoEnv, LiberoSimulator, parse_task, read_initial_states
from hilam_hf.envs.libero.culling import needed_geometries, possibly_visible
from hilam_hf.envs.registry import get_protocol
from hilam_hf.envs.rendering import RenderQuality
from tests.envs.libero import reference
from tests.helpers import ROOT

pytestmark = pytest.mark.sim
CAMERAS = ("agentview", "robot0_eye_in_hand")
STEPS = 14
# A drawer that is open at the start, so that a property is drawn; a scene that begins with nothing but placements; a
# burner, whose box reflects; no initial state.
EPISODES = [("libero_10/3", 5, 2), ("libero_object/4", 1, 7), ("libero_goal/7", 3, None)]


def _reference(assets, out, task, seed, initial_state):
    state = "-" if initial_state is None else str(initial_state)
    command = [sys.executable, reference.__file__, str(assets), str(out), task, str(seed), state, str(STEPS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return np.load(out)


def _run(simulator, seed, initial_state):
    """The same episode here, after another one, from which nothing may remain."""
    simulator.reset(seed + 1)
    for action in reference.actions(3, seed + 1):
        simulator.step(action)
    simulator.reset(seed, initial_state)
    rows = [(simulator.robot_state(), simulator.draw(CAMERAS, reference.SIZE, RenderQuality.EXACT))]
    states, done = [simulator.state()], [False]
    for action in reference.actions(STEPS, seed):
        success = simulator.step(action, lambda: rows.append((simulator.robot_state(), _draw(simulator))))
        states.append(simulator.state())
        done.append(success)
    return rows, np.stack(states), done


def _draw(simulator):
    return simulator.draw(CAMERAS, reference.SIZE, RenderQuality.EXACT)


@pytest.mark.parametrize(("task", "seed", "number"), EPISODES)
def test_equals_libero_bit_for_bit(libero_assets, tmp_path, task, seed, number):
    expected = _reference(libero_assets, tmp_path / "reference.npz", task, seed, number)
    record = parse_task(task)
    simulator = LiberoSimulator(record.bddl_file, libero_assets)
    initial_state = None if number is None else read_initial_states(record.initial_states_file)[number]
    rows, states, done = _run(simulator, seed, initial_state)

    np.testing.assert_array_equal(simulator.model.body_pos, expected["fixtures"])
    np.testing.assert_array_equal(states, expected["states"])
    np.testing.assert_array_equal(done, expected["done"])
    for name, attribute in (
        ("eef_pos", "ee_position"),
        ("eef_quat", "ee_quaternion"),
        ("joint_pos", "joint_positions"),
        ("gripper_qpos", "gripper_positions"),
    ):
        ours = np.stack([getattr(state, attribute) for state, _ in rows])
        np.testing.assert_array_equal(ours, expected[f"robot0_{name}"])
    for camera in CAMERAS:
        ours = np.stack([pictures[camera] for _, pictures in rows])
        np.testing.assert_array_equal(ours, expected[f"{camera}_image"])
    simulator.close()


@pytest.fixture(scope="module")
def stove(libero_assets):
    environment = LiberoEnv("libero_goal/1", assets=libero_assets, protocol=_small())
    yield environment
    environment.close()


def _small():
    return get_protocol("openvla").with_options(image_size=64)


@pytest.mark.parametrize("quality", RenderQuality)
def test_what_is_left_out_does_not_show(stove, monkeypatch, quality):
    stove.reset(seed=0, options={"initial_state": 3}, draw=False)
    for action in reference.actions(12, 0):
        stove.step(action, draw=False)
        culled = stove.simulator.draw(CAMERAS, 64, quality)
        with monkeypatch.context() as patch:
            patch.setattr(
                "hilam_hf.envs.libero.simulator.needed_geometries",
                lambda model, *_: np.ones(model.ngeom, bool),
            )
            whole = stove.simulator.draw(CAMERAS, 64, quality)
        for camera in CAMERAS:
            np.testing.assert_array_equal(culled[camera], whole[camera])


def test_geometries_with_a_vertex_in_view_are_visible(stove):
    stove.reset(seed=0, options={"initial_state": 3}, draw=False)
    model, data = stove.simulator.model, stove.simulator.data
    for name in CAMERAS:
        camera = model.camera(name).id
        visible = possibly_visible(model, data, camera)
        meshes = [geometry for geometry in range(model.ngeom) if model.geom_dataid[geometry] >= 0]
        shown = [geometry for geometry in meshes if _has_vertex_in_view(model, data, camera, geometry)]
        assert len(shown) > 5
        assert visible[shown].all()
        assert (~visible).sum() > 20


def _has_vertex_in_view(model, data, camera, geometry):
    mesh = model.geom_dataid[geometry]
    start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    points = model.mesh_vert[start : start + count] @ data.geom_xmat[geometry].reshape(3, 3).T
    seen = (points + data.geom_xpos[geometry] - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)
    edge = -seen[:, 2] * np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
    return bool(((edge > 0) & (np.abs(seen[:, 0]) < edge) & (np.abs(seen[:, 1]) < edge)).any())


def test_everything_is_drawn_where_a_mirror_is_in_view(stove):
    stove.reset(seed=0, options={"initial_state": 3}, draw=False)
    model, data = stove.simulator.model, stove.simulator.data
    camera = model.camera("agentview").id
    assert needed_geometries(model, data, camera, RenderQuality.EXACT).all()
    assert not needed_geometries(model, data, camera, RenderQuality.FAST).all()
    reflectance = model.mat_reflectance.copy()
    model.mat_reflectance[:] = 0
    assert not needed_geometries(model, data, camera, RenderQuality.EXACT).all()
    model.mat_reflectance[:] = reflectance


def test_state_is_set_and_read(stove):
    simulator = stove.simulator
    states = stove.initial_states
    simulator.reset(0)
    simulator.set_state(states[4])
    np.testing.assert_array_equal(simulator.state(), states[4])
    with pytest.raises(ValueError, match="a state has"):
        simulator.set_state(states[4][:-1])


def test_global_random_numbers_are_left_alone(stove):
    np.random.seed(11)
    before = np.random.random()
    np.random.seed(11)
    stove.simulator.reset(5)
    assert np.random.random() == before
