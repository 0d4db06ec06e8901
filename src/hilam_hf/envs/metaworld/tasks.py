"""The fifty Meta-World tasks and what each asks for in words."""

from __future__ import annotations

import difflib

INSTRUCTIONS: dict[str, str] = {
    "assembly": "put the nut on the peg",
    "basketball": "put the basketball in the hoop",
    "bin-picking": "move the block from one bin to the other",
    "box-close": "put the lid on the box",
    "button-press": "press the button",
    "button-press-topdown": "press the button from above",
    "button-press-topdown-wall": "reach over the wall and press the button from above",
    "button-press-wall": "reach over the wall and press the button",
    "coffee-button": "press the button of the coffee machine",
    "coffee-pull": "pull the mug away from the coffee machine",
    "coffee-push": "push the mug under the coffee machine",
    "dial-turn": "turn the dial",
    "disassemble": "take the nut off the peg",
    "door-close": "close the door",
    "door-lock": "lock the door",
    "door-open": "open the door",
    "door-unlock": "unlock the door",
    "drawer-close": "close the drawer",
    "drawer-open": "open the drawer",
    "faucet-close": "close the faucet",
    "faucet-open": "open the faucet",
    "hammer": "hammer the nail into the box",
    "hand-insert": "put the gripper into the hole",
    "handle-press": "press the handle down",
    "handle-press-side": "press the handle down from the side",
    "handle-pull": "pull the handle up",
    "handle-pull-side": "pull the handle up from the side",
    "lever-pull": "pull the lever",
    "peg-insert-side": "insert the peg into the hole from the side",
    "peg-unplug-side": "unplug the peg from the side",
    "pick-out-of-hole": "pick the puck out of the hole",
    "pick-place": "pick up the puck and place it at the goal",
    "pick-place-wall": "pick up the puck and place it at the goal behind the wall",
    "plate-slide": "slide the plate into the cabinet",
    "plate-slide-back": "slide the plate out of the cabinet",
    "plate-slide-back-side": "slide the plate sideways out of the cabinet",
    "plate-slide-side": "slide the plate sideways into the cabinet",
    "push": "push the puck to the goal",
    "push-back": "pull the puck back to the goal",
    "push-wall": "push the puck around the wall to the goal",
    "reach": "reach the goal",
    "reach-wall": "reach the goal behind the wall",
    "shelf-place": "put the block on the shelf",
    "soccer": "push the ball into the goal",
    "stick-pull": "pull the thermos with the stick",
    "stick-push": "push the thermos with the stick",
    "sweep": "sweep the block off the table",
    "sweep-into": "sweep the block into the hole",
    "window-close": "close the window",
    "window-open": "open the window",
}


def normalize_task(task: str) -> str:
    """Return the task's name without Meta-World's version suffix.

    Args:
        task: A task of Meta-World's MT50, with or without `-v3`, such as `"drawer-open"` or `"drawer-open-v3"`.

    Returns:
        The name without the suffix.

    Raises:
        ValueError: There is no such task; the message lists the names nearest to it.
    """
    name = task.removesuffix("-v3")
    if name in INSTRUCTIONS:
        return name
    near = difflib.get_close_matches(name, INSTRUCTIONS, n=4, cutoff=0.5)
    advice = f"did you mean {', '.join(near)}?" if near else f"the tasks are {', '.join(sorted(INSTRUCTIONS))}"
    raise ValueError(f"unknown Meta-World task {task!r}; {advice}")


def instruction(task: str) -> str:
    """Return what the task asks for in words, such as `"open the drawer"`.

    Raises:
        ValueError: There is no such task.
    """
    return INSTRUCTIONS[normalize_task(task)]
