"""Observations as a policy takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.models.baku.tiny import observations, tiny_policy


def without(key: str) -> Any:
    return lambda observation: observation.pop(key)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda o: o["pixels"].pop("wrist"), "lacks camera 'wrist'"),
        (without("pixels"), "lacks camera 'front'"),
        (without("agent_pos"), "lacks 'agent_pos'"),
        (without("task"), "lacks 'task'"),
        (lambda o: o.update(task=["one"]), "2 strings"),
        (lambda o: o.update(agent_pos=np.zeros((2, 4))), r"shape \(5,\) or \(B, 5\)"),
        (lambda o: o.update(agent_pos=np.zeros(5)), "batch dimension"),
        (lambda o: o.update(agent_pos=np.zeros((3, 5))), "same number of rows"),
        (lambda o: o["pixels"].update(front=np.zeros((2, 8, 8, 3))), "must be uint8"),
        (lambda o: o["pixels"].update(front=np.zeros((2, 3, 8, 8), np.uint8)), "must be uint8 of shape"),
    ],
)
def test_bad_observation_is_named(spoil: Any, message: str):
    observation = observations(1, 2)[0]
    spoil(observation)
    with pytest.raises(ValueError, match=message):
        tiny_policy().select_action(observation)
