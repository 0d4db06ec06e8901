"""LIBERO's tasks as environments: what is seen and felt, how episodes start and end, bad input."""

import weakref

import gymnasium
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hilam_hf.envs.libero import LiberoEnv
from hilam_hf.envs.libero.host import LiberoHost
from hilam_hf.envs.protocols import EpisodeSpec
from hilam_hf.envs.registry import get_protocol

pytestmark = pytest.mark.sim
SMALL = get_protocol("openvla").with_options(image_size=32, settle_steps=2)
STILL = np.zeros(7, np.float32)


@pytest.fixture(scope="module")
def env(libero_assets):
    environment = LiberoEnv("libero_object/2", protocol=SMALL, quality="fast", assets=libero_assets)
    yield environment
    environment.close()


def _start(env, seed=0, initial_state=0, **options):
    return env.reset(seed=seed, options={"initial_state": initial_state}, **options)


def test_observations_fit_their_space_and_say_what_they_are(env):
    observation, info = _start(env, seed=3, initial_state=5)
    assert env.observation_space.contains(observation)
    assert set(observation["pixels"]) == {"agentview", "robot0_eye_in_hand"}
    assert info == {
        "success": False,
        "is_success": False,
        "task": "libero_object/2",
        "instruction": "pick up the salad dressing and place it in the basket",
        "seed": 3,
        "initial_state": 5,
    }
    assert isinstance(env, gymnasium.Env) and env.fps == 20.0


def test_seed_and_initial_state_determine_the_episode(env):
    def states(seed, number, actions):
        _start(env, seed, number, draw=False)
        return np.stack([env.step(action, draw=False)[0]["agent_pos"] for action in actions])

    actions = np.random.default_rng(0).uniform(-1, 1, (4, 7))
    first = states(0, 1, actions)
    assert not np.array_equal(states(0, 2, actions), first)
    np.testing.assert_array_equal(states(0, 1, actions), first)


def test_settling_is_done_in_the_reset_and_does_not_count(env, libero_assets):
    _start(env, draw=False)
    assert env.simulator.data.time == pytest.approx(env.initial_states[0][0] + 2 * 0.05)
    outcomes = [env.step(STILL, draw=False) for _ in range(2)]
    assert not any(truncated for *_, truncated, _ in outcomes)
    short = LiberoEnv("libero_object/2", protocol=SMALL, render=False, assets=libero_assets, max_steps=2)
    _start(short)
    assert [short.step(STILL)[3] for _ in range(2)] == [False, True]
    short.close()


def test_pictures_are_drawn_when_asked_for(env):
    observation, _ = _start(env, draw=False)
    assert "pixels" not in observation
    assert "pixels" in env.step(STILL)[0]
    assert "pixels" not in env.step(STILL, draw=False)[0]


def test_actions_move_the_hand_in_the_worlds_frame_and_close_fingers(env):
    _start(env, draw=False)
    start = env.robot_state()
    for _ in range(15):
        env.step(np.array([0.5, 0.0, 0.4, 0.0, 0.0, 0.6, 1.0]), draw=False)
    end = env.robot_state()
    moved = end.ee_position - start.ee_position
    assert moved[0] > 0.05 and moved[2] > 0.04 and abs(moved[1]) < 0.02
    turn = Rotation.from_quat(end.ee_quaternion) * Rotation.from_quat(start.ee_quaternion).inv()
    assert turn.as_rotvec()[2] > 0.3 and np.abs(turn.as_rotvec()[:2]).max() < 0.1
    assert np.abs(end.gripper_positions).max() < np.abs(start.gripper_positions).min()


def test_success_is_liberos_and_ends_the_episode(env, monkeypatch):
    _start(env, draw=False)
    monkeypatch.setattr(env.simulator.environment, "_check_success", lambda: True)
    _, reward, terminated, truncated, info = env.step(STILL, draw=False)
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)
    monkeypatch.setattr(env, "terminate_on_success", False)
    assert env.step(STILL, draw=False)[2] is False


def test_the_upright_picture_has_the_robot_at_the_top(env):
    # agentview looks at the robot, whose light links stand above the floor's middle.
    _start(env)
    picture = env.simulator.draw(["agentview"], 32, env.quality)["agentview"]
    upright = picture[::-1].astype(int)
    np.testing.assert_array_equal(env.render(), upright[:, ::-1])
    hand = env.robot_state().ee_position
    model, data = env.simulator.model, env.simulator.data
    camera = model.camera("agentview").id
    seen = (hand - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)
    assert seen[1] > 0  # the hand is above the view's middle


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "metaworld"}, "LIBERO has no protocol 'metaworld'; it has openvla, lerobot"),
        ({"protocol": get_protocol("metaworld")}, "protocol metaworld is for metaworld, not for LIBERO"),
        ({"protocol": "vla"}, "LIBERO has no protocol 'vla'; it has openvla"),
        ({"quality": "best"}, "render quality must be one of exact, fast; got 'best'"),
        ({"task": "libero_object/12"}, "tasks are numbered 0 to 9"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"assets": "/nowhere"}, "/nowhere: there is no such folder of LIBERO assets"),
        ({"protocol": SMALL.with_options(cameras=("wrist",))}, "has no camera wrist; it has .*agentview"),
    ],
)
def test_bad_options_are_named(libero_assets, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        LiberoEnv(**{"render": False, "assets": libero_assets, **options})


def test_bad_calls_are_named(env, libero_assets):
    _start(env, draw=False)
    with pytest.raises(ValueError, match=r"libero_object/2, step 0: an action must be 7 finite numbers"):
        env.step(np.zeros(4))
    with pytest.raises(ValueError, match=r"7 finite numbers, got \[nan"):
        env.step(np.full(7, np.nan))
    with pytest.raises(ValueError, match="has fixed initial states: pass"):
        env.reset(seed=0)
    with pytest.raises(ValueError, match="has initial states 0 to 49, got 50"):
        _start(env, initial_state=50)
    fresh = LiberoEnv("libero_object/2", protocol="baku", render=False, assets=libero_assets)
    with pytest.raises(RuntimeError, match="before reset"):
        fresh.step(STILL)
    with pytest.raises(ValueError, match="protocol baku draws initial states, got number 3"):
        _start(fresh, initial_state=3)
    fresh.reset(seed=0)
    fresh.close()
    fresh.close()


def test_host_replaces_the_environment_and_quotes_versions(libero_assets):
    host = LiberoHost(protocol=SMALL, render=False, assets=str(libero_assets), extras=("expert_action",))
    with pytest.raises(RuntimeError, match="before reset"):
        host.step(STILL, False)
    kept = []
    for task in ("libero_object/2", "libero_object/2", "libero_object/3"):
        observation, info = host.reset(EpisodeSpec(task, 0, 7, 0), False)
        assert info["task"] == task
        assert observation["expert_action"].shape == (7,)
        kept.append(weakref.ref(host._environment.simulator.environment))
    # One environment for a task, and none left of the task before.
    assert kept[0]() is None and kept[2]() is not None
    observation, *_ = host.step(observation["expert_action"], False)
    assert np.isfinite(observation["expert_action"]).all()
    record = host.provenance()
    assert record["mujoco"] == "3.3.0" and record["renderer"] is None and len(record["assets_fingerprint"]) == 16
    assert host.fps() == 20.0 and host.memory() > 2**27
    host.close()
    with pytest.raises(ValueError, match="LIBERO's observations have no privileged"):
        LiberoHost(protocol=SMALL, extras=("privileged",), assets=str(libero_assets))
