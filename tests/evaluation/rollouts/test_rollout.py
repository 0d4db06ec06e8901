"""Evaluations in Meta-World, and what `evaluate` makes of its options."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilam_hf.envs.protocols import EpisodeSpec
from hilam_hf.envs.registry import get_protocol, get_simulator
from hilam_hf.evaluation import EvaluationResult, ExpertPolicy, RandomPolicy, evaluate
from hilam_hf.evaluation.rollouts.rollout import write_episode_video
from hilam_hf.evaluation.rollouts.scheduler import Episode
from hilam_hf.video import VideoReader, check_video
from tests.evaluation.rollouts.test_scheduler import Spy, run

TASKS = ("drawer-open", "door-open", "button-press-topdown")
METAWORLD = get_protocol("metaworld")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EvaluationResult]:
    out = tmp_path_factory.mktemp("evaluation")
    protocol = METAWORLD.with_options(image_size=32, cameras=("workspace",))
    return out, evaluate(ExpertPolicy(), TASKS, protocol=protocol, episodes=2, num_envs=2, out_dir=out, progress=False)


@pytest.mark.sim
def test_expert_solves_every_episode(recorded):
    _, result = recorded
    assert result.overall.rate == 1.0
    assert {task: (rate.successes, rate.trials) for task, rate in result.tasks.items()} == dict.fromkeys(TASKS, (2, 2))


@pytest.mark.sim
def test_results_file(recorded):
    out, result = recorded
    written = json.loads((out / "results.json").read_text())
    assert written["protocol"]["name"] == "metaworld+image_size+cameras" and written["success_rate"] == 1.0
    assert written["schema_version"] == 2 and written["faults"] == []
    # Wilson's lower bound without failures: n / (n + z²).
    assert written["interval"] == pytest.approx([6 / (6 + 1.959964**2), 1.0])
    assert written["tasks"]["door-open"]["success_rate"] == 1.0
    assert written["tasks"]["door-open"]["instruction"] == "open the door"
    assert written["tasks"]["door-open"]["interval"] == pytest.approx([2 / (2 + 1.959964**2), 1.0])
    assert [(e["task"], e["index"], e["seed"], e["attempts"]) for e in written["episode_results"]] == [
        (task, index, 1_000_000 + index, 1) for task in TASKS for index in (0, 1)
    ]
    assert [e["steps"] for e in written["episode_results"]] == [episode.steps for episode in result.episodes]
    table = (out / "results.md").read_text()
    assert "| door-open | open the door | 100.0 % | 2/2 | 34.2-100.0 % |" in table


@pytest.mark.sim
def test_provenance(recorded):
    out, result = recorded
    record = json.loads((out / "results.json").read_text())["provenance"]
    assert record["policy"]["class"] == "ExpertPolicy" and record["policy"]["name"] == "expert"
    assert record["policy"]["acting"] == {"noise": 0.0}
    assert record["quality"] == "fast" and record["cameras"] == ["workspace"]
    simulator = record["simulator"]
    assert simulator["renderer"]["quality"] == "fast" and simulator["renderer"]["backend"] in ("egl", "osmesa")
    assert record["seeds"] == [1_000_000, 1_000_001] and record["settle_steps"] == 0
    assert record["packages"]["metaworld"] == simulator["metaworld"]
    assert record["packages"]["mujoco"] == simulator["mujoco"]
    run = record["run"]
    assert run["num_envs"] == 2 and run["machine"]["cores"] == os.cpu_count()
    assert run["environment_steps"] == sum(episode.steps for episode in result.episodes)
    # A simulator takes 50 MB at the very least, and less than 2 GB.
    assert all(5e7 < size < 2e9 for size in run["worker_memory_bytes"]) and len(run["worker_memory_bytes"]) == 2


@pytest.mark.sim
def test_first_episode_of_each_task_becomes_a_video(recorded):
    out, result = recorded
    videos = [episode.video for episode in result.episodes]
    assert videos[::2] == [f"videos/{task}-1000000-success.mp4" for task in TASKS] and videos[1::2] == [None] * 3
    for episode in result.episodes[::2]:
        info = check_video(out / episode.video)
        # The observation that the last action led to is shown, too.
        assert (info.num_frames, info.height, info.fps) == (episode.steps + 1, 32, 80.0)


@pytest.mark.sim
def test_random_actions_press_no_button():
    protocol = METAWORLD.with_options(max_steps={"": 100})
    options = {"episodes": 4, "render": False, "progress": False}
    result = evaluate(RandomPolicy(), "button-press-topdown", protocol=protocol, **options)
    assert result.overall.successes == 0
    assert [episode.steps for episode in result.episodes] == [100] * 4


@pytest.mark.sim
def test_experts_with_noise_are_the_same_in_any_number_of_simulators():
    options = {"episodes": 2, "seed": 2, "render": False, "progress": False}
    protocol = METAWORLD.with_options(max_steps={"": 40})
    one, three = (
        evaluate(ExpertPolicy(noise=0.3), TASKS[1:], protocol=protocol, num_envs=number, **options).episodes
        for number in (1, 3)
    )
    assert one == three
    assert len({episode.total_reward for episode in one}) == 4


@pytest.mark.sim
def test_expert_solves_tasks_of_libero_whatever_the_number_of_simulators(libero_assets, tmp_path):
    protocol = get_protocol("openvla").with_options(image_size=32)
    options: dict[str, Any] = {"protocol": protocol, "assets": libero_assets, "progress": False}
    tasks = ["libero_spatial/0", "libero_goal/7"]
    result = evaluate(ExpertPolicy(), tasks, episodes=2, num_envs=2, quality="fast", out_dir=tmp_path, **options)
    assert result.overall.rate == 1.0 and result.faults == []
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["tasks"]["libero_goal/7"]["instruction"] == "turn on the stove"
    assert [episode["initial_state"] for episode in record["episode_results"]] == [0, 1, 0, 1]
    assert record["provenance"]["simulator"]["hf-libero"] and record["provenance"]["settle_steps"] == 10
    for episode in result.episodes[::2]:
        assert check_video(tmp_path / (episode.video or "")).num_frames == episode.steps + 1
    alone = evaluate(ExpertPolicy(), tasks[1], episodes=[1], num_envs=1, render=False, **options).episodes[0]
    assert alone == result.episodes[3]


def test_other_seeds_are_other_episodes(fake_host):
    first, second = (run(Spy(), episodes=1, seed=seed, num_envs=1).episodes[0] for seed in (0, 1))
    assert (first.seed, second.seed) == (1_000_000, 1_010_000)
    assert first.total_reward != second.total_reward


def test_initial_states_are_chosen_by_their_numbers(fake_host):
    protocol = get_protocol("openvla").with_options(max_steps={"": 3})
    tasks = ["libero_goal/3", "goal/0"]
    result = evaluate(RandomPolicy(), tasks, protocol=protocol, episodes=[4, 2], render=False, progress=False)
    assert [(episode.task, episode.index, episode.initial_state, episode.seed) for episode in result.episodes] == [
        (f"libero_goal/{task}", state, state, 7 + state) for task in (3, 0) for state in (4, 2)
    ]
    assert result.provenance["initial_states"] == [2, 4]


@pytest.mark.parametrize(
    ("simulator", "arguments", "expected"),
    [
        ("metaworld", ("door-open-v3",), ["door-open"]),
        ("metaworld", (["door-open", "drawer-open", "door-open-v3"],), ["door-open", "drawer-open"]),
        ("libero", (None, "goal"), [f"libero_goal/{index}" for index in range(10)]),
        ("libero", ([3, "0"], "libero_10"), ["libero_10/3", "libero_10/0"]),
        ("libero", (["goal/1", "libero_spatial/2"],), ["libero_goal/1", "libero_spatial/2"]),
    ],
)
def test_task_names(simulator, arguments, expected):
    if simulator != "metaworld":
        pytest.importorskip("libero")
    assert get_simulator(simulator).task_names(*arguments) == expected


def test_extras_are_batched(fake_host):
    seen: list[dict[str, Any]] = []

    class Looks(Spy):
        def select_action(self, observation, active=None):
            seen.append({name: np.copy(values) for name, values in observation.items() if name != "pixels"})
            return super().select_action(observation, active)

    extras = ("expert_action", "task_name", "episode_seed", "action_dim")
    run(Looks(extra_observations=extras), ["door-open", "drawer-open"], episodes=1, num_envs=2)
    last = seen[-1]
    assert sorted(last["task_name"]) == ["door-open", "drawer-open"] and last["action_dim"] == 4
    assert last["expert_action"].shape == (2, 4) and last["agent_pos"].dtype == np.float32
    assert sorted(last["task"]) == ["do door-open", "do drawer-open"]
    assert set(seen[0]) == {"task", "agent_pos", *extras}


def test_the_experts_noise_reaches_the_simulator(fake_host):
    # The stand-in's expert does what its noise says, so that louder is better.
    quiet, loud = (run(ExpertPolicy(noise=noise), episodes=2).episodes for noise in (0.1, 5.0))
    assert max(episode.steps for episode in quiet) > 1
    assert all(episode.steps == 1 and episode.success for episode in loud)


def test_pictures_are_batched_by_camera(fake_host):
    seen = []

    class Looks:
        def reset(self, indices=None):
            pass

        def select_action(self, observation, active=None):
            seen.append({camera: view.copy() for camera, view in observation["pixels"].items()})
            return np.zeros((2, 4), np.float32)

    protocol = METAWORLD.with_options(max_steps={"": 3}, cameras=("corner3", "topview"))
    evaluate(Looks(), "drawer-open", protocol=protocol, episodes=2, progress=False)
    assert {camera: view.shape for camera, view in seen[-1].items()} == dict.fromkeys(
        ("corner3", "topview"), (2, 16, 16, 3)
    )
    assert seen[-1]["topview"].dtype == np.uint8
    np.testing.assert_array_equal(seen[-1]["topview"][0], np.roll(seen[-1]["corner3"][0], 1, axis=0))


@pytest.mark.parametrize(
    ("protocol", "transform", "kept"),
    [
        ("openvla", "none", False),
        ("openvla", "rotate_180", True),
        ("openvla", "flip_vertical", True),
        ("metaworld", "none", True),
    ],
)
def test_videos_are_upright(tmp_path, protocol, transform, kept):
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:16] = 255
    episode = Episode(EpisodeSpec("libero_goal/0", 0, 7, 0), filmed=True, success=True, fps=20.0, frames=[picture] * 3)
    chosen = get_protocol(protocol).with_options(image_transform=transform)
    path = write_episode_video(tmp_path, episode, get_simulator(chosen.simulator), chosen)
    assert path == "videos/libero_goal-0-7-success.mp4"
    frame = VideoReader(tmp_path / path).read([0])[0].float()
    assert (frame[:, 4].mean() > 200) == kept and (frame[:, -4].mean() > 200) != kept


@pytest.mark.parametrize(
    ("policy", "options", "named"),
    [
        (Spy(), {"tasks": "drawer-opne"}, "did you mean drawer-open"),
        (Spy(), {"tasks": []}, "at least one task"),
        (Spy(), {"tasks": None}, "at least one task, or a suite"),
        (Spy(), {"suite": "libero_goal"}, "suite 'libero_goal': Meta-World has tasks alone"),
        (Spy(), {"tasks": ["one"], "suite": "goal", "protocol": "openvla"}, "given by their numbers, got one"),
        (Spy(), {"tasks": None, "suite": "gaol", "protocol": "openvla"}, "unknown LIBERO suite 'gaol'"),
        (Spy(), {"protocol": "openvlaa"}, "unknown protocol 'openvlaa'"),
        (Spy(), {"episodes": 0}, "expected at least one of each"),
        (Spy(), {"num_envs": 0}, "num_envs must be at least 1"),
        (Spy(), {"videos_per_task": -1}, "videos_per_task must be at least 0"),
        (Spy(), {"seed": -1}, "seed of an evaluation"),
        (Spy(), {"policy_batch_size": 4}, "is not for Spy, which fixes its own"),
        (Spy(extra_observations=("depth",)), {}, "extra_observations asks for depth"),
        (RandomPolicy(action_dim=7), {}, "RandomPolicy gives actions of 7 numbers, but metaworld takes 4"),
    ],
)
def test_bad_input_is_named(policy, options, named, fake_host):
    if options.get("protocol") == "openvla":
        pytest.importorskip("libero")
    with pytest.raises(ValueError, match=named):
        run(policy, **{"tasks": "drawer-open", "episodes": 1, "num_envs": 1, **options})


@pytest.mark.sim
def test_initial_states_that_do_not_exist_are_named_before_any_episode(fake_host):
    with pytest.raises(ValueError, match="libero_goal/1 has initial states 0 to 49, got 50"):
        evaluate(RandomPolicy(), ["libero_goal/1"], protocol="openvla", episodes=[3, 50], progress=False)
