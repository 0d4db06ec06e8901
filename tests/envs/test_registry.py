"""Simulators by name: built in, installed, registered; what is told where a name is unknown or taken twice."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from hilam_hf.envs import registry
from hilam_hf.envs.registry import (
    get_protocol,
    get_simulator,
    protocol_names,
    register_simulator,
    simulator_names,
    unregister_simulator,
)
from tests.envs.toy_simulator import TOY, ToySimulator
from tests.test_plugins import add_package, looked_up_again


@pytest.fixture
def toy():
    register_simulator(TOY)
    yield TOY
    unregister_simulator("toy")


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Install packages with these entry points, one each."""

    def _install(*points):
        for number, (name, value) in enumerate(points):
            add_package(tmp_path, f"simulator_package_{number}", "", f"{name} = {value}", registry.SIMULATORS.group)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(registry, "SIMULATORS", looked_up_again(registry.SIMULATORS))

    return _install


def test_built_in_simulators_are_known_by_name():
    assert simulator_names() == ["libero", "metaworld"]
    assert protocol_names() == ["openvla", "lerobot", "libero", "baku", "metaworld"]
    assert [get_simulator(name).title for name in simulator_names()] == ["LIBERO", "Meta-World"]
    assert get_protocol("baku") is get_simulator("libero").protocol("baku")
    assert get_simulator("libero").protocol().name == "openvla"


def test_registered_simulator_is_found_with_its_protocols(toy):
    assert simulator_names()[-1] == "toy" and get_simulator("toy") is toy
    assert get_protocol("toy") is toy.protocols[0]
    for name in ("toy", "libero"):
        with pytest.raises(ValueError, match=f"there is a simulator '{name}' already; choose another name"):
            register_simulator(type("Other", (ToySimulator,), {"name": name})())


def test_installed_simulator_is_found(install):
    place = "tests.envs.toy_simulator:TOY"
    # Beside an editable installation the same line is found twice.
    install(("toy", place), ("toy", place))
    assert simulator_names() == ["libero", "metaworld", "toy"]
    assert get_simulator("toy").protocol().name == "toy"


@pytest.mark.parametrize(
    ("points", "error", "named"),
    [
        (
            [("libero", "other:SIM")],
            ValueError,
            r"'libero' is declared twice, by hilam_hf\S+:LIBERO \(hilam-hf\) and other",
        ),
        ([("toy", "one:SIM"), ("toy", "two:SIM")], ValueError, r"'toy' is declared twice, by one:SIM .* and two:SIM"),
        ([("toy", "no_such_module:SIM")], ImportError, "'toy' cannot be loaded from no_such_module:SIM .*uninstall"),
        (
            [("toy", "tests.envs.toy_simulator:SIM")],
            ImportError,
            "'toy' cannot be loaded from tests.envs.toy_simulator:SIM",
        ),
        (
            [("toys", "tests.envs.toy_simulator:TOY")],
            ValueError,
            "'toys': .* expected a Simulator",
        ),
    ],
)
def test_faults_of_installed_simulators_are_named(install, points, error, named):
    install(*points)
    with pytest.raises(error, match=named):
        get_simulator(points[0][0])


def test_unknown_names_list_the_known_ones(toy):
    with pytest.raises(ValueError, match="unknown simulator 'mars'; known: libero, metaworld, toy"):
        get_simulator("mars")
    with pytest.raises(ValueError, match=r"unknown protocol 'octo'; there are openvla, .*, metaworld, toy"):
        get_protocol("octo")


def test_protocols_of_one_name_are_told_apart(toy, monkeypatch):
    monkeypatch.setattr(toy, "protocols", (replace(toy.protocols[0], name="baku"),))
    with pytest.raises(ValueError, match="two simulators bring a protocol 'baku': libero and toy"):
        get_protocol("baku")
    assert toy.protocol("baku").simulator == "toy"


def test_given_protocols_are_checked_by_their_simulator():
    openvla = get_protocol("openvla")
    assert get_protocol(openvla) is openvla
    with pytest.raises(ValueError, match="image_transform: got 'upright', but LIBERO has rotate_180, flip_vertical"):
        get_protocol(openvla.with_options(image_transform="upright"))
    with pytest.raises(ValueError, match="unknown simulator 'mars'"):
        get_protocol(replace(openvla, simulator="mars"))


def test_names_and_tasks_need_neither_simulator_nor_torch():
    code = (
        "import sys; from hilam_hf.envs import get_simulator, protocol_names\n"
        "protocol_names(); get_simulator('metaworld').task_names(['drawer-open'])\n"
        "print([name for name in ('torch', 'mujoco', 'gymnasium', 'metaworld', 'libero') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
