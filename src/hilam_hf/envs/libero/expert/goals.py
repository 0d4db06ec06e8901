"""From a task's BDDL goal to a plan: in which order its predicates are met, and by which skill."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .arm import Arm, Plan, Vector
from .fixtures import close_drawer, close_microwave, drawer_outward, open_drawer, turn_on
from .grasping import GraspStyle
from .picking import GraspChoice, Spot, pick, place
from .placements import lean_in_rack, put_in_microwave, stand_in_caddy
from .scene import Goal, Scene
from .towing import tow_plate

_ORDER = {"turnon": 0, "open": 1, "on": 2, "in": 2, "close": 3}
_ROUNDS, _ATTEMPTS = 2, 3
_HOLLOW = ("bowl", "mug", "plate", "ramekin")
_MOKA_STYLE = GraspStyle(
    depth=0.03, yaws=tuple(math.radians(angle) for angle in range(-30, 31, 5)), widest=0.04, thinness=15.0, variety=0.0
)
_BASKETS = ("basket", "wooden_tray")
_CABINETS = ("wooden_cabinet", "white_cabinet")

Skill = Callable[[Arm], Plan]


def order_goals(goals: Sequence[Goal]) -> list[Goal]:
    """Sort goals so that none spoils another.

    The stove is turned on and drawers are opened before objects are put, and closed after. What an object shall be put
    on is put into its own place before.
    """
    moved = {goal[1] for goal in goals if goal[0] in ("on", "in")}
    return sorted(goals, key=lambda goal: (_ORDER[goal[0]], goal[-1] in moved))


def check_goals(scene: Scene) -> None:
    """See that there is a plan for each of the task's goals.

    Raises:
        ValueError: There is none; names the predicate and its objects.
    """
    for goal in scene.goals:
        _skill(scene, goal, GraspChoice())


def solve(arm: Arm, choice: GraspChoice) -> Plan:
    """Meet the task's goals one after the other; unmet ones are tried again, and those that a later one undid.

    Returns:
        Whether all of them hold.
    """
    scene = arm.scene
    for _ in range(_ROUNDS):
        for goal in order_goals(scene.goals):
            for _ in range(_ATTEMPTS):
                if scene.holds(goal):
                    break
                yield from _skill(scene, goal, choice)(arm)
                if not scene.holds(goal):
                    choice.reject(goal[1])
        yield from arm.rest(2, "retract")
        if all(scene.holds(goal) for goal in scene.goals):
            return True
    return False


def grasp_style(scene: Scene, name: str) -> GraspStyle:
    """How an object of its kind is grasped."""
    kind = scene.kind(name)
    if any(word in kind for word in _HOLLOW):
        return GraspStyle(depth=0.028 if "bowl" in kind else 0.022, widest=0.03, radial=0.93)
    return _MOKA_STYLE if "moka_pot" in kind else GraspStyle()


def _skill(scene: Scene, goal: Goal, choice: GraspChoice) -> Skill:
    """The skill that meets a goal."""
    skill: Skill | None = None
    if goal[0] in ("on", "in") and scene.is_object(goal[1]):
        skill = _placing_skill(scene, goal, choice)
    elif goal[0] in ("open", "close", "turnon"):
        skill = _fixture_skill(scene, goal[0], goal[1])
    if skill is None:
        raise ValueError(
            f"the scripted expert has no plan for the goal {goal[0]} of {' and '.join(goal[1:])}; "
            f"it knows {', '.join(_ORDER)} for the objects and fixtures of libero_spatial, libero_object, "
            "libero_goal and libero_10"
        )
    return skill


def _fixture_skill(scene: Scene, predicate: str, name: str) -> Skill | None:
    is_drawer = name in scene.environment.object_sites_dict and scene.kind(str(scene.parent(name))) in _CABINETS
    if predicate == "open" and is_drawer:
        return lambda arm: open_drawer(arm, name)
    if predicate == "close" and is_drawer:
        return lambda arm: close_drawer(arm, name)
    if predicate == "close" and not is_drawer and scene.kind(name) == "microwave":
        return lambda arm: close_microwave(arm, name)
    if predicate == "turnon" and scene.kind(name) == "flat_stove":
        return lambda arm: turn_on(arm, name)
    return None


def _placing_skill(scene: Scene, goal: Goal, choice: GraspChoice) -> Skill | None:
    predicate, name, target = goal
    if scene.is_object(target):
        return _pick_and_place(name, choice, lambda arm: _on_object(arm, target)) if predicate == "on" else None
    parent = scene.parent(target)
    kind = "table" if parent is None else scene.kind(parent)
    if predicate == "on":
        if kind == "table" and scene.kind(name) == "plate":
            return lambda arm: tow_plate(arm, name, target)
        if kind == "wine_rack":
            return lambda arm: lean_in_rack(arm, name, target, choice)
        if kind == "flat_stove" or kind == "table" or target.endswith("_top_side"):
            return _pick_and_place(name, choice, lambda arm: _on_region(arm, goal, kind))
        return None
    if kind in _BASKETS:
        return _pick_and_place(name, choice, lambda arm: _in_basket(arm, goal))
    if kind == "desk_caddy" and "book" in scene.kind(name):
        return lambda arm: stand_in_caddy(arm, name, target, choice)
    if kind == "microwave" and "mug" in scene.kind(name):
        return lambda arm: put_in_microwave(arm, name, target)
    if kind in _CABINETS:
        return lambda arm: _put_in_drawer(arm, name, target, choice)
    return None


def _pick_and_place(name: str, choice: GraspChoice, spot: Callable[[Arm], Spot]) -> Skill:
    def skill(arm: Arm) -> Plan:
        if not (yield from pick(arm, name, grasp_style(arm.scene, name), choice)):
            return False
        return (yield from place(arm, name, spot(arm)))

    return skill


def _put_in_drawer(arm: Arm, name: str, region: str, choice: GraspChoice) -> Plan:
    if not arm.scene.holds(("open", region)):
        yield from open_drawer(arm, region)
    if not (yield from pick(arm, name, grasp_style(arm.scene, name), choice)):
        return False
    box = arm.scene.region(region)
    middle = box.position + 0.015 * drawer_outward(arm, region)
    return (yield from place(arm, name, Spot(middle[:2], box.position[2] - 0.028, drop=0.008, retreat=0.10)))


def _on_object(arm: Arm, target: str) -> Spot:
    """The middle of a plate or a bowl."""
    position = arm.scene.position(target)[:2]
    drop = 0.004 if arm.scene.kind(target) == "plate" else 0.012
    return Spot(position, arm.scene.height_under(position, target, radius=0.03), drop=drop, tolerance=0.005)


def _on_region(arm: Arm, goal: Goal, kind: str) -> Spot:
    """A region of the table, the stove or the top of a fixture; two objects share it side by side."""
    region = arm.scene.region(goal[2])
    spot = Spot(region.position[:2] + _aside(arm.scene, goal, 0.044, 0.058), region.position[2] + 0.003, drop=0.004)
    if kind == "table":
        return replace(spot, support=region.position[2] - region.half_size[2] + 0.002)
    return replace(spot, support=region.position[2] + 0.0265) if kind == "flat_stove" else spot


def _in_basket(arm: Arm, goal: Goal) -> Spot:
    """The bottom of a basket; two objects stand side by side."""
    position = arm.scene.region(goal[2]).position[:2] + _aside(arm.scene, goal, 0.033, 0.033)
    # An object that stands when the fingers open does not stick to one of them.
    bottom = arm.scene.height_under(position, str(arm.scene.parent(goal[2])))
    return Spot(position, bottom, drop=0.002, tolerance=0.006, retreat=0.12)


def _aside(scene: Scene, goal: Goal, distance: float, farthest: float) -> Vector:
    """(2,) displacement from a region's middle along x, when two objects shall be in it.

    Args:
        scene: The scene.
        goal: One of the objects' goal.
        distance: How far from the middle each shall be.
        farthest: How far it may be when the other one stands nearer to the middle than it should.
    """
    others = [other for other in scene.goals if other[-1] == goal[-1] and other != goal]
    if not others:
        return np.zeros(2)
    side = -1.0 if scene.goals.index(goal) < scene.goals.index(others[0]) else 1.0
    away = distance
    if scene.holds(others[0]):
        there = scene.position(others[0][1])[0] - scene.region(goal[-1]).position[0]
        away = min(farthest, max(distance, 2.1 * distance + side * there))
    return np.array([side * away, 0.0])
