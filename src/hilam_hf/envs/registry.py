"""The simulators and their protocols by name: those of this package, of others, and those of the running program."""

from __future__ import annotations

from ..plugins import PluginList
from .contract import Simulator
from .protocols import EvaluationProtocol

SIMULATORS: PluginList[Simulator] = PluginList(
    "simulator",
    "hilam_hf.simulators",
    {
        "libero": "hilam_hf.envs.libero.declaration:LIBERO",
        "metaworld": "hilam_hf.envs.metaworld.declaration:METAWORLD",
    },
    expected="hilam_hf.envs.contract:Simulator",
)
"""The declarations of simulators; other packages bring theirs as entry points of this group."""

DEFAULT_SIMULATOR = "metaworld"
"""The one that is meant where none is named: it comes whole from the package index."""


def register_simulator(simulator: Simulator) -> None:
    """Make a simulator known in this process, in the place of an entry point.

    Raises:
        ValueError: Another simulator has its name.

    Example:
        >>> register_simulator(MySimulator())  # doctest: +SKIP
        >>> evaluate(policy, "my-task", protocol="my-protocol")  # doctest: +SKIP
    """
    SIMULATORS.add(simulator.name, simulator)


def unregister_simulator(name: str) -> None:
    """Forget a simulator that `register_simulator` made known.

    Raises:
        ValueError: No simulator of this name was made known so.
    """
    SIMULATORS.remove(name)


def simulator_names() -> list[str]:
    """Return the names of all simulators, without importing any."""
    return list(SIMULATORS.names())


def get_simulator(name: str) -> Simulator:
    """Return a simulator by its name.

    Raises:
        ValueError: There is no such simulator, two have the name, or what is declared is no simulator of this name.
        ImportError: Its declaration cannot be imported.
    """
    return SIMULATORS.get(name)


def protocol_names() -> list[str]:
    """Return the names of the protocols of all simulators."""
    return [protocol.name for protocol in _protocols()]


def get_protocol(protocol: str | EvaluationProtocol | None) -> EvaluationProtocol:
    """Return a protocol of any simulator by its name, or the one that is given, which is checked.

    Args:
        protocol: The protocol or its name; None for the first of `DEFAULT_SIMULATOR`.

    Raises:
        ValueError: There is no such protocol, two simulators bring one of that name, or a given one asks for what its
            simulator lacks.
    """
    if protocol is None:
        return get_simulator(DEFAULT_SIMULATOR).protocol()
    if isinstance(protocol, EvaluationProtocol):
        return get_simulator(protocol.simulator).protocol(protocol)
    found = [one for one in _protocols() if one.name == protocol]
    if not found:
        raise ValueError(f"unknown protocol {protocol!r}; there are {', '.join(protocol_names())}")
    if len(found) > 1:
        owners = " and ".join(one.simulator for one in found)
        raise ValueError(f"two simulators bring a protocol {protocol!r}: {owners}; rename or uninstall one")
    return found[0]


def _protocols() -> list[EvaluationProtocol]:
    return [protocol for name in simulator_names() for protocol in get_simulator(name).protocols]
