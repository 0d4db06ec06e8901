"""Actions of another convention than the robot's: found by their values, and converted where an option says so.

Shapes: T actions of A numbers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...robots import GRIPPER
from .demonstration import Demonstration

logger = logging.getLogger(__name__)

GripperConvention = Literal["one_opens", "one_closes"]
"""What a gripper of 0 to 1 means: at 1 it opens (Open X-Embodiment, OpenVLA's training data), or it closes."""

# A part of the range by which actions may be outside it: a simulator clips what an operator overdid.
_SLACK = 0.05


def convert_actions(
    demonstration: Demonstration, *, gripper: GripperConvention | None = None, scale: float | None = None
) -> Demonstration:
    """The demonstration with its actions in the robot's convention.

    Args:
        demonstration: Any.
        gripper: What its gripper's 0 and 1 mean, which become the ends of the robot's range: the least opens.
        scale: Factor of all numbers but the gripper.

    Raises:
        ValueError: An option is not valid, the robot's gripper is not known or not from 0 to 1, or the actions are
            outside the robot's range.
    """
    if gripper is not None and gripper not in get_args(GripperConvention):
        raise ValueError(f"gripper: got {gripper!r}, expected one of {', '.join(get_args(GripperConvention))}")
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"action_scale: got {scale}, expected a number above 0")
    actions = demonstration.actions.copy()
    column = _gripper_column(demonstration)
    if scale is not None:
        scaled = np.arange(actions.shape[1]) != column
        actions[:, scaled] *= scale
    if gripper is not None:
        actions[:, column] = _converted_gripper(demonstration, column, gripper)
    _check_range(demonstration, actions)
    return replace(demonstration, actions=actions)


def warn_of_gripper(demonstrations: Sequence[Demonstration]) -> None:
    """Logs a warning where grippers go from 0 to 1 and the robot's range goes below 0: they would never open."""
    columns = [_gripper_column(each) for each in demonstrations]
    if not demonstrations or None in columns:
        return
    values = np.concatenate([each.actions[:, column] for each, column in zip(demonstrations, columns, strict=True)])
    robot = demonstrations[0].robot
    least, greatest = robot.action_range or (0.0, 1.0)
    if least < 0 and 0 <= values.min() < 0.1 and 0.9 < values.max() <= 1:
        logger.warning(
            "the gripper of %d demonstrations goes from %g to %g, and that of %s from %g (open) to %g: say what 1 "
            "means with gripper=one_opens or gripper=one_closes (--gripper)",
            len(demonstrations),
            values.min(),
            values.max(),
            robot.name,
            least,
            greatest,
        )


def _gripper_column(demonstration: Demonstration) -> int | None:
    names = demonstration.robot.action_names
    return names.index(GRIPPER) if GRIPPER in names and demonstration.robot.action_range else None


def _converted_gripper(
    demonstration: Demonstration, column: int | None, gripper: GripperConvention
) -> NDArray[np.float32]:
    robot = demonstration.robot
    if column is None or robot.action_range is None:
        raise ValueError(f"gripper: robot {robot.name} does not say which number of an action its gripper is")
    values = demonstration.actions[:, column]
    if values.min() < -_SLACK or values.max() > 1 + _SLACK:
        raise ValueError(
            f"episode {demonstration.id!r}: gripper={gripper} is for values from 0 to 1, got {values.min():g} to "
            f"{values.max():g}: leave the option out"
        )
    closed = 1 - values if gripper == "one_opens" else values
    least, greatest = robot.action_range
    return (least + (greatest - least) * closed).astype(np.float32)


def _check_range(demonstration: Demonstration, actions: NDArray[np.float32]) -> None:
    robot = demonstration.robot
    if robot.action_range is None or not len(actions):
        return
    least, greatest = robot.action_range
    slack = _SLACK * (greatest - least)
    low, high = actions.min(axis=0), actions.max(axis=0)
    wrong = np.flatnonzero(~((low >= least - slack) & (high <= greatest + slack)))
    if len(wrong):
        names = robot.action_names or tuple(f"number {column}" for column in range(robot.action_dim))
        found = ", ".join(f"{names[column]} from {low[column]:g} to {high[column]:g}" for column in wrong)
        raise ValueError(
            f"episode {demonstration.id!r}: its actions are not those of {robot.name} ({robot.environment}), which go "
            f"from {least:g} to {greatest:g}: got {found}. Bring them there with action_scale (--action-scale), a "
            "factor of all but the gripper, or correct the recording"
        )
