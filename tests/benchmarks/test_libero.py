"""The LIBERO benchmark's parts: what is played, looked at and counted."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from tests.benchmarks.scripts import import_script

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def contenders() -> ModuleType:
    return import_script("_libero_contenders")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return import_script("libero_eval")


def outcomes(**seconds: float) -> dict[str, dict[str, float]]:
    """One round of 100 steps each."""
    return {name: {"seconds": value, "steps": 100} for name, value in seconds.items()}


def test_claims_are_of_medians_and_have_the_spread_of_the_less_steady(script: ModuleType) -> None:
    rounds = [
        outcomes(sequential=20, subproc=10, exact=8, fast=4),
        outcomes(sequential=20, subproc=12, exact=10, fast=4),
    ]
    by_name = {claim.name: claim for claim in script.speed_claims(rounds)}
    exact = by_name["libero_exact_vs_sequential"]
    assert (exact.ours, exact.peer) == (pytest.approx(100 / 9), pytest.approx(5))
    assert exact.ratio == pytest.approx(20 / 9) and exact.spread == pytest.approx(1 / 9) and not exact.unsteady
    assert by_name["libero_fast_vs_subproc"].spread == pytest.approx(1 / 11)


@pytest.mark.parametrize(
    ("exact_seconds", "rounds", "unsteady"), [([10, 10], 2, False), ([9, 12, 10.5], 3, True), ([9, 12, 9], 3, False)]
)
def test_a_third_round_where_the_spread_leaves_a_claim_open_and_never_a_fourth(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, exact_seconds: list[float], rounds: int, unsteady: bool
) -> None:
    """Aim 1.8: 20 s against 10.5 s lie 6 % above it, with a spread of 14 %; against 9 s 23 %, with one of 17 %."""
    coming = [outcomes(sequential=20, subproc=20, exact=seconds, fast=4) for seconds in exact_seconds]
    monkeypatch.setattr(script, "run_all", lambda job, folder: coming.pop(0))
    done = script.run_until_steady({}, None)
    assert len(done) == rounds and not coming
    claims = {claim.name: claim for claim in script.speed_claims(done)}
    assert claims["libero_exact_vs_sequential"].unsteady == unsteady


def test_replay_plays_each_rows_episode_and_looks_every_few_steps(contenders: ModuleType) -> None:
    episodes = {"a/0 3": [[1.0] * 7, [2.0] * 7, [3.0] * 7], "a/0 5": [[9.0] * 7]}
    policy = contenders.Replay(episodes, seed=10, chunk_length=2)
    observation = {"task_name": ["a/0", "a/0"], "episode_seed": np.array([13, 15])}
    policy.reset([0, 1])
    first = policy.select_action(observation)
    assert first[:, 0].tolist() == [1.0, 9.0] and policy.reads_next() == [False, False]
    second = policy.select_action(observation, active=[0])
    assert second[:, 0].tolist() == [2.0, 0.0] and policy.reads_next() == [True, False]
    policy.reset([0])
    assert policy.select_action(observation, active=[0, 1])[:, 0].tolist() == [1.0, 9.0]


class Vector:
    """Environments of which each is done at a step of its own."""

    def __init__(self, done_at: list[int]) -> None:
        self.done_at, self.played = done_at, []

    def step(self, actions: np.ndarray, id: list[int]) -> tuple[None, None, np.ndarray, None]:
        self.played.append(actions[:, 0].tolist())
        return None, None, np.array([len(self.played) == step for step in self.done_at]), None


def test_a_wave_goes_on_until_all_are_done_and_counts_steps_before(contenders: ModuleType) -> None:
    actions = {"a/0 0": [[1.0]] * 3, "a/0 1": [[2.0]] * 5}
    successes: dict[str, bool] = {}
    vector = Vector([2, 4])
    assert contenders._play_wave(vector, "a/0", [0, 1], actions, successes) == 2 + 4
    assert successes == {"a/0 0": True, "a/0 1": True} and len(vector.played) == 4
    vector = Vector([2, 99])
    assert contenders._play_wave(vector, "a/0", [0, 1], actions, successes) == 2 + 5
    assert successes == {"a/0 0": True, "a/0 1": False}
