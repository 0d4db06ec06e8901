"""Phases of scripted experts: they are the branches that the experts take, and mean what their names say."""

import inspect
import sys
from itertools import groupby

import numpy as np
import pytest

from hilam_hf.data import smooth_phases
from hilam_hf.envs.metaworld import INSTRUCTIONS, MetaWorldEnv, ScriptedExpert, phases
from hilam_hf.envs.metaworld.branches import function_branches
from hilam_hf.envs.metaworld.phases import PHASES, task_phases

# Tasks whose experts go through their cascades in order, and the order.
EPISODES = {
    "drawer-open": ["approach", "descend", "pull"],
    "door-open": ["approach", "descend", "pull"],
    "button-press-topdown": ["approach", "press"],
    "button-press-wall": ["clear", "approach", "descend", "press"],
    "pick-place": ["approach", "descend", "grasp", "carry"],
    "bin-picking": ["approach", "descend", "grasp", "lift", "carry", "place"],
    "hammer": ["approach", "descend", "grasp", "carry", "push"],
    "reach": ["approach"],
}


def _episode(task, noise=0.0, seed=0):
    """Privileged states and phases until the task is solved; (T, 39) and T names."""
    environment = MetaWorldEnv(task, render=False)
    expert = ScriptedExpert(task, noise=noise, seed=seed)
    environment.reset(seed=seed)
    states, names, done = [], [], False
    while not done:
        states.append(environment.privileged_state())
        names.append(expert.phase(states[-1]))
        _, _, solved, cut_off, _ = environment.step(expert.act(states[-1]))
        done = solved or cut_off
    environment.close()
    assert solved
    return np.stack(states), names


def _states_near_thresholds(count, seed):
    """Hands, objects and goals at all distances from a millimetre to decimetres; (count, 39)."""
    generator = np.random.default_rng(seed)
    states = generator.uniform(-0.3, 0.3, (count, 39))
    states[:, :3] = generator.uniform([-0.3, 0.4, 0.0], [0.3, 0.9, 0.4], (count, 3))
    states[::2, 2] /= 8
    states[:, 3] = generator.uniform(0, 1, count)
    scale = 10 ** generator.uniform(-3, -0.5, (count, 3, 3))
    near = states[:, None, :3] + scale * generator.normal(size=(count, 3, 3))
    states[:, 4:7], states[:, 11:14], states[:, -3:] = near[:, 0], near[:, 1], near[:, 2]
    return states


def _returns(policy, method):
    """Numbers of the lines that hold the `return` statements of one of the expert's methods."""
    source, first = inspect.getsourcelines(getattr(type(policy), method))
    return [first + number for number, line in enumerate(source) if line.lstrip().startswith("return")]


def _last_lines(policy, state):
    """The line from which each function returned that the expert called, seen by a profiler's hook."""
    lines = {}

    def watch(frame, event, argument):
        if event == "return":
            lines[frame.f_code.co_name] = frame.f_lineno

    sys.setprofile(watch)
    try:
        policy.get_action(state.copy())
    finally:
        sys.setprofile(None)
    return lines


def _drawer_open(state):
    """What drawer-open's expert does, from the distances of the hand to the handle."""
    offset = state[:3] - state[4:7]
    if np.hypot(offset[0], offset[1]) > 0.06:
        return "approach"
    return "descend" if abs(offset[2] + 0.02) > 0.04 else "pull"


@pytest.mark.sim
@pytest.mark.filterwarnings("ignore:Constant")
def test_phase_is_the_branch_that_the_expert_takes():
    states = _states_near_thresholds(500, seed=0)
    taken, everything = set(), set()
    for task in INSTRUCTIONS.keys() - {"drawer-open", "reach"}:
        expert, names = ScriptedExpert(task), phases.METAWORLD_PHASES[task]
        policy = expert._policy
        hand = _returns(policy, "_desired_pos")
        gripper = _returns(policy, "_grab_effort") if hasattr(policy, "_grab_effort") else []
        everything |= {(task, number) for number in range(len(hand))}
        for state in states:
            lines = _last_lines(policy, state)
            number = hand.index(lines["_desired_pos"])
            name = names[number]
            if isinstance(name, tuple):
                name = name[gripper.index(lines["_grab_effort"])]
            assert expert.phase(state) == name, (task, state)
            taken.add((task, number))
    # A branch that no state reached would be compared with nothing.
    assert len(taken) > 0.93 * len(everything)


@pytest.mark.sim
def test_phases_of_the_experts_that_choose_within_their_action():
    drawer, reach = ScriptedExpert("drawer-open"), ScriptedExpert("reach")
    for state in _states_near_thresholds(500, seed=0):
        assert drawer.phase(state) == _drawer_open(state)
        assert reach.phase(state) == "approach"


@pytest.mark.sim
@pytest.mark.parametrize("task", EPISODES)
def test_phases_of_an_episode_follow_one_another(task):
    _, names = _episode(task)
    # Even without noise the block of bin-picking slips once in the fingers, and they close again.
    names = smooth_phases(names, min_length=4)
    assert [name for name, _ in groupby(names)] == EPISODES[task]


@pytest.mark.sim
def test_phases_mean_what_their_names_say():
    states, names = _episode("pick-place", noise=0.1, seed=3)
    during = {name: np.array([word == name for word in names]) for name in PHASES}
    hand, opening, puck = states[:, :3], states[:, 3], states[:, 4:7]
    # The puck rests until it is carried.
    free = during["approach"] | during["descend"]
    assert np.ptp(puck[free], axis=0).max() < 0.005
    assert np.linalg.norm(np.ptp(puck[during["carry"]], axis=0)) > 0.1
    # The hand goes down upon it, closes there, and then keeps its distance to it.
    assert hand[during["descend"], 2][-1] < hand[during["descend"], 2][0] - 0.03
    assert opening[during["grasp"]][-1] < opening[during["grasp"]][0] - 0.1
    assert np.ptp((hand - puck)[during["carry"]], axis=0).max() < 0.02


@pytest.mark.sim
def test_expert_leaves_the_state_as_it_was():
    # Two whose cascades write into the positions that they are given.
    for task in ("door-open", "door-close"):
        expert = ScriptedExpert(task)
        for state in _states_near_thresholds(20, seed=1):
            before = state.copy()
            first = expert.phase(state), expert.intended_action(state).tolist()
            assert (expert.phase(state), expert.intended_action(state).tolist()) == first
            np.testing.assert_array_equal(state, before)


def test_every_task_has_phases_of_the_shared_vocabulary():
    assert phases.METAWORLD_PHASES.keys() == INSTRUCTIONS.keys()
    words = {name for task in INSTRUCTIONS for name in task_phases(task)}
    # No expert of Meta-World leaves the object again.
    assert words == PHASES.keys() - {"retract"}
    assert task_phases("pick-place-v3") == ("approach", "grasp", "descend", "carry")
    assert [task for task in INSTRUCTIONS if len(task_phases(task)) == 1] == ["reach"]
    with pytest.raises(ValueError, match="did you mean drawer-open"):
        task_phases("draw-open")


@pytest.mark.sim
@pytest.mark.parametrize(
    ("task", "names", "counts"),
    [
        ("drawer-open", ("approach", "pull"), "has 3 branches for the hand and 1 for the gripper, expected 2"),
        ("push", ("approach", ("descend", "grasp", "grasp"), "push"), "3 branches .* and 2 .*, expected 3 and 3"),
        ("door-open", ("approach", ("descend", "grasp"), "pull"), "and 1 for the gripper, expected 3 and 2"),
    ],
)
def test_another_expert_than_the_known_one_is_refused(monkeypatch, task, names, counts):
    monkeypatch.setitem(phases.METAWORLD_PHASES, task, names)
    expert = ScriptedExpert(task)
    expert.act(np.zeros(39))
    with pytest.raises(ValueError, match=rf"{task}: the expert of the installed metaworld .*{counts}"):
        expert.phase(np.zeros(39))


def _grade(points: "Undefined", bonus: int = 0):  # noqa: F821
    points = points + bonus
    if points < 10:
        if points < 0:
            return "invalid"
        return "low"
    elif points < 20:
        verdict = "middle"
    else:
        verdict = "high"
    return verdict


def test_branches_are_numbered_in_the_order_of_the_source():
    branches = function_branches(_grade)
    assert branches.count == 3
    assert [branches.choose(points) for points in (-1, 5, 15, 25)] == [0, 1, 2, 2]
    assert branches.choose(-1, bonus=1) == 1
    assert _grade(25) == "high"


def test_assignments_to_a_target_are_branches():
    branches = function_branches(_grade, target="verdict")
    assert branches.count == 2
    assert [branches.choose(points) for points in (15, 25)] == [0, 1]


def test_function_without_source_is_refused():
    names = {}
    exec("def hidden(x):\n    return x", names)
    with pytest.raises(OSError, match="source"):
        function_branches(names["hidden"])
