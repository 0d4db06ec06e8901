"""Protocols: their figures as published, episodes and seeds."""

import json

import pytest

from hilam_hf.envs.protocols import EpisodeSpec, plan_episodes
from hilam_hf.envs.registry import get_protocol
from hilam_hf.envs.seeds import FIRST_EVALUATION_SEED

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")


@pytest.mark.parametrize(
    ("name", "episodes", "settle", "steps", "size", "transform"),
    [
        ("openvla", 50, 10, (220, 280, 300, 520, 400), 256, "rotate_180"),
        ("lerobot", 50, 10, (280, 280, 300, 520, 400), 256, "rotate_180"),
        ("libero", 20, 5, (600,) * 5, 128, "none"),
        ("baku", 10, 0, (600,) * 5, 128, "flip_vertical"),
    ],
)
def test_published_figures(name, episodes, settle, steps, size, transform):
    protocol = get_protocol(name)
    assert protocol.name == name
    assert (protocol.episodes_per_task, protocol.settle_steps) == (episodes, settle)
    assert tuple(map(protocol.steps_of, SUITES)) == steps
    assert (protocol.image_size, protocol.image_transform) == (size, transform)
    assert protocol.initial_states == ("random" if name == "baku" else "fixed")
    assert len(protocol.settle_action) == 7
    assert json.loads(json.dumps(protocol.to_dict()))["max_steps"] == protocol.to_dict()["max_steps"]


def test_fixed_initial_states_have_seeds_of_their_own():
    plan = plan_episodes(get_protocol("openvla"), ["libero_goal/1", "libero_goal/2"], seed=3, episodes=[0, 4])
    assert plan == [
        EpisodeSpec("libero_goal/1", 0, 3, 0),
        EpisodeSpec("libero_goal/1", 4, 7, 4),
        EpisodeSpec("libero_goal/2", 0, 3, 0),
        EpisodeSpec("libero_goal/2", 4, 7, 4),
    ]
    assert str(plan[1]) == "libero_goal/1, initial state 4, seed 7"


def test_random_initial_states_are_never_a_demonstrations():
    plan = plan_episodes(get_protocol("baku"), ["libero_10/0"], seed=0)
    assert [spec.index for spec in plan] == list(range(10))
    assert all(spec.initial_state is None and spec.seed >= FIRST_EVALUATION_SEED for spec in plan)
    assert len({spec.seed for spec in plan}) == 10


def test_changed_choices_show_in_the_name():
    protocol = get_protocol("openvla")
    assert protocol.with_options(image_size=None, settle_steps=10) is protocol
    changed = protocol.with_options(image_size=128, executed_chunk_length=8)
    assert changed.name == "openvla+image_size+executed_chunk_length"
    assert (changed.image_size, changed.executed_chunk_length, changed.settle_steps) == (128, 8, 10)
    assert get_protocol(changed) is changed


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("max_steps", 12, r'a mapping from suites to whole numbers of at least 1, such as \{"": 200\} for any'),
        ("max_steps", {}, "a mapping from suites"),
        ("max_steps", {"": 0}, "a mapping from suites"),
        ("image_size", "128", "a whole number of at least 1"),
        ("image_size", 0, "a whole number of at least 1"),
        ("settle_steps", -1, "a whole number of at least 0"),
        ("episodes_per_task", 1.5, "a whole number of at least 1"),
        ("seed", -3, "a whole number of at least 0"),
        ("executed_chunk_length", 0, "a whole number of at least 1, or None"),
        ("image_transform", 180, "text"),
        ("initial_states", "any", "one of fixed, random"),
        ("settle_action", ("up",), "a tuple of numbers"),
        ("cameras", "agentview", "a tuple of names"),
        ("proprioception", 7, "text"),
    ],
)
def test_a_protocol_with_a_wrong_value_is_refused_when_it_is_made(option, value, expected):
    with pytest.raises(ValueError, match=rf"protocol openvla.*: {option}: got .*, expected {expected}"):
        get_protocol("openvla").with_options(**{option: value})


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="a protocol has no image_height; it has"):
        get_protocol("openvla").with_options(image_height=3)
    with pytest.raises(ValueError, match=r"protocol openvla is for libero_spatial, .*; got 'libero_kitchen'"):
        get_protocol("openvla").steps_of("libero_kitchen")
    for tasks, episodes in (([], [0]), (["libero_goal/1"], [])):
        with pytest.raises(ValueError, match="got none"):
            plan_episodes(get_protocol("openvla"), tasks, episodes=episodes)
    for episodes in ([0, 0], [-1]):
        with pytest.raises(ValueError, match="expected different numbers from 0 on"):
            plan_episodes(get_protocol("openvla"), ["libero_goal/1"], episodes=episodes)
