"""In which order goals are met, what is skipped and what is done again, on a scene that needs no simulator."""

import itertools

import numpy as np
import pytest

from hilam_hf.envs.libero.expert import goals as goals_module
from hilam_hf.envs.libero.expert.goals import order_goals, solve
from hilam_hf.envs.libero.expert.picking import GraspChoice

TURN_ON = ("turnon", "flat_stove_1")
OPEN = ("open", "white_cabinet_1_top_region")
PUT_IN = ("in", "bowl_1", "white_cabinet_1_bottom_region")
PUT_ON = ("on", "moka_pot_1", "flat_stove_1_cook_region")
CLOSE = ("close", "white_cabinet_1_bottom_region")


class Scene:
    def __init__(self, goals, met=()):
        self.goals, self.met = list(goals), set(met)

    def holds(self, goal):
        return goal in self.met


class Arm:
    """Stands for the arm: a step is a number."""

    def __init__(self, scene):
        self.scene = scene

    def rest(self, steps, phase):
        for _ in range(steps):
            yield np.zeros(7), phase
        return True


@pytest.fixture
def attempts(monkeypatch):
    """Goals in the order in which skills go for them; a skill's effect is what `effects` holds for its goal, or it."""
    order, effects = [], {}

    def skill(scene, goal, choice):
        def run(arm):
            order.append(goal)
            yield np.zeros(7), "carry"
            effects.get(goal, lambda met: met.add(goal))(scene.met)
            return True

        return run

    monkeypatch.setattr(goals_module, "_skill", skill)
    return order, effects


def _solve(scene):
    plan = solve(Arm(scene), GraspChoice())
    while True:
        try:
            next(plan)
        except StopIteration as end:
            return end.value


def test_order_whatever_the_file_says():
    for goals in itertools.permutations([TURN_ON, OPEN, PUT_IN, CLOSE]):
        assert order_goals(goals) == [TURN_ON, OPEN, PUT_IN, CLOSE]
    assert order_goals([PUT_ON, PUT_IN]) == [PUT_ON, PUT_IN]
    assert order_goals([PUT_IN, PUT_ON]) == [PUT_IN, PUT_ON]


def test_what_carries_an_object_is_placed_before_it():
    stack, tray = ("on", "bowl_1", "bowl_2"), ("in", "bowl_2", "wooden_tray_1_contain_region")
    assert order_goals([stack, tray, CLOSE]) == [tray, stack, CLOSE]


def test_meets_all_goals_in_order(attempts):
    assert _solve(Scene([CLOSE, PUT_IN, OPEN]))
    assert attempts[0] == [OPEN, PUT_IN, CLOSE]


def test_met_goals_are_skipped(attempts):
    assert _solve(Scene([PUT_ON, TURN_ON], met=[TURN_ON]))
    assert attempts[0] == [PUT_ON]


def test_a_failed_goal_is_tried_again(attempts):
    order, effects = attempts
    outcomes = iter([lambda met: None, lambda met: met.add(PUT_IN)])
    effects[PUT_IN] = lambda met: next(outcomes)(met)
    assert _solve(Scene([PUT_IN, CLOSE]))
    assert order == [PUT_IN, PUT_IN, CLOSE]


def test_a_goal_that_was_undone_is_met_again(attempts):
    order, effects = attempts
    spoils = iter([True, False])
    effects[PUT_ON] = lambda met: (met.add(PUT_ON), met.discard(TURN_ON) if next(spoils) else None)
    assert _solve(Scene([PUT_ON, TURN_ON]))
    assert order == [TURN_ON, PUT_ON, TURN_ON]


def test_gives_up_in_the_end(attempts):
    order, effects = attempts
    effects[PUT_IN] = lambda met: None
    assert not _solve(Scene([PUT_IN, CLOSE]))
    assert order.count(PUT_IN) == 6
    assert CLOSE in order


def test_nothing_to_do(attempts):
    assert _solve(Scene([CLOSE], met=[CLOSE]))
    assert attempts[0] == []
