"""Working the fixtures: drawers, the stove's knob, the microwave's door."""

from __future__ import annotations

import math

import numpy as np

from .arm import CLOSED, OPEN, UP, Arm, Plan, Vector
from .geometry import downward, grip_rotation
from .picking import fly

_DRAWER_TRAVEL = -0.152
"""Joint position at which to stop pulling a drawer, a little beyond open."""
_TOP_DRAWER_PITCH, _LOWER_DRAWER_PITCH = math.radians(30.0), math.radians(6.0)
"""How steeply the hand comes down to a drawer's handle; over lower ones other handles leave less room."""
_PUSHER_PITCHES = tuple(math.radians(angle) for angle in (40.0, 50.0, 60.0))
"""How steeply the hand may come down to push a drawer; the flatter, the less is in its way at the cabinet."""
_KNOB_HEIGHT = 0.040
"""Height of the grip site over the knob's body at which the finger tips are beside its blade."""
_KNOB_TURN = 1.0
_KNOB_ON = 0.75
"""Joint position at which to stop turning; the stove is on from 0.5."""
_DOOR_RADIUS = 0.17
"""Distance from the microwave door's hinge at which it is pushed."""


def drawer_outward(arm: Arm, region: str) -> Vector:
    """(3,) direction in which a drawer opens."""
    scene = arm.scene
    fixture = scene.environment.get_object(scene.parent(region))
    sense = np.sign(np.mean(fixture.object_properties["articulation"]["default_open_ranges"]))
    return sense * scene.joint_axis(scene.joint(region))


def drawer_handle(arm: Arm, region: str) -> Vector:
    """(3,) middle of a drawer's handle: of its geom that is farthest out."""
    scene, outward = arm.scene, drawer_outward(arm, region)
    geoms = scene.body_geoms(scene.joint_body(scene.joint(region)))
    return max((scene.data.geom_xpos[geom].copy() for geom in geoms), key=lambda position: float(position @ outward))


def open_drawer(arm: Arm, region: str) -> Plan:
    """Pinch a drawer's handle from above and below, pull it open and leave it; returns whether it is open."""
    scene, joint = arm.scene, arm.scene.joint(region)
    outward, handle = drawer_outward(arm, region), drawer_handle(arm, region)
    pitch = _TOP_DRAWER_PITCH if "_top_" in region else _LOWER_DRAWER_PITCH
    approach = -math.cos(pitch) * outward - math.sin(pitch) * UP
    rotation = arm.nearest(grip_rotation(approach, UP), grip_rotation(approach, -UP))
    arm.gripper = OPEN
    yield from arm.move(handle - 0.16 * approach + 0.06 * UP, rotation, "approach", tolerance=0.03, angle=0.3, steps=90)
    yield from arm.move(handle - 0.055 * approach, rotation, "approach", angle=0.08, steps=60)
    arm.gripper = CLOSED
    # Half closed the fingers clear the handles of the neighbouring drawers.
    yield from arm.rest(3, "grasp", rotation=rotation, at=handle - 0.055 * approach)
    yield from arm.move(handle + 0.003 * approach, rotation, "grasp", tolerance=0.006, angle=0.1, steps=10, limit=0.8)
    yield from arm.close(rotation=rotation, at=handle)
    for _ in range(arm.patience(60)):
        yield arm.action_to(drawer_handle(arm, region) + 0.06 * outward, rotation), "pull"
        if scene.joint_value(joint) < _DRAWER_TRAVEL:
            break
    yield from arm.open(rotation=rotation)
    yield from arm.move(scene.hand_position - 0.08 * approach, rotation, "retract", tolerance=0.02, angle=9.0, steps=20)
    return scene.holds(("open", region))


def close_drawer(arm: Arm, region: str) -> Plan:
    """Push a drawer shut with the closed fingers across its handle; returns whether it is closed."""
    outward, handle = drawer_outward(arm, region), drawer_handle(arm, region)
    rotation = _pusher_rotation(arm, region)
    arm.gripper = CLOSED
    above = handle + 0.12 * outward
    above[2] = max(arm.scene.hand_position[2], handle[2] + 0.20)
    yield from arm.move(above, rotation, "approach", tolerance=0.04, angle=0.5, steps=70)
    yield from arm.move(handle + 0.07 * outward, rotation, "descend", tolerance=0.015, angle=0.15, steps=60)
    goal = ("close", region)
    for _ in range(arm.patience(80)):
        yield arm.action_to(_pusher(arm, region, 0.05), rotation), "push"
        if arm.scene.holds(goal):
            break
    for _ in range(6):
        yield arm.action_to(_pusher(arm, region, 0.03), rotation), "push"
    yield from arm.shift(0.08 * outward, "retract", rotation=rotation)
    return arm.scene.holds(goal)


def _pusher_rotation(arm: Arm, region: str) -> Vector:
    """The rotation of the hand for pushing a drawer: flat, steeper if something is behind the hand."""
    outward, cabinet = drawer_outward(arm, region), str(arm.scene.parent(region))
    start, across = drawer_handle(arm, region) + 0.07 * outward, np.cross(outward, UP)
    for pitch in _PUSHER_PITCHES:
        approach = -math.cos(pitch) * outward - math.sin(pitch) * UP
        rotation = arm.nearest(grip_rotation(approach, across), grip_rotation(approach, -across))
        if not arm.blocked(start, rotation, [cabinet]):
            break
    return rotation


def _pusher(arm: Arm, region: str, ahead: float) -> Vector:
    """Where to push a drawer: ahead of the hand, on the line through the handle."""
    outward, handle = drawer_outward(arm, region), drawer_handle(arm, region)
    return handle + (outward @ (arm.scene.hand_position - handle) - ahead) * outward


def turn_on(arm: Arm, stove: str) -> Plan:
    """Pinch the blade of a stove's knob and turn it; returns whether the stove is on."""
    scene, joint = arm.scene, arm.scene.joint(stove)
    knob = scene.data.xpos[scene.joint_body(joint)] + _KNOB_HEIGHT * UP
    rotation = downward(math.pi / 2.0)
    arm.gripper = OPEN
    yield from fly(arm, knob + 0.05 * UP, rotation)
    yield from arm.move(knob + 0.05 * UP, rotation, "approach", tolerance=0.012, angle=0.1, steps=40)
    yield from arm.move(knob, rotation, "descend", tolerance=0.006, steps=30, limit=0.6)
    yield from arm.close(rotation=rotation, at=knob)
    turned = downward(math.pi / 2.0 + _KNOB_TURN)
    for _ in range(arm.patience(40)):
        yield arm.action_to(knob, turned), "turn"
        if scene.joint_value(joint) > _KNOB_ON:
            break
    yield from arm.open()
    yield from arm.shift(0.10 * UP, "retract", steps=20)
    return scene.holds(("turnon", stove))


def close_microwave(arm: Arm, microwave: str) -> Plan:
    """Sweep a microwave's door shut with the closed fingers; returns whether it is closed."""
    scene, joint = arm.scene, arm.scene.joint(microwave)
    hinge = scene.data.xpos[scene.joint_body(joint)].copy()
    rotation, goal = downward(math.pi / 2.0), ("close", microwave)
    height = hinge[2] + 0.17
    arm.gripper = CLOSED

    def beside_door(angle: float, away: float) -> Vector:
        radial = np.array([math.cos(angle), math.sin(angle), 0.0])
        outside = np.array([math.sin(angle), -math.cos(angle), 0.0])
        return hinge + _DOOR_RADIUS * radial + away * outside + 0.02 * UP

    def start() -> Vector:
        return beside_door(scene.joint_value(joint), 0.08)

    here = scene.hand_position
    yield from arm.move(np.array([*here[:2], height]), rotation, "clear", tolerance=0.03, angle=9.0, steps=40)
    # The hand may have moved the door on its way: its place beside it follows.
    yield from arm.move(
        lambda: np.array([*start()[:2], height]), rotation, "approach", tolerance=0.02, angle=0.3, steps=60
    )
    yield from arm.move(start, rotation, "descend", tolerance=0.015, angle=0.2, steps=40)
    for _ in range(arm.patience(120)):
        if scene.holds(goal):
            break
        angle = min(scene.joint_value(joint) + 0.22, 0.05)
        yield arm.action_to(beside_door(angle, 0.03), rotation, 0.8), "push"
    for _ in range(6):
        yield arm.action_to(beside_door(0.05, 0.03), rotation, 0.5), "push"
    # Going back the hand would draw the door along.
    yield from arm.shift(0.08 * UP, "retract", rotation=rotation)
    return scene.holds(goal)
