"""The batch that a policy sees: rows of their own, pictures that stay where nothing was drawn."""

from __future__ import annotations

import numpy as np

from hilam_hf.envs.protocols import EpisodeSpec
from hilam_hf.evaluation.rollouts.observations import ObservationBatch

SPECS = [EpisodeSpec("door-open", 0, 11), EpisodeSpec("drawer-open", 1, 12)]


def seen(value: int, *, drawn: bool = True) -> dict:
    observation = {"agent_pos": np.full(3, value, np.float32), "privileged": np.full(2, -value, np.float64)}
    return observation | ({"pixels": {"front": np.full((4, 4, 3), value, np.uint8)}} if drawn else {})


def test_rows_are_filled_alone():
    batch = ObservationBatch(2, ("privileged", "task_name", "episode_seed"), action_dim=7)
    batch.put(1, SPECS[1], "open the drawer", seen(5))
    first = batch.observation()
    assert first["task"] == ["", "open the drawer"] and first["task_name"] == ["", "drawer-open"]
    assert first["episode_seed"].tolist() == [0, 12] and "action_dim" not in first
    assert first["agent_pos"].tolist() == [[0] * 3, [5] * 3] and first["privileged"].tolist() == [[0, 0], [-5, -5]]
    assert first["agent_pos"].dtype == np.float32 and first["privileged"].dtype == np.float64
    assert not first["pixels"]["front"][0].any() and (first["pixels"]["front"][1] == 5).all()
    batch.put(0, SPECS[0], "open the door", seen(9))
    assert batch.observation()["task"] == ["open the door", "open the drawer"]


def test_a_row_that_was_not_drawn_keeps_its_pictures():
    batch = ObservationBatch(1, ("action_dim",), action_dim=7)
    batch.put(0, SPECS[0], "open the door", seen(5))
    batch.put(0, SPECS[0], "open the door", seen(6, drawn=False))
    observation = batch.observation()
    assert (observation["pixels"]["front"] == 5).all() and observation["agent_pos"].tolist() == [[6] * 3]
    assert observation["action_dim"] == 7


def test_there_are_no_pictures_where_none_was_ever_drawn():
    batch = ObservationBatch(1, (), action_dim=7)
    batch.put(0, SPECS[0], "open the door", seen(5, drawn=False))
    assert set(batch.observation()) == {"task", "agent_pos", "privileged"}
