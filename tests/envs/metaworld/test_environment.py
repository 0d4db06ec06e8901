"""Meta-World environments: names, spaces, seeds, pictures."""

import subprocess
import sys

import numpy as np
import pytest

from hilam_hf.envs.metaworld import CAMERAS, INSTRUCTIONS, MetaWorldEnv, ScriptedExpert, instruction, normalize_task
from hilam_hf.envs.registry import get_protocol
from hilam_hf.envs.seeds import FIRST_EVALUATION_SEED, demonstration_seed, evaluation_seed

# One that hangs the goal on the state before it, two whose objects lag a reset behind, and those of the demo.
SEEDED_TASKS = ("push-wall", "window-close", "drawer-open", "door-open", "button-press-topdown")
PROTOCOL = get_protocol("metaworld")


def seen(*cameras, image_size=64):
    """The protocol with other pictures."""
    return PROTOCOL.with_options(cameras=cameras, image_size=image_size)


@pytest.fixture
def make():
    """Make environments that are closed at the end."""
    made = []

    def _make(task="drawer-open", **options):
        made.append(MetaWorldEnv(task, **options))
        return made[-1]

    yield _make
    for environment in made:
        environment.close()


def _state(environment):
    simulator = environment._simulator
    parts = (
        environment.privileged_state(),
        simulator.data.qpos,
        simulator.data.qvel,
        simulator.data.xpos.ravel(),
        simulator.data.site_xpos.ravel(),
        simulator.model.body_pos.ravel(),
    )
    return np.concatenate(parts)


def _wander(environment, steps, seed):
    generator = np.random.default_rng(seed)
    return [environment.step(generator.uniform(-1, 1, 4).astype(np.float32)) for _ in range(steps)]


def test_task_names_take_a_version_suffix():
    assert normalize_task("drawer-open-v3") == normalize_task("drawer-open") == "drawer-open"
    assert instruction("button-press-topdown-v3") == "press the button from above"


def test_unknown_task_lists_the_nearest():
    with pytest.raises(ValueError, match=r"'draw-open'.*did you mean drawer-open"):
        normalize_task("draw-open")
    with pytest.raises(ValueError, match=r"the tasks are assembly, basketball"):
        normalize_task("xyzzy")


def test_seeds_of_demonstrations_and_evaluations_are_disjoint():
    assert demonstration_seed(0, 7) == 7
    assert demonstration_seed(99, 9_999) == FIRST_EVALUATION_SEED - 1
    assert evaluation_seed(0, 0) == FIRST_EVALUATION_SEED
    assert evaluation_seed(3, 5) == 1_030_005
    for call in (
        lambda: demonstration_seed(100, 0),
        lambda: evaluation_seed(-1, 0),
        lambda: evaluation_seed(0, 10_000),
    ):
        with pytest.raises(ValueError):
            call()


@pytest.mark.sim
def test_every_task_of_the_simulator_has_an_instruction_of_its_own():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.policies import ENV_POLICY_MAP

    assert {f"{task}-v3" for task in INSTRUCTIONS} == set(ALL_V3_ENVIRONMENTS) == set(ENV_POLICY_MAP)
    assert len(set(INSTRUCTIONS.values())) == len(INSTRUCTIONS) == 50


@pytest.mark.sim
def test_observation_and_action_spaces(make):
    environment = make(protocol=seen("corner2", "gripperPOV", image_size=32), privileged=True)
    observation, info = environment.reset(seed=0)
    assert environment.observation_space.contains(observation)
    assert {camera: view.shape for camera, view in observation["pixels"].items()} == {
        "corner2": (32, 32, 3),
        "gripperPOV": (32, 32, 3),
    }
    # The hand starts at (0, 0.6, 0.2) with the gripper open.
    np.testing.assert_allclose(observation["agent_pos"], [0, 0.6, 0.2, 1], atol=0.02)
    assert info["instruction"] == "open the drawer" and info["success"] is False
    assert environment.fps == pytest.approx(80) and environment.metadata["render_fps"] == 80
    environment.action_space.seed(0)
    observation, *_, info = environment.step(environment.action_space.sample())
    assert environment.observation_space.contains(observation)
    assert info["task"] == "drawer-open" and info["is_success"] is info["success"]


@pytest.mark.sim
@pytest.mark.parametrize("task", SEEDED_TASKS)
def test_seed_alone_determines_the_episode(make, task):
    fresh, used = make(task, render=False), make(task, render=False)
    np.random.seed(1)
    fresh.reset(seed=5)
    expected = _state(fresh)
    used.reset(seed=9)
    assert not np.array_equal(_state(used), expected)
    _wander(used, 25, seed=0)
    np.random.seed(2)
    used.reset(seed=5)
    np.testing.assert_array_equal(_state(used), expected)
    for one, other in zip(_wander(fresh, 10, seed=3), _wander(used, 10, seed=3), strict=True):
        np.testing.assert_array_equal(one[0]["agent_pos"], other[0]["agent_pos"])
        assert one[1] == other[1]


@pytest.mark.sim
def test_seed_determines_the_state_in_another_process(make):
    code = (
        "import sys; from hilam_hf.envs.metaworld import MetaWorldEnv\n"
        "env = MetaWorldEnv('window-close', render=False); env.reset(seed=1234567)\n"
        "sys.stdout.write(env.privileged_state().tobytes().hex()); env.close()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    environment = make("window-close", render=False)
    environment.reset(seed=1234567)
    assert environment.privileged_state().tobytes().hex() == done.stdout
    assert done.stderr == ""


@pytest.mark.sim
@pytest.mark.parametrize("task", ["window-close", "drawer-open"])
def test_first_observation_shows_the_state_that_the_next_step_starts_from(make, task):
    environment = make(task, render=False)
    environment.reset(seed=3)
    before = environment.privileged_state()
    environment.step(np.zeros(4, np.float32))
    # Objects stand still while the hand does.
    np.testing.assert_allclose(environment.privileged_state()[4:7], before[4:7], atol=2e-3)


@pytest.mark.sim
def test_unseeded_resets_follow_from_the_first_seed(make):
    one, other = make(render=False), make(render=False)
    for environment in (one, other):
        environment.reset(seed=1)
    seeds = [[environment.reset()[1]["seed"] for _ in range(2)] for environment in (one, other)]
    assert seeds[0] == seeds[1] and seeds[0][0] != seeds[0][1]


@pytest.mark.sim
@pytest.mark.parametrize(("task", "longest"), [("drawer-open", 110), ("door-open", 100), ("button-press-topdown", 90)])
def test_expert_solves_the_task_and_the_episode_ends(make, task, longest):
    environment = make(task, render=False)
    expert = ScriptedExpert(task)
    environment.reset(seed=0)
    for _ in range(longest):
        _, _, terminated, truncated, info = environment.step(expert.act(environment.privileged_state()))
        assert not truncated and terminated == info["success"]
        if terminated:
            break
    assert terminated


@pytest.mark.sim
def test_episode_is_truncated_after_max_steps(make):
    environment = make(render=False, max_steps=3)
    environment.reset(seed=0)
    assert [environment.step(np.zeros(4))[3] for _ in range(3)] == [False, False, True]


@pytest.mark.sim
def test_settling_comes_before_the_first_observation_and_does_not_count(make):
    push = (1.0, 0.0, 0.0, -1.0)
    plain = make(render=False, max_steps=4)
    plain.reset(seed=0)
    expected = [plain.step(np.array(push))[0]["agent_pos"] for _ in range(3)][-1]
    settling = PROTOCOL.with_options(settle_steps=3, settle_action=push, max_steps={"": 2})
    settled = make(protocol=settling, render=False)
    observation, _ = settled.reset(seed=0)
    np.testing.assert_array_equal(observation["agent_pos"], expected)
    assert [settled.step(np.zeros(4))[3] for _ in range(2)] == [False, True]


@pytest.mark.sim
def test_pictures_are_drawn_on_demand(make):
    environment = make(protocol=seen("workspace", image_size=16))
    assert "pixels" not in environment.reset(seed=0, draw=False)[0]
    assert "pixels" not in environment.step(np.zeros(4), draw=False)[0]
    assert environment.step(np.zeros(4))[0]["pixels"]["workspace"].shape == (16, 16, 3)


@pytest.mark.sim
def test_expert_noise_depends_on_its_seed_and_spares_the_gripper(make):
    environment = make(render=False)
    environment.reset(seed=0)
    state = environment.privileged_state()
    clean = ScriptedExpert("drawer-open").act(state)
    noisy = [ScriptedExpert("drawer-open-v3", noise=0.3, seed=seed).act(state) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2]) and not np.array_equal(noisy[0], clean)
    assert noisy[0][3] == clean[3] and np.abs(noisy[0]).max() <= 1
    with pytest.raises(ValueError, match="noise must be at least 0"):
        ScriptedExpert("drawer-open", noise=-1.0)


@pytest.mark.sim
@pytest.mark.parametrize("camera", ["corner2", "corner2_close", "workspace"])
def test_pictures_are_the_right_way_up(make, camera):
    # The drawer is the one green thing: raising the model's body by 30 cm must move it up in the picture.
    environment = make(protocol=seen(camera))
    environment.reset(seed=0)
    rows = []
    for height in (0.0, 0.3):
        simulator = environment._simulator
        simulator.model.body("drawer").pos[2] = height
        sys.modules["mujoco"].mj_forward(simulator.model, simulator.data)
        picture = environment.render().astype(int)
        green = (picture[..., 1] > picture[..., 0] + 20) & (picture[..., 1] > picture[..., 2] + 20)
        assert green.sum() > 20
        rows.append(np.nonzero(green)[0].mean())
    assert rows[1] < rows[0] - 3


@pytest.mark.sim
def test_close_camera_is_corner2_moved_nearer(make):
    model = make(render=False)._simulator.model
    far, close = model.camera("corner2"), model.camera(CAMERAS["corner2_close"].model_camera)
    np.testing.assert_allclose(close.pos, [0.75, 0.075, 0.7])
    np.testing.assert_allclose(close.quat, far.quat)


@pytest.mark.sim
def test_quality_changes_the_picture_but_not_the_scene(make):
    pictures = []
    for quality in ("fast", "exact"):
        environment = make(quality=quality, protocol=seen("corner2"))
        pictures.append(environment.reset(seed=0)[0]["pixels"]["corner2"].astype(int))
    difference = np.abs(pictures[0] - pictures[1]).mean()
    assert 0.1 < difference < 30


@pytest.mark.sim
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"task": "open-drawer"}, "open-drawer"),
        ({"protocol": seen("corner9")}, r"cameras: got \('corner9',\), expected one or several different of corner, "),
        ({"protocol": seen()}, r"cameras: got \(\), expected one or several"),
        ({"protocol": seen("corner", "corner")}, "expected one or several different"),
        ({"protocol": "openvla"}, "Meta-World has no protocol 'openvla'; it has metaworld"),
        ({"protocol": get_protocol("openvla")}, "protocol openvla is for libero, not for Meta-World"),
        ({"max_steps": -1}, "max_steps"),
        ({"quality": "best"}, "best"),
    ],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        MetaWorldEnv(**options)


@pytest.mark.sim
@pytest.mark.parametrize("action", [np.array([0, np.nan, 0, 0]), np.zeros(3), np.array([np.inf] * 4)])
def test_bad_actions_name_task_and_step(make, action):
    environment = make(render=False)
    with pytest.raises(RuntimeError, match="before reset"):
        environment.step(np.zeros(4))
    environment.reset(seed=0)
    environment.step(np.zeros(4))
    with pytest.raises(ValueError, match=r"drawer-open, step 1: an action must be 4 finite numbers"):
        environment.step(action)


@pytest.mark.sim
def test_forgotten_environment_leaves_no_complaint_at_exit():
    code = "from hilam_hf.envs.metaworld import MetaWorldEnv; env = MetaWorldEnv(); env.reset(seed=0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
