"""Simulators, suites, tasks and protocols as options of commands, and what commands make of them."""

from collections.abc import Sequence
from typing import Annotated

import typer

from ..envs.protocols import EvaluationProtocol
from ..envs.registry import get_protocol, get_simulator
from .options import split

SimulatorName = Annotated[
    str | None,
    typer.Option(
        help="metaworld, libero, or an installed one; otherwise the protocol's, or LIBERO with --suite and Meta-World "
        "without."
    ),
]
Suite = Annotated[
    str | None, typer.Option(help="LIBERO suite: spatial, object, goal, 10 (long) or 90. Without one, Meta-World.")
]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        help="openvla (LIBERO's default), lerobot, libero, baku, metaworld (its default), or an installed simulator's."
    ),
]

# A range is written out: what no simulator has that many of must not fill the memory.
_LARGEST_NUMBER = 99_999


def choose_protocol(simulator: str | None, suite: str | None, protocol: str | None) -> EvaluationProtocol:
    """The protocol that is named, or the default one of the simulator that is.

    Raises:
        ValueError: There is no such simulator or protocol.
    """
    if simulator is not None:
        return get_simulator(simulator).protocol(protocol)
    if protocol is None and suite is not None:
        # The one that has suites.
        return get_simulator("libero").protocol()
    return get_protocol(protocol)


def with_cameras(protocol: EvaluationProtocol, cameras: str | None) -> EvaluationProtocol:
    """The protocol with the cameras that are named, comma-separated, or else its simulator's usual ones."""
    chosen = get_simulator(protocol.simulator).default_cameras if cameras is None else tuple(split(cameras))
    return protocol.with_options(cameras=chosen)


def choose_tasks(protocol: EvaluationProtocol, tasks: str | None, suite: str | None) -> Sequence[str | int] | None:
    """The tasks that are named, or where neither they nor a suite are, the simulator's usual ones."""
    if tasks is None and suite is None:
        return get_simulator(protocol.simulator).default_tasks or None
    return parse_tasks(tasks, suite)


def parse_tasks(tasks: str | None, suite: str | None) -> Sequence[str | int] | None:
    """The tasks that are named: numbers of a suite, otherwise names; None where none are."""
    if tasks is None:
        return None
    if not split(tasks):
        raise ValueError(f"--tasks: got {tasks!r}, which names no task")
    return split(tasks) if suite is None else parse_numbers(tasks, "--tasks")


def parse_numbers(text: str, option: str) -> list[int]:
    """Read numbers and ranges, such as `0-4,7`.

    Args:
        text: The numbers, comma-separated; `a-b` includes both.
        option: What they were given for, named in errors.

    Raises:
        ValueError: It is something else, or names nothing.
    """
    numbers: list[int] = []
    for part in split(text):
        first, separator, last = part.partition("-")
        if not first.isdecimal() or (separator and not last.isdecimal()):
            raise ValueError(f"{option}: got {part!r}, expected numbers and ranges such as 0-4,7")
        if int(last or first) > _LARGEST_NUMBER:
            raise ValueError(f"{option}: got {part!r}, expected numbers up to {_LARGEST_NUMBER}")
        numbers.extend(range(int(first), int(last or first) + 1))
    if not numbers:
        raise ValueError(f"{option}: got {text!r}, which names no number")
    return numbers
