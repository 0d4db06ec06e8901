"""Meta-World's host: what is drawn, what observations hold besides, whose environment is kept."""

from __future__ import annotations

import numpy as np
import pytest

from hilam_hf.envs.metaworld.expert import ScriptedExpert
from hilam_hf.envs.metaworld.host import MetaWorldHost
from hilam_hf.envs.protocols import EpisodeSpec
from hilam_hf.envs.registry import get_protocol

pytestmark = pytest.mark.sim
PROTOCOL = get_protocol("metaworld").with_options(image_size=16, cameras=("workspace",), max_steps={"": 3})
SPEC = EpisodeSpec("drawer-open", 0, 1_000_000)
STILL = np.zeros(4, np.float32)


@pytest.fixture
def make_host():
    hosts = []

    def make(**options):
        hosts.append(MetaWorldHost(**{"protocol": PROTOCOL, **options}))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


def test_only_what_is_asked_for_is_drawn(make_host):
    host = make_host()
    observation, info = host.reset(SPEC, False)
    assert set(observation) == {"agent_pos"} and info["instruction"] == "open the drawer"
    drawn = host.step(STILL, True)[0]
    assert drawn["pixels"]["workspace"].shape == (16, 16, 3)
    assert "pixels" not in host.step(STILL, False)[0]
    assert host.fps() == 80.0
    blind = make_host(render=False)
    assert "pixels" not in blind.reset(SPEC, True)[0]


def test_drawing_changes_nothing_else(make_host):
    rewards = []
    for draw in (True, False):
        host = make_host()
        host.reset(SPEC, draw)
        rewards.append([host.step(np.full(4, 0.5, np.float32), draw)[1] for _ in range(3)])
    assert rewards[0] == rewards[1]


def test_the_protocol_says_when_an_episode_has_failed(make_host):
    host = make_host(render=False)
    host.reset(SPEC, False)
    assert [host.step(STILL, False)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]


def test_extras_hold_state_and_expert(make_host):
    host = make_host(render=False, extras=("privileged", "expert_action"), noise=0.2)
    expert = ScriptedExpert("drawer-open", noise=0.2, seed=SPEC.seed)
    observation, _ = host.reset(SPEC, False)
    for _ in range(2):
        assert observation["privileged"].shape == (39,)
        np.testing.assert_array_equal(observation["expert_action"], expert.act(observation["privileged"]))
        observation = host.step(observation["expert_action"], False)[0]


def test_another_task_gets_another_environment(make_host):
    host = make_host(render=False)
    assert host.reset(SPEC, False)[1]["task"] == "drawer-open"
    first = host._environment
    host.reset(SPEC, False)
    assert host._environment is first
    assert host.reset(EpisodeSpec("door-open", 0, 1), False)[1]["task"] == "door-open"
    assert host._environment is not first


def test_provenance_needs_no_episode(make_host):
    record = make_host().provenance()
    assert record["mujoco"] == record["renderer"]["mujoco"] and record["metaworld"]
    assert record["renderer"]["quality"] == "fast"
    assert make_host(render=False).provenance()["renderer"] is None


def test_bad_input_is_named(make_host):
    with pytest.raises(ValueError, match="protocol openvla is for libero, not for Meta-World"):
        make_host(protocol=get_protocol("openvla"))
    with pytest.raises(ValueError, match="have no depth; extras are privileged, expert_action"):
        make_host(extras=("depth",))
    with pytest.raises(RuntimeError, match=r"step\(\) called before reset"):
        make_host().step(STILL, False)
