"""The arm as plans move it: closed-loop movements as generators of actions, each with the phase that it belongs to.

A plan is a generator. Each `yield` hands out one action; when the generator goes on, the environment has taken that
step and the scene shows the new state. The value that a movement returns says whether it got where it was to go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator

import numpy as np
from numpy.typing import NDArray

from .geometry import HandVolume, Points
from .motion import StallGuard, pose_action, rotation_between
from .scene import Scene

Vector = NDArray[np.float64]
Target = Vector | Callable[[], Vector]
"""A position (3,), or what gives it anew at each step."""
Step = tuple[Vector, str]
"""An action (7,) in [-1, 1] and the word of `PHASES` it belongs to."""
Plan = Generator[Step, None, bool]

OPEN, CLOSED = -1.0, 1.0
UP = np.array([0.0, 0.0, 1.0])

_STROKE_STEPS = 9
"""Steps that the gripper needs from wide open to its full force; objects slip from a hand that leaves earlier."""
_REACH, _SAFE_REACH = 0.70, 0.66
"""Distances in metres between shoulder and wrist: the elbow is nearly straight, and still well bent."""
_WRIST_HEIGHT, _WRIST_SETBACK = 0.21, 0.088
"""Where the wrist is from the grip site: back along the approach, and towards the base."""
_CORRIDOR = 0.09
"""Half width in metres of the corridor that the hand sweeps when it travels."""


class Arm:
    """The robot's arm in a scene.

    Args:
        scene: What the arm sees.
        speed: Factor on the gains and bounds of its movements.
    """

    def __init__(self, scene: Scene, speed: float = 1.0) -> None:
        self.scene = scene
        self.speed = speed
        self.gripper = OPEN

    def action_to(self, position: Vector, rotation: Vector | None, limit: float = 1.0) -> Vector:
        """The action (7,) that brings the hand nearer to a pose; without a rotation the hand keeps its own."""
        scene = self.scene
        turn = np.zeros(3) if rotation is None else rotation_between(scene.hand_rotation, rotation)
        pose = pose_action(position - scene.hand_position, turn, self.speed, limit)
        return np.append(pose, self.gripper)

    def move(
        self,
        target: Target,
        rotation: Vector | None,
        phase: str,
        *,
        tolerance: float = 0.008,
        angle: float = 0.06,
        steps: int = 80,
        limit: float = 1.0,
        settle: int = 1,
        lost: Callable[[], bool] | None = None,
    ) -> Plan:
        """Go to a pose.

        Args:
            target: Where the grip site shall be.
            rotation: (3, 3) of the grip site there; None leaves it as it is.
            phase: Word of `PHASES`.
            tolerance: Distance in metres at which the hand is there.
            angle: Angle in rad at which its rotation is reached.
            steps: Most steps to take.
            limit: Largest component of the action's displacement.
            settle: Number of steps in a row that the hand must be there: 1 lets it pass through.
            lost: Says that there is no more reason to go there.

        Returns:
            Whether the pose was reached: not stalled, lost or out of steps before.
        """
        guard, there = StallGuard(), 0
        for _ in range(self.patience(steps)):
            position = target() if callable(target) else target
            distance = float(np.linalg.norm(position - self.scene.hand_position))
            turn = 0.0
            if rotation is not None:
                turn = float(np.linalg.norm(rotation_between(self.scene.hand_rotation, rotation)))
            there = there + 1 if distance < tolerance and turn < angle else 0
            if there == settle:
                return True
            if guard.stalled(distance + 0.1 * turn) or (lost is not None and lost()):
                return False
            yield self.action_to(position, rotation, limit), phase
        return False

    def patience(self, steps: int) -> int:
        """Number of steps in which a slow arm gets as far as one of speed 1 in `steps`."""
        return round(steps / min(1.0, self.speed))

    def shift(self, displacement: Vector, phase: str, *, rotation: Vector | None = None, steps: int = 15) -> Plan:
        """Move by a displacement (3,), roughly: the hand goes on as soon as it is within 2 cm."""
        target = self.scene.hand_position + displacement
        return (yield from self.move(target, rotation, phase, tolerance=0.02, angle=9.0, steps=steps))

    def rest(self, steps: int, phase: str, *, rotation: Vector | None = None, at: Vector | None = None) -> Plan:
        """Hold a pose, the present position if none is given, for some steps."""
        position = self.scene.hand_position if at is None else at
        for _ in range(steps):
            yield self.action_to(position, rotation), phase
        return True

    def close(self, *, rotation: Vector | None = None, at: Vector | None = None, phase: str = "grasp") -> Plan:
        """Close the gripper until its fingers stand still; returns whether something is between them."""
        self.gripper = CLOSED
        position = self.scene.hand_position if at is None else at
        opening = self.scene.opening
        for step in range(_STROKE_STEPS + 5):
            yield self.action_to(position, rotation), phase
            before, opening = opening, self.scene.opening
            if step >= _STROKE_STEPS and abs(opening - before) < 3e-4:
                break
        return opening > 0.001

    def open(self, *, rotation: Vector | None = None, phase: str = "retract") -> Plan:
        """Open the gripper at the present place, until its fingers are clear of what they held."""
        self.gripper = OPEN
        position = self.scene.hand_position
        clear = min(self.scene.opening + 0.02, 0.075)
        for _ in range(_STROKE_STEPS + 3):
            yield self.action_to(position, rotation), phase
            if self.scene.opening > clear:
                return True
        return False

    def travel_height(
        self, start: Vector, end: Vector, below: float, without: Collection[str], clearance: float
    ) -> float:
        """Least height of the grip site from which what hangs under it clears everything on a straight way.

        Args:
            start: (3,) where the way begins.
            end: (3,) where it ends.
            below: How far the hand's load reaches below the grip site.
            without: Objects that are not in the way, as the held one.
            clearance: Distance to keep.

        Returns:
            Height in metres; minus infinity when nothing stands along the way.
        """
        points = self.scene.obstacles(without)
        along = (end - start)[:2]
        share = ((points[:, :2] - start[:2]) @ along / max(1e-6, float(along @ along))).clip(0.0, 1.0)
        aside = np.linalg.norm(points[:, :2] - start[:2] - share[:, None] * along, axis=1)
        return float(points[aside < _CORRIDOR, 2].max(initial=-np.inf)) + below + clearance

    def reachable(self, positions: Points, rotation: Vector) -> NDArray[np.bool_]:
        """Whether the elbow is well bent at poses of the grip site.

        A hand that comes fast overshoots, and with the elbow straight it gets stuck.

        Args:
            positions: (C, 3).
            rotation: (3, 3), the same for all.

        Returns:
            (C,).
        """
        wrist = positions - _WRIST_HEIGHT * rotation[:, 2] - self.scene.shoulder
        return np.hypot(np.linalg.norm(wrist[:, :2], axis=1) - _WRIST_SETBACK, wrist[:, 2]) < _SAFE_REACH

    def highest(self, position: Vector) -> float:
        """Greatest height of the grip site that a hand pointing down reaches over a place (3,)."""
        away = float(np.linalg.norm((position - self.scene.shoulder)[:2])) - _WRIST_SETBACK
        return float(self.scene.shoulder[2]) - _WRIST_HEIGHT + float(np.sqrt(max(0.0, _REACH**2 - away**2)))

    def blocked(self, position: Vector, rotation: Vector, without: Collection[str]) -> bool:
        """Whether the hand, open as it now is, would touch more than a point of other things at a pose."""
        points = self.scene.obstacles(without)
        near = points[np.linalg.norm(points - position, axis=1) < 0.3]
        hand = HandVolume(opening=self.scene.opening / 2.0, margin=0.002)
        return bool(hand.count_hits(near, position[None], rotation)[0] > 1)

    def nearest(self, *rotations: Vector) -> Vector:
        """That of some rotations (3, 3) which the hand reaches with the least turning."""
        present = self.scene.hand_rotation
        return min(rotations, key=lambda rotation: float(np.linalg.norm(rotation_between(present, rotation))))
