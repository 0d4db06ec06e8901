"""Rollouts: success counts, records, independence from the number of environments, what goes wrong."""

import json
import os
import signal

import numpy as np
import pytest

from hilam_hf.envs import WorkerError
from hilam_hf.envs.host import EnvironmentHost
from hilam_hf.evaluation import ExpertPolicy, RandomPolicy, evaluate, rollout
from hilam_hf.video import check_video
from tests.helpers import ROOT

pytestmark = pytest.mark.sim
STATE_ONLY = {"render": False, "progress": False}
TASKS = ("drawer-open", "door-open", "button-press-topdown")


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)


class DyingHost(EnvironmentHost):
    """Dies at one seed."""

    def reset(self, task, seed):
        if seed == 1_000_001:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().reset(task, seed)


class Spy:
    """Stands still and notes what it is given."""

    def __init__(self, action=0.0, extra_observations=("episode_seed",)):
        self.action = action
        self.extra_observations = extra_observations
        self.resets = []
        self.observations = []

    def reset(self, indices=None):
        self.resets.append(None if indices is None else list(indices))

    def select_action(self, observation):
        self.observations.append(observation)
        return np.full((len(observation["agent_pos"]), 4), self.action, np.float32)


def _episodes(result):
    return [
        (episode.task, episode.seed, episode.success, episode.steps, episode.total_reward)
        for episode in result.episodes
    ]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    result = evaluate(
        ExpertPolicy(),
        TASKS,
        episodes_per_task=2,
        num_envs=2,
        image_size=32,
        camera="workspace",
        out_dir=out,
        progress=False,
    )
    return out, result


def test_expert_solves_every_episode(recorded):
    _, result = recorded
    assert result.overall.rate == 1.0
    assert {task: (rate.successes, rate.trials) for task, rate in result.tasks.items()} == dict.fromkeys(TASKS, (2, 2))


def test_results_file(recorded):
    out, result = recorded
    written = json.loads((out / "results.json").read_text())
    assert written["protocol"] == "metaworld" and written["success_rate"] == 1.0
    # Wilson's lower bound without failures: n / (n + z²).
    assert written["interval"] == pytest.approx([6 / (6 + 1.959964**2), 1.0])
    assert written["tasks"]["door-open"]["success_rate"] == 1.0
    assert written["tasks"]["door-open"]["interval"] == pytest.approx([2 / (2 + 1.959964**2), 1.0])
    assert [(e["task"], e["seed"]) for e in written["episode_results"]] == [
        (task, seed) for task in TASKS for seed in (1_000_000, 1_000_001)
    ]
    assert [e["steps"] for e in written["episode_results"]] == [episode.steps for episode in result.episodes]


def test_provenance(recorded):
    out, _ = recorded
    record = json.loads((out / "results.json").read_text())["provenance"]
    assert record["policy"]["class"] == "ExpertPolicy" and record["policy"]["name"] == "expert"
    assert record["environment"] == {
        "tasks": list(TASKS),
        "camera": "workspace",
        "image_size": 32,
        "quality": "fast",
        "max_steps": 200,
        "render": True,
    }
    assert record["renderer"]["quality"] == "fast" and record["renderer"]["backend"] in ("egl", "osmesa")
    assert record["seeds"] == [1_000_000, 1_000_001] and record["settle_steps"] == 0
    assert record["packages"]["metaworld"] and record["packages"]["mujoco"] == record["renderer"]["mujoco"]
    assert record["machine"]["cores"] == os.cpu_count()


def test_first_episode_of_each_task_becomes_a_video(recorded):
    out, result = recorded
    videos = [episode.video for episode in result.episodes]
    assert videos[::2] == [f"videos/{task}-1000000-success.mp4" for task in TASKS] and videos[1::2] == [None] * 3
    for episode in result.episodes[::2]:
        info = check_video(out / episode.video)
        # The observation that the last action led to is shown, too.
        assert (info.num_frames, info.height, info.fps) == (episode.steps + 1, 32, 80.0)


def test_random_actions_press_no_button():
    result = evaluate(RandomPolicy(), "button-press-topdown", episodes_per_task=4, max_steps=100, **STATE_ONLY)
    assert result.overall.successes == 0
    assert [episode.steps for episode in result.episodes] == [100] * 4


@pytest.mark.parametrize("policy", [ExpertPolicy(noise=0.3), RandomPolicy(seed=3)])
def test_results_do_not_depend_on_the_number_of_environments(policy):
    options = {"episodes_per_task": 2, "seed": 2, "max_steps": 40, **STATE_ONLY}
    tasks = ["drawer-open", "button-press-topdown"]
    one, three = (_episodes(evaluate(policy, tasks, num_envs=number, **options)) for number in (1, 3))
    assert one == three
    assert len({total for *_, total in one}) == 4


def test_other_seeds_are_other_episodes():
    first, second = (
        evaluate(Spy(), "drawer-open", episodes_per_task=1, max_steps=2, seed=seed, num_envs=1, **STATE_ONLY)
        for seed in (0, 1)
    )
    assert (first.episodes[0].seed, second.episodes[0].seed) == (1_000_000, 1_010_000)
    assert first.episodes[0].total_reward != second.episodes[0].total_reward


def test_rows_are_fixed_refilled_and_kept_when_idle():
    spy = Spy(extra_observations=("episode_seed", "task_name", "privileged"))
    result = evaluate(spy, ["door-open", "drawer-open"], episodes_per_task=2, num_envs=3, max_steps=4, **STATE_ONLY)
    assert len(result.episodes) == 4 and len(spy.observations) == 8
    assert spy.resets == [None, [0, 1, 2], [0]]
    seeds = [observation["episode_seed"].tolist() for observation in spy.observations]
    assert seeds == [[1_000_000, 1_000_001, 1_000_000]] * 4 + [[1_000_001, 1_000_001, 1_000_000]] * 4
    first, last = spy.observations[0], spy.observations[-1]
    assert first["task_name"] == ["door-open", "door-open", "drawer-open"]
    assert last["task"] == ["open the drawer", "open the door", "open the drawer"]
    assert first["privileged"].shape == (3, 39) and first["agent_pos"].dtype == np.float32
    # Rows 1 and 2 are idle from step 4 on.
    for row in (1, 2):
        np.testing.assert_array_equal(last["agent_pos"][row], spy.observations[4]["agent_pos"][row])


def test_pictures_are_batched_by_camera():
    spy = Spy()
    evaluate(
        spy,
        "drawer-open",
        episodes_per_task=2,
        max_steps=1,
        image_size=16,
        camera=("corner3", "topview"),
        progress=False,
    )
    pixels = spy.observations[0]["pixels"]
    assert {camera: view.shape for camera, view in pixels.items()} == dict.fromkeys(
        ("corner3", "topview"), (2, 16, 16, 3)
    )
    assert pixels["topview"].dtype == np.uint8 and not np.array_equal(pixels["topview"], pixels["corner3"])


def test_action_that_is_not_finite_names_task_seed_and_step():
    class TurnsBad(Spy):
        def select_action(self, observation):
            actions = super().select_action(observation)
            if len(self.observations) == 3:
                actions[1, 2] = np.nan
            return actions

    with pytest.raises(ValueError, match=r"drawer-open, seed 1000001, step 2: the policy's action is not finite"):
        evaluate(TurnsBad(), "drawer-open", episodes_per_task=2, max_steps=5, **STATE_ONLY)


def test_bad_actions_of_idle_rows_are_ignored():
    class BadWhenIdle(Spy):
        def select_action(self, observation):
            actions = super().select_action(observation)
            actions[1:] = np.nan if len(self.observations) > 2 else 0.0
            return actions

    result = evaluate(BadWhenIdle(), "drawer-open", episodes_per_task=3, max_steps=2, **STATE_ONLY)
    assert len(result.episodes) == 3


def test_death_of_an_environment_names_task_and_seed(monkeypatch):
    monkeypatch.setattr(rollout, "_WORKER", f"{__name__}:DyingHost")
    with pytest.raises(WorkerError, match=r"environment 1 died \(signal SIGKILL\) at drawer-open, seed 1000001"):
        evaluate(Spy(), "drawer-open", episodes_per_task=2, max_steps=2, **STATE_ONLY)


@pytest.mark.parametrize(
    ("policy", "options", "named"),
    [
        (Spy(), {"tasks": "drawer-opne"}, "did you mean drawer-open"),
        (Spy(), {"tasks": []}, "at least one task"),
        (Spy(), {"episodes_per_task": 0}, "episodes_per_task must be at least 1"),
        (Spy(), {"num_envs": 0}, "num_envs must be at least 1"),
        (Spy(), {"seed": -1}, "seed of an evaluation"),
        (Spy(), {"camera": "corner9"}, "corner9"),
        (Spy(), {"quality": "best", "render": True}, "best"),
        (Spy(extra_observations=("depth",)), {}, "extra_observations asks for depth"),
        (Spy(action=[0.0]), {}, None),
        (RandomPolicy(action_dim=7), {}, "4 finite numbers"),
    ],
)
def test_bad_input_is_named(policy, options, named):
    arguments = {"tasks": "drawer-open", "episodes_per_task": 1, "num_envs": 1, "max_steps": 1, **STATE_ONLY, **options}
    if named is None:
        policy.select_action = lambda observation: np.zeros(4)
        named = r"Spy.select_action returned shape \(4,\) for a batch of 1"
    with pytest.raises(ValueError, match=named):
        evaluate(policy, **arguments)
