"""In which phase of a task a scripted expert is: ground truth for segmentation.

The contract of every simulator's experts: `expert.phase(state)` names the phase in which the expert chooses its action
in that state, by a word of `PHASES`. It is a function of the state alone, recorded as it comes; noise that carries the
hand to and fro over a threshold shows as segments of a step or two, which `hilam_hf.data.smooth_phases` removes.

Meta-World's experts (Yu et al. 2019, Meta-World, arXiv:1910.10897) choose where the hand shall go by a cascade of
conditions. Which branch was taken is the phase. Where the hand goes down on an object that it then holds, the branch of
the gripper's own cascade tells going down with open fingers ("descend") from closing them ("grasp").
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .branches import Branches, function_branches
from .tasks import normalize_task

PHASES: dict[str, str] = {
    "clear": "the hand, free or holding, goes over or around what is in its way",
    "approach": "the free hand goes to where it is going to act: above, below or beside the object",
    "descend": "the free hand goes down to the object",
    "ascend": "the free hand goes up to the object",
    "grasp": "the gripper closes on the object, at its place or on the last of the way to it",
    "lift": "the held object is raised",
    "carry": "the held object is moved towards its goal",
    "place": "the held object is set down, let in or put on at its goal",
    "push": "an object is moved away or sideways, pressed upon or held",
    "pull": "an object is moved nearer, out or up, hooked or held",
    "press": "a button or a handle is pressed",
    "turn": "a dial, a faucet or a lock is turned",
    "retract": "the hand lets go of the object and leaves it",
}
"""The words that name phases, for the experts of every simulator, and what they mean."""

_BranchName = str | tuple[str, ...]
_GRASP: _BranchName = ("descend", "grasp")

METAWORLD_PHASES: dict[str, tuple[_BranchName, ...]] = {
    "assembly": ("approach", "place", _GRASP, "lift", "carry"),
    "basketball": ("approach", _GRASP, "lift", "carry"),
    "bin-picking": ("approach", _GRASP, "lift", "carry", "place"),
    "box-close": ("approach", _GRASP, "lift", "carry"),
    "button-press": ("approach", "press"),
    "button-press-topdown": ("approach", "press"),
    "button-press-topdown-wall": ("approach", "press"),
    "button-press-wall": ("clear", "approach", "descend", "press"),
    "coffee-button": ("approach", "press"),
    "coffee-pull": ("approach", _GRASP, "pull"),
    "coffee-push": ("approach", _GRASP, "push"),
    "dial-turn": ("approach", "descend", "turn"),
    "disassemble": ("approach", _GRASP, "lift"),
    "door-close": ("clear", "approach", "descend", "push"),
    "door-lock": ("clear", "approach", "descend", "turn"),
    "door-open": ("approach", "descend", "pull"),
    "door-unlock": ("descend", "approach", "turn"),
    "drawer-close": ("clear", "approach", "descend", "push"),
    "drawer-open": ("approach", "descend", "pull"),
    "faucet-close": ("approach", "descend", "turn"),
    "faucet-open": ("approach", "descend", "turn"),
    "hammer": ("approach", _GRASP, "carry", "push"),
    "hand-insert": ("approach", _GRASP, "carry", "place"),
    "handle-press": ("approach", "press"),
    "handle-press-side": ("approach", "press"),
    "handle-pull": ("approach", "descend", "pull"),
    "handle-pull-side": ("approach", _GRASP, "pull"),
    "lever-pull": ("approach", "ascend", "pull"),
    "peg-insert-side": ("approach", _GRASP, "carry", "place"),
    "peg-unplug-side": ("approach", _GRASP, "pull"),
    "pick-out-of-hole": ("approach", _GRASP, "lift", "carry"),
    # Here the gripper's first branch is the one that closes, and the hand then waits for it.
    "pick-place": ("approach", ("grasp", "descend"), "grasp", "carry"),
    "pick-place-wall": ("approach", _GRASP, "lift", "carry", "place", "place"),
    "plate-slide": ("approach", "descend", "push"),
    "plate-slide-back": ("approach", "descend", "pull", "pull", "pull"),
    "plate-slide-back-side": ("approach", "descend", "pull"),
    "plate-slide-side": ("approach", "descend", "push", "push"),
    "push": ("approach", _GRASP, "push"),
    "push-back": ("approach", _GRASP, "pull"),
    "push-wall": ("approach", _GRASP, "clear", "clear", "push"),
    "reach": ("approach",),
    "reach-wall": ("clear", "approach"),
    "shelf-place": ("approach", _GRASP, "carry", "lift", "place"),
    "soccer": ("approach", "push"),
    "stick-pull": ("approach", _GRASP, "carry", "lift", "place", "pull"),
    "stick-push": ("approach", _GRASP, "carry", "lift", "carry", "push"),
    # The gripper has two open branches: the second lets go of the block at the edge.
    "sweep": ("approach", ("descend", "grasp", "descend"), "push"),
    "sweep-into": ("approach", _GRASP, "push"),
    "window-close": ("approach", "descend", "push"),
    "window-open": ("approach", "descend", "push"),
}
"""For each task the names of the branches of its expert's cascade, in the order of the source.

A tuple in a branch's place names it by the branch that the gripper's cascade takes at the same time.
"""


def task_phases(task: str) -> tuple[str, ...]:
    """The phases that a task's expert may be in, in the order of its cascade; one for `reach`.

    Args:
        task: Task of MT50, with or without `-v3`.

    Raises:
        ValueError: There is no such task.
    """
    branches = METAWORLD_PHASES[normalize_task(task)]
    names = [name for branch in branches for name in ((branch,) if isinstance(branch, str) else branch)]
    return tuple(dict.fromkeys(names))


def metaworld_phase(task: str, policy: Any) -> Callable[[NDArray[np.float64]], str]:
    """Make the function from the state to the phase of a task's expert.

    Args:
        task: Task of MT50, without `-v3`.
        policy: The expert, a `metaworld.policies.policy.Policy`.

    Returns:
        Function from a privileged state (39,), which it does not change, to a word of `PHASES`.

    Raises:
        ValueError: The installed expert has other branches than `METAWORLD_PHASES` names.
    """
    names = METAWORLD_PHASES[task]
    hand = _hand_branches(policy)
    gripper = _branches_by_state(policy, "_grab_effort") if hasattr(policy, "_grab_effort") else Branches(_first, 1)
    _check_counts(task, names, hand.count, gripper.count)

    def phase(raw_observation: NDArray[np.float64]) -> str:
        name = names[hand.choose(raw_observation)]
        return name if isinstance(name, str) else name[gripper.choose(raw_observation)]

    return phase


def _hand_branches(policy: Any) -> Branches:
    """Branches by which an expert chooses where the hand shall go, as a function of the privileged state."""
    if hasattr(policy, "_desired_pos"):
        return _branches_by_state(policy, "_desired_pos")
    # Two experts do without that method: drawer-open assigns the position in a cascade of its own, reach has no choice.
    function = type(policy).get_action
    branches = function_branches(function, target="to_pos")
    if branches.count == 0:
        branches = function_branches(function)
    return Branches(lambda raw_observation: branches.choose(policy, raw_observation.copy()), branches.count)


def _branches_by_state(policy: Any, method: str) -> Branches:
    branches = function_branches(getattr(type(policy), method))
    # A copy, since some cascades move the positions that they are given.
    return Branches(lambda raw_observation: branches.choose(policy._parse_obs(raw_observation.copy())), branches.count)


def _first(raw_observation: NDArray[np.float64]) -> int:
    return 0


def _check_counts(task: str, names: tuple[_BranchName, ...], hand: int, gripper: int) -> None:
    grips = {len(name) for name in names if isinstance(name, tuple)}
    if hand != len(names) or not grips <= {gripper}:
        expected = " or ".join(map(str, sorted(grips))) or "any number"
        raise ValueError(
            f"{task}: the expert of the installed metaworld {metadata.version('metaworld')} has {hand} branches for "
            f"the hand and {gripper} for the gripper, expected {len(names)} and {expected}: its phases "
            "are not known; install metaworld 3.1.1, or bring METAWORLD_PHASES up to date"
        )
