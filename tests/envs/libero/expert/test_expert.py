"""LIBERO's scripted expert in the simulator: goals that still hold at the end, phases, determinism, noise, refusals."""

from itertools import groupby

import numpy as np
import pytest

from hilam_hf.envs.libero import LiberoSimulator, parse_task, read_initial_states
from hilam_hf.envs.libero.expert.expert import LiberoExpert
from hilam_hf.envs.metaworld.phases import PHASES

pytestmark = pytest.mark.sim
SETTLE = 10
OPENING = np.array([0.0] * 6 + [-1.0])
PICK_AND_PLACE = ["approach", "descend", "grasp", "lift", "carry", "place", "retract"]
# A task of each suite, fixture seed, initial state, phases in order, and the protocol's step limit.
EPISODES = [
    ("libero_object/1", 2, 7, PICK_AND_PLACE, 280),
    ("libero_spatial/0", 1, 4, PICK_AND_PLACE, 220),
    ("libero_goal/0", 0, 9, ["approach", "grasp", "pull", "retract"], 300),
    ("libero_goal/7", 2, 3, ["approach", "descend", "grasp", "turn", "retract"], 300),
    ("libero_10/5", 1, 11, PICK_AND_PLACE, 520),
]


@pytest.fixture(scope="module")
def simulate(libero_assets):
    """Makes the simulator of a task, once for all tests, at the start of an episode."""
    simulators = {}

    def make(task, seed=0, initial_state=0):
        record = parse_task(task)
        if task not in simulators:
            simulators[task] = LiberoSimulator(record.bddl_file, libero_assets, drawing=False)
        simulator = simulators[task]
        simulator.reset(seed, read_initial_states(record.initial_states_file)[initial_state])
        for _ in range(SETTLE):
            simulator.step(OPENING)
        return simulator

    yield make
    for simulator in simulators.values():
        simulator.close()


def _run(simulator, expert, limit):
    """Actions and phases until the plan has ended, and whether the goal holds 8 steps later."""
    actions, phases = [], []
    while len(actions) < limit:
        action = expert.act()
        if expert.finished:
            break
        actions.append(expert.perturb(action))
        phases.append(expert.phase)
        simulator.step(actions[-1])
    assert expert.finished
    for _ in range(8):
        simulator.step(expert.act())
    return np.stack(actions), phases, simulator.success()


@pytest.mark.parametrize(("task", "seed", "initial_state", "order", "limit"), EPISODES)
def test_goal_holds_at_the_end(simulate, task, seed, initial_state, order, limit):
    simulator = simulate(task, seed, initial_state)
    assert not simulator.success()
    expert = LiberoExpert(simulator.environment, seed=seed)
    actions, phases, success = _run(simulator, expert, limit)
    assert success
    assert set(phases) <= set(PHASES)
    runs = [phase for phase, _ in groupby(phases)]
    assert runs[-1] == "retract"
    positions = [runs.index(phase) for phase in order]
    assert positions == sorted(positions), runs
    assert actions.dtype == np.float32
    assert actions.shape[1] == 7
    assert np.abs(actions).max() <= 1.0
    assert set(np.unique(actions[:, 6])) <= {-1.0, 1.0}


def test_noise_and_speed_do_not_lead_astray(simulate):
    lengths = []
    for seed, speed in ((1, 0.8), (2, 1.2)):
        simulator = simulate("libero_spatial/0", seed, 2)
        expert = LiberoExpert(simulator.environment, noise=0.1, speed=speed, seed=seed)
        actions, _, success = _run(simulator, expert, 220)
        assert success
        lengths.append(len(actions))
    assert lengths[0] > lengths[1]


def _first_actions(simulate, seed, steps=25):
    simulator = simulate("libero_spatial/0", 0, 0)
    expert = LiberoExpert(simulator.environment, noise=0.2, seed=seed)
    actions = []
    for _ in range(steps):
        actions.append(expert.perturb(expert.act()))
        simulator.step(actions[-1])
    return np.stack(actions)


def test_same_seed_same_actions(simulate):
    np.random.seed(5)
    first = _first_actions(simulate, 3)
    np.random.seed(6)
    again, other = _first_actions(simulate, 3), _first_actions(simulate, 4)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_does_not_touch_the_state_nor_the_global_generator(simulate):
    simulator = simulate("libero_spatial/0")
    before, drawn = simulator.state(), np.random.get_state()[1].copy()
    LiberoExpert(simulator.environment, seed=0).act()
    np.testing.assert_array_equal(simulator.state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], drawn)


def test_noise_has_the_deviation_and_leaves_the_gripper(simulate):
    expert = LiberoExpert(simulate("libero_spatial/0").environment, noise=0.1, seed=0)
    action = np.array([0.2, -0.1, 0.0, 0.0, 0.3, 0.0, 1.0], dtype=np.float32)
    perturbed = np.stack([expert.perturb(action) for _ in range(2000)])
    np.testing.assert_array_equal(perturbed[:, 6], 1.0)
    noise = (perturbed - action)[:, :6]
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=0.01)
    np.testing.assert_allclose(noise.std(axis=0), 0.1, rtol=0.06)
    np.testing.assert_allclose(np.corrcoef(noise.T), np.eye(6), atol=0.1)
    assert np.abs(np.stack([expert.perturb(np.ones(7)) for _ in range(50)])).max() <= 1.0
    silent = LiberoExpert(simulate("libero_spatial/0").environment)
    np.testing.assert_array_equal(silent.perturb(action), action)


def test_holds_still_once_finished(simulate, monkeypatch):
    simulator = simulate("libero_goal/7")
    # A goal that is met already: there is nothing to do.
    monkeypatch.setattr(simulator.environment, "_eval_predicate", lambda goal: True)
    expert = LiberoExpert(simulator.environment)
    while not expert.finished:
        action = expert.act()
    np.testing.assert_array_equal(action, [0, 0, 0, 0, 0, 0, -1])
    np.testing.assert_array_equal(expert.act(), action)


REFUSED = [
    (["turnoff", "flat_stove_1"], "turnoff of flat_stove_1"),
    (["open", "flat_stove_1"], "open of flat_stove_1"),
    (["in", "akita_black_bowl_1", "plate_1"], "in of akita_black_bowl_1 and plate_1"),
    (["on", "wooden_cabinet_1", "plate_1"], "on of wooden_cabinet_1 and plate_1"),
]


@pytest.mark.parametrize(("goal", "message"), REFUSED)
def test_goals_without_a_plan_are_refused(simulate, monkeypatch, goal, message):
    environment = simulate("libero_spatial/0").environment
    problem = {**environment.parsed_problem, "goal_state": [goal]}
    monkeypatch.setattr(environment, "parsed_problem", problem)
    with pytest.raises(ValueError, match=f"no plan for the goal {message}"):
        LiberoExpert(environment)


def test_bad_options(simulate):
    environment = simulate("libero_spatial/0").environment
    with pytest.raises(ValueError, match=r"noise must be at least 0, got -0\.1"):
        LiberoExpert(environment, noise=-0.1)
    with pytest.raises(ValueError, match="speed must be more than 0, got 0"):
        LiberoExpert(environment, speed=0.0)
