"""The layout strings of H-Net: what the stack of each stage consists of, and how the stages nest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..limits import MAX_LAYERS, MAX_STAGES, check_limit

_STACK = re.compile(r"(?:[tTmM]\d+)+")
_GROUP = re.compile(r"([tTmM])(\d+)")


@dataclass(frozen=True)
class LayerSpec:
    """One residual block: its mixer, and whether an MLP follows it."""

    mixer: str
    """`"t"` (attention) or `"m"` (Mamba2)."""
    has_mlp: bool


@dataclass(frozen=True)
class StageLayout:
    """The stacks of one stage: `(encoder, decoder)` around an inner stage, or `(stack,)` for the innermost one."""

    stacks: tuple[tuple[LayerSpec, ...], ...]

    @property
    def is_innermost(self) -> bool:
        """Whether this stage has no chunking of its own."""
        return len(self.stacks) == 1

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """All blocks of the stage."""
        return tuple(layer for stack in self.stacks for layer in stack)


def parse_stack(text: str) -> tuple[LayerSpec, ...]:
    """Reads one stack such as `"T1m4"`: letter-count pairs, upper case with an MLP, lower case without.

    Args:
        text: The stack; `t`/`T` is attention, `m`/`M` is Mamba2.

    Returns:
        One `LayerSpec` a block, in order.

    Raises:
        ValueError: If `text` is not a sequence of letter-count pairs with positive counts.
    """
    if not isinstance(text, str) or not _STACK.fullmatch(text):
        raise ValueError(
            f'arch_layout: got the stack {text!r}, expected letter-count pairs of t, T, m, M, such as "T1m4". '
            "Write every stack of the layout in that form."
        )
    groups = [(letter, int(count)) for letter, count in _GROUP.findall(text)]
    if any(count == 0 for _, count in groups):
        raise ValueError(f"arch_layout: got a count of 0 in the stack {text!r}, expected counts of 1 or more. Drop it.")
    check_limit("arch_layout", sum(count for _, count in groups), MAX_LAYERS)
    return tuple(LayerSpec(letter.lower(), letter.isupper()) for letter, count in groups for _ in range(count))


def parse_layout(arch_layout: Any, *, depth: int = 1) -> tuple[StageLayout, ...]:
    """Reads a nested layout such as `["T2", ["T1", ["T4"], "T1"], "T2"]`, outermost stage first.

    Args:
        arch_layout: `[encoder, inner layout, decoder]`, or `[stack]` for the innermost stage.
        depth: Which stage it is, from 1.

    Returns:
        One `StageLayout` a stage; only the last one is innermost.

    Raises:
        ValueError: If a level has another form, a stack cannot be read, or there are too many layers or stages.
    """
    check_limit("stages of arch_layout", depth, MAX_STAGES)
    match arch_layout:
        case [stack] if not isinstance(stack, (list, tuple)):
            return (StageLayout((parse_stack(stack),)),)
        case [encoder, [*inner], decoder]:
            return (StageLayout((parse_stack(encoder), parse_stack(decoder))), *parse_layout(inner, depth=depth + 1))
    raise ValueError(
        f"arch_layout: got the level {arch_layout!r}, expected [encoder, inner level, decoder] or [stack]. "
        'An example with two chunking stages is ["T2", ["T1", ["T4"], "T1"], "T2"].'
    )
