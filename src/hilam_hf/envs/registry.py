"""The simulators and their protocols by name: those of this package, of others, and those of the running program."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points

from .contract import Simulator
from .protocols import EvaluationProtocol

ENTRY_POINTS = "hilam_hf.simulators"
"""Group of the entry points by which other packages bring simulators: `name = "module:OBJECT"`, a `Simulator`."""

_BUILT_IN = {
    "libero": "hilam_hf.envs.libero.declaration:LIBERO",
    "metaworld": "hilam_hf.envs.metaworld.declaration:METAWORLD",
}
_registered: dict[str, Simulator] = {}


def register_simulator(simulator: Simulator) -> None:
    """Make a simulator known in this process, in the place of an entry point.

    Raises:
        ValueError: Another simulator has its name.

    Example:
        >>> register_simulator(MySimulator())  # doctest: +SKIP
        >>> evaluate(policy, "my-task", protocol="my-protocol")  # doctest: +SKIP
    """
    there = _registered.get(simulator.name) or _places().get(simulator.name)
    if there not in (None, simulator):
        raise _clash(f"are called {simulator.name!r}", there, simulator)
    _registered[simulator.name] = simulator


def unregister_simulator(name: str) -> None:
    """Forget a simulator that `register_simulator` made known."""
    _registered.pop(name, None)


def simulator_names() -> list[str]:
    """Return the names of all simulators, without importing any."""
    return [*_places(), *_registered]


def get_simulator(name: str) -> Simulator:
    """Return a simulator by its name.

    Raises:
        ValueError: There is no such simulator, or two have the name.
        ImportError: Its declaration cannot be imported.
    """
    if name in _registered:
        return _registered[name]
    places = _places()
    if name not in places:
        raise ValueError(f"unknown simulator {name!r}; there are {', '.join(simulator_names())}")
    return _load(name, places[name])


def protocol_names() -> list[str]:
    """Return the names of the protocols of all simulators."""
    return [protocol.name for protocol in _protocols()]


def get_protocol(protocol: str | EvaluationProtocol) -> EvaluationProtocol:
    """Return a protocol of any simulator by its name, or the one that is given, which is checked.

    Raises:
        ValueError: There is no such protocol, two simulators bring one of that name, or a given one asks for what its
            simulator lacks.
    """
    if isinstance(protocol, EvaluationProtocol):
        return get_simulator(protocol.simulator).protocol(protocol)
    found = [one for one in _protocols() if one.name == protocol]
    if not found:
        raise ValueError(f"unknown protocol {protocol!r}; there are {', '.join(protocol_names())}")
    if len(found) > 1:
        raise _clash(f"bring a protocol {protocol!r}", *(one.simulator for one in found))
    return found[0]


def _protocols() -> list[EvaluationProtocol]:
    return [protocol for name in simulator_names() for protocol in get_simulator(name).protocols]


@cache
def _places() -> dict[str, str]:
    """Where the declarations are, by name: `module:OBJECT`."""
    places = dict(_BUILT_IN)
    for entry in entry_points(group=ENTRY_POINTS):
        # The same line may be found twice, beside an editable installation.
        if places.setdefault(entry.name, entry.value) != entry.value:
            raise _clash(f"are called {entry.name!r}", places[entry.name], entry.value)
    return places


@cache
def _load(name: str, place: str) -> Simulator:
    module, _, attribute = place.partition(":")
    try:
        simulator = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"simulator {name}: cannot import {place} ({error}); repair or uninstall the package that brings it"
        ) from error
    if not isinstance(simulator, Simulator) or simulator.name != name:
        raise ImportError(f"simulator {name}: {place} is no `Simulator` of that name, got {simulator!r}")
    return simulator


def _clash(what: str, *sources: object) -> ValueError:
    return ValueError(f"two simulators {what}: {' and '.join(map(str, sources))}; rename or uninstall one")
