"""What every simulator inherits from the contract: names of tasks, protocols and episodes that are checked."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace

import pytest

from hilam_hf.envs import Demonstrator, EpisodeSpec, Host
from hilam_hf.envs.registry import get_simulator
from tests.envs.toy_simulator import TOY

SQUARE = TOY.protocols[0]


def test_tasks_come_once_and_in_order():
    assert TOY.task_names("left") == ["left"]
    assert TOY.task_names(["right", "left", "right"]) == ["right", "left"]
    with pytest.raises(ValueError, match="unknown toy task 'up'; there are left, right"):
        TOY.task_names(["up"])
    with pytest.raises(ValueError, match="at least one task, or a suite"):
        TOY.task_names(None)
    with pytest.raises(ValueError, match=r"at least one task$"):
        TOY.task_names([])


def test_defaults_are_those_of_a_simulator_without_suites_assets_and_fixed_states():
    assert TOY.episode_id(EpisodeSpec("left", 7, 3)) == "left/episode_00007"
    assert (TOY.suite_of("left"), TOY.num_initial_states("left"), TOY.host_options()) == ("", None, {})
    assert TOY.recorded_protocol(SQUARE) == {"protocol": SQUARE.to_dict()}
    with pytest.raises(ValueError, match="assets: toy takes none; got meshes"):
        TOY.host_options("meshes")


def test_episodes_of_libero_are_named_after_files_and_states():
    pytest.importorskip("libero")
    libero = get_simulator("libero")
    soup = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
    assert libero.episode_id(EpisodeSpec("libero_object/0", 4, 12)) == f"{soup}/seed_12"
    assert libero.episode_id(EpisodeSpec("libero_object/0", 4, 12, 7)) == f"{soup}/init_007_seed_12"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"simulator": "libero"}, "protocol toy is for libero, not for toy"),
        ({"proprioception": "joints"}, "proprioception: got 'joints', but toy has place"),
        ({"image_transform": "rotate_180"}, "image_transform: got 'rotate_180', but toy has none"),
        ({"cameras": ("below",)}, r"cameras: got \('below',\), expected one or several different of above"),
        ({"cameras": ()}, r"cameras: got \(\), expected one or several"),
        ({"settle_action": (0.0,)}, "settle_action: got 1 numbers, but toy takes 2"),
    ],
)
def test_protocols_that_ask_for_what_there_is_not_are_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        TOY.protocol(replace(SQUARE, **changes))


def test_protocols_are_known_by_name():
    assert TOY.protocol() is TOY.protocol("toy") is TOY.protocol(SQUARE) is SQUARE
    with pytest.raises(ValueError, match="toy has no protocol 'openvla'; it has toy"):
        TOY.protocol("openvla")


def test_episodes_are_checked_before_the_first_one():
    TOY.check_episodes(SQUARE, [EpisodeSpec("left", 0, 0)])
    with pytest.raises(ValueError, match="toy draws initial states by seeds and has none of its own, got 3"):
        TOY.check_episodes(SQUARE, [EpisodeSpec("left", 0, 0, 3)])
    with pytest.raises(ValueError, match="protocol toy is for hard; got ''"):
        TOY.check_episodes(replace(SQUARE, max_steps={"hard": 3}), [EpisodeSpec("left", 0, 0)])


@pytest.mark.sim
@pytest.mark.parametrize("name", ["libero", "metaworld"])
def test_built_in_classes_keep_the_contract(name):
    declared = get_simulator(name)
    options = {"protocol", "quality", *declared.host_options()}
    for target, contract, keywords in (
        (declared.host, Host, options | {"render", "extras", "noise"}),
        (declared.recording.demonstrator, Demonstrator, options | set(declared.recording.options)),
    ):
        module, _, attribute = target.partition(":")
        kind = getattr(importlib.import_module(module), attribute)
        assert set(inspect.signature(kind).parameters) == keywords
        for method in [each for each in vars(contract) if not each.startswith("_")]:
            expected, given = (list(inspect.signature(getattr(each, method)).parameters) for each in (contract, kind))
            assert given == expected, method
