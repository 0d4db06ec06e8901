import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hilam_hf.data import LiberoHdf5Writer, load_demonstrations, read_libero_demonstration, read_libero_hdf5
from hilam_hf.data.demonstrations.libero import writer as libero_writer
from hilam_hf.libero_conventions import PANDA
from tests.robot_recordings import BDDL, demonstration, pictures

TASK = "put_the_bowl_on_the_stove"


def record(folder: Path, count: int, **changes: Any) -> Path:
    with LiberoHdf5Writer(folder) as writer:
        for seed in range(count):
            writer.add(demonstration(5 + seed, seed, **changes))
    return folder / f"{TASK}_demo.hdf5"


def write_official(file: Path, numbers: tuple[int, ...] = (0, 1, 2, 10), **attributes: Any) -> Path:
    """A file as LIBERO's create_dataset.py lays it out; demonstration n has 4 + n rows, its numbers are n + row.

    Its actions are those by 100, which the robot can do.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as hdf5:
        data = hdf5.create_group("data")
        info = {"problem_name": "libero_floor", "domain_name": "robosuite", "language_instruction": "pick it up"}
        env_args = {"type": 1, "env_kwargs": {"control_freq": 10}}
        defaults = {
            "problem_info": json.dumps(info),
            "env_args": json.dumps(env_args),
            "tag": "libero-v1",
            "macros_image_convention": "opengl",
            "num_demos": len(numbers),
        }
        for name, value in (defaults | attributes).items():
            data.attrs[name] = value
        for number in numbers:
            length = 4 + number
            group = data.create_group(f"demo_{number}")
            rows = number + np.arange(length)[:, None]
            ends = (np.arange(length) == length - 1).astype(np.uint8)
            widths = {"ee_pos": 3, "ee_ori": 3, "ee_states": 6, "gripper_states": 2, "joint_states": 7}
            for offset, (name, width) in enumerate(widths.items()):
                group[f"obs/{name}"] = rows + 100.0 * offset + np.arange(width)
            group["obs/agentview_rgb"] = pictures(length, start=number)
            group["obs/eye_in_hand_rgb"] = pictures(length, start=20 - number)
            group["actions"] = (rows + 0.5 * np.ones(7)) / 100
            group["states"] = rows + np.zeros(13)
            group["robot_states"] = rows + np.arange(9.0)
            group["rewards"], group["dones"] = ends, ends
            group.attrs["num_samples"] = length
            group.attrs["init_state"] = np.zeros(13)
            group.attrs["model_file"] = "<mujoco/>"
    return file


def test_layout_as_robomimic_reads_it(tmp_path: Path) -> None:
    demo = demonstration(6, 3)
    with LiberoHdf5Writer(tmp_path, provenance={"suite": "libero_goal"}) as writer:
        writer.add(demo)
    with h5py.File(tmp_path / f"{TASK}_demo.hdf5") as hdf5:
        assert list(hdf5) == ["data"] and list(hdf5["data"]) == ["demo_0"]
        data, group = hdf5["data"], hdf5["data/demo_0"]
        assert json.loads(data.attrs["problem_info"]) == {
            "problem_name": "libero_tabletop_manipulation",
            "domain_name": "robosuite",
            "language_instruction": "put the bowl on the stove",
        }
        env_args = json.loads(data.attrs["env_args"])
        assert env_args["type"] == 1 and env_args["env_kwargs"]["control_freq"] == 20
        assert (
            data.attrs["env_name"] == env_args["env_name"] == "Libero_Tabletop_Manipulation"
            and data.attrs["bddl_file_name"] == "libero_goal/put_the_bowl_on_the_stove.bddl"
            and data.attrs["bddl_file_content"] == BDDL
        )
        assert (data.attrs["num_demos"], data.attrs["total"], data.attrs["tag"]) == (1, 6, "libero-v1")
        assert data.attrs["macros_image_convention"] == "opengl" and data.attrs["source"] == "scripted"
        assert json.loads(data.attrs["provenance"]) == {"suite": "libero_goal"}
        kinds: dict[str, tuple] = {}
        group.visititems(
            lambda name, item: kinds.update({name: (item.shape, item.dtype)}) if hasattr(item, "shape") else None
        )
        f8, u1 = np.dtype("f8"), np.dtype("u1")
        assert {name: kind for name, kind in kinds.items() if name != "phases"} == {
            "actions": ((6, 7), f8),
            "states": ((6, 11), f8),
            "robot_states": ((6, 9), f8),
            "rewards": ((6,), u1),
            "dones": ((6,), u1),
            "obs/agentview_rgb": ((6, 32, 48, 3), u1),
            "obs/eye_in_hand_rgb": ((6, 32, 48, 3), u1),
            "obs/ee_pos": ((6, 3), f8),
            "obs/ee_ori": ((6, 3), f8),
            "obs/ee_states": ((6, 6), f8),
            "obs/gripper_states": ((6, 2), f8),
            "obs/joint_states": ((6, 7), f8),
        }
        np.testing.assert_array_equal(group["actions"], demo.actions)
        np.testing.assert_array_equal(group["states"], demo.details["states"])
        np.testing.assert_array_equal(group["robot_states"][:, :2], demo.proprioception["gripper_positions"])
        np.testing.assert_array_equal(group["robot_states"][:, 2:5], demo.proprioception["ee_positions"])
        np.testing.assert_array_equal(group["robot_states"][:, 5:], demo.proprioception["ee_quaternions"])
        np.testing.assert_array_equal(group["obs/agentview_rgb"], demo.frames["agentview"])
        np.testing.assert_array_equal(group["obs/eye_in_hand_rgb"], demo.frames["robot0_eye_in_hand"])
        np.testing.assert_array_equal(group["obs/joint_states"], demo.proprioception["joint_positions"])
        np.testing.assert_array_equal(group["obs/ee_states"], np.hstack([group["obs/ee_pos"], group["obs/ee_ori"]]))
        # The angle about the axis, from the scalar part alone.
        angles = np.linalg.norm(group["obs/ee_ori"], axis=1)
        np.testing.assert_allclose(np.cos(angles / 2), demo.proprioception["ee_quaternions"][:, 3], atol=1e-12)
        assert group["rewards"][()].tolist() == group["dones"][()].tolist() == [0, 0, 0, 0, 0, 1]
        assert [name.decode() for name in group["phases"]] == ["approach"] * 4 + ["grasp"] * 2
        assert (group.attrs["num_samples"], group.attrs["seed"], group.attrs["initial_state"]) == (6, 3, 7)
        np.testing.assert_array_equal(group.attrs["init_state"], demo.details["states"][0])
        assert group.attrs["model_file"] == demo.details["model_xml"]


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_round_trip_is_exact(tmp_path: Path, compression: str | None) -> None:
    demo = demonstration(4, 9, phases=None, initial_state=None, metadata={"noise": [0.1, 1e-17]})
    with LiberoHdf5Writer(tmp_path, compression=compression) as writer:
        writer.add(demo)
    back = read_libero_demonstration(tmp_path / f"{TASK}_demo.hdf5", "demo_0")
    nested = ("frames", "proprioception", "details")
    for name, value in vars(demo).items():
        if name not in (*nested, "actions"):
            assert getattr(back, name) == value, name
    for name in nested:
        assert set(getattr(back, name)) == set(getattr(demo, name))
        for key, value in getattr(demo, name).items():
            np.testing.assert_array_equal(getattr(back, name)[key], value, err_msg=key)
    np.testing.assert_array_equal(back.actions, demo.actions)


def test_pictures_are_turned_back_to_what_the_renderer_gave(tmp_path: Path) -> None:
    drawn = pictures(5)
    turned = {"agentview": drawn[:, ::-1, ::-1]}
    with LiberoHdf5Writer(tmp_path) as writer:
        writer.add(demonstration(frames=turned, image_transform="rotate_180"))
    (episode,) = read_libero_hdf5(tmp_path / f"{TASK}_demo.hdf5")
    np.testing.assert_array_equal(episode.frames("agentview").permute(0, 2, 3, 1).numpy(), drawn)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"states": np.zeros((6, 11))}, r"seed_0': states: got shape \(6, 11\), expected \(5, width\)"),
        ({"rewards": np.full(5, 0.5)}, r"rewards: expected 5 values of 0 or 1"),
        ({"dones": np.zeros(4)}, r"dones: expected 5 values of 0 or 1"),
        ({"details": {}}, r"lacks details states, details rewards, details dones, which LIBERO's HDF5 files hold"),
        ({"proprioception": {"ee_positions": np.zeros((5, 3))}}, r"lacks proprioception ee_axis_angles, proprioc"),
        ({"robot": dataclasses.replace(PANDA, environment="lab")}, r"got robot panda of lab, but LIBERO's HDF5 files"),
    ],
)
def test_what_the_format_cannot_hold(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with LiberoHdf5Writer(tmp_path) as writer, pytest.raises(ValueError, match=message):
        writer.add(demonstration(5, **changes))
    assert not list(tmp_path.iterdir())


def test_reading_is_lazy_and_raw(tmp_path: Path) -> None:
    file = record(tmp_path, 2)
    first, second = read_libero_hdf5(file)
    assert (first.id, second.id) == (f"{TASK}/init_007_seed_0", f"{TASK}/init_007_seed_1")
    assert (second.task, second.language, second.num_frames) == (TASK, "put the bowl on the stove", 6)
    assert (second.fps, second.source, second.stored_transform) == (20.0, "scripted", "none")
    assert second.phases == ["approach"] * 4 + ["grasp"] * 2
    expected = demonstration(6, 1)
    np.testing.assert_array_equal(second.actions, expected.actions.astype(np.float32))
    np.testing.assert_array_equal(
        second.proprioception["joint_positions"], expected.proprioception["joint_positions"].astype(np.float32)
    )
    frames = second.frames("robot0_eye_in_hand", [5, 0, 5])
    np.testing.assert_array_equal(frames.permute(0, 2, 3, 1).numpy(), expected.frames["robot0_eye_in_hand"][[5, 0, 5]])
    assert second.frames("agentview").shape == (6, 3, 32, 48) and second.frames("agentview").is_contiguous()
    assert second.frames("agentview", []).shape == (0, 3, 32, 48)
    assert second.metadata == {
        "file": str(file),
        "demo": "demo_1",
        "seed": 1,
        "initial_state": 7,
        "success": True,
        "metadata": {"renderer": "egl", "noise": 0.1},
    }
    with pytest.raises(IndexError, match=r"frame index 6 is outside 0\.\.5"):
        second.frames("agentview", [6])
    with pytest.raises(ValueError, match="has no camera 'front'; it has agentview, robot0_eye_in_hand"):
        second.frames("front")


def test_official_file(tmp_path: Path) -> None:
    episodes = read_libero_hdf5(write_official(tmp_path / "pick_it_up_demo.hdf5"))
    assert [episode.id for episode in episodes] == [f"pick_it_up/demo_{n}" for n in (0, 1, 2, 10)]
    last = episodes[-1]
    assert (last.language, last.source, last.fps, last.phases) == ("pick it up", "human", 10.0, None)
    assert last.num_frames == 14 and last.actions.dtype == np.float32
    np.testing.assert_allclose(last.actions[:, 3], (10.5 + np.arange(14)) / 100, rtol=1e-6)
    # Offsets of `write_official`: ee_pos 0, ee_ori 100, gripper_states 300, joint_states 400.
    assert last.agent_pos[0].tolist() == [10, 11, 12, 110, 111, 112, 310, 311]
    np.testing.assert_array_equal(last.frames("agentview", [2])[0].permute(1, 2, 0), pictures(1, start=12)[0])
    whole = read_libero_demonstration(tmp_path / "pick_it_up_demo.hdf5", "demo_2")
    assert whole.success and whole.seed is None and whole.proprioception["ee_quaternions"][0].tolist() == [7, 8, 9, 10]
    with pytest.raises(ValueError, match="there is no 'demo_7'"):
        read_libero_demonstration(tmp_path / "pick_it_up_demo.hdf5", "demo_7")


def test_words_and_other_conventions(tmp_path: Path) -> None:
    info = json.dumps({"language_instruction": ["pick", "it", "up"]})
    (episode,) = read_libero_hdf5(
        write_official(tmp_path / "a_demo.hdf5", (0,), problem_info=info, macros_image_convention="opencv", tag="other")
    )
    assert (episode.language, episode.stored_transform, episode.source) == ("pick it up", "flip_vertical", "unknown")
    with pytest.raises(ValueError, match="macros_image_convention: got 'mirror', expected opengl or opencv"):
        read_libero_hdf5(write_official(tmp_path / "b_demo.hdf5", (0,), macros_image_convention="mirror"))


def test_scripted_demonstrations_never_join_official_ones(tmp_path: Path) -> None:
    file = write_official(tmp_path / f"{TASK}_demo.hdf5", (0,))
    with (
        LiberoHdf5Writer(tmp_path) as writer,
        pytest.raises(ValueError, match=r"is 'human', that of episode .* 'scripted'"),
    ):
        writer.add(demonstration())
    assert len(read_libero_hdf5(file)) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"language": "open it"},
            "the instruction of its demonstrations is 'put the bowl on the stove', that of episode",
        ),
        ({"fps": 10.0}, "the control rate of its demonstrations is 20.0, that of episode .* 10.0"),
        ({"source": "human"}, "the source of its demonstrations is 'scripted', that of episode .* 'human'"),
    ],
)
def test_a_file_is_of_one_kind(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = record(tmp_path, 1)
    with LiberoHdf5Writer(tmp_path) as writer:
        with pytest.raises(ValueError, match=message):
            writer.add(demonstration(seed=1, **changes))
        writer.add(demonstration(seed=2))
    assert len(read_libero_hdf5(file)) == 2


def test_one_file_a_task_and_no_episode_twice(tmp_path: Path) -> None:
    with LiberoHdf5Writer(tmp_path) as writer:
        writer.add(demonstration(task="a"))
        writer.add(demonstration(task="b"))
        assert writer.has("a/init_007_seed_0") and not writer.has("a/init_007_seed_1") and not writer.has("c/seed_0")
        with pytest.raises(ValueError, match="'a/init_007_seed_0' was already recorded"):
            writer.add(demonstration(task="a"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_demo.hdf5", "b_demo.hdf5"]
    with LiberoHdf5Writer(tmp_path) as writer:
        assert writer.has("b/init_007_seed_0")
        writer.add(demonstration(task="b", seed=1))
    with h5py.File(tmp_path / "b_demo.hdf5") as hdf5:
        assert (hdf5["data"].attrs["num_demos"], hdf5["data"].attrs["total"]) == (2, 10)
    with pytest.raises(ValueError, match="compression: got 'zip'"):
        LiberoHdf5Writer(tmp_path, compression="zip")


class Killed(Exception):
    """Stands for the end of the process."""


def stages(monkeypatch: pytest.MonkeyPatch, at: int, end: Callable[[], None]) -> list[str]:
    """Ends the recording at the at-th thing that is done to a file; the things done so far."""
    done: list[str] = []

    def interrupted(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def step(*args: Any, **options: Any) -> Any:
            if len(done) == at:
                end()
            done.append(name)
            return original(*args, **options)

        monkeypatch.setattr(owner, name, step)

    for owner, name in (
        (h5py.Group, "create_group"),
        (h5py.Group, "create_dataset"),
        (h5py.Group, "move"),
        (h5py.File, "flush"),
        (h5py.AttributeManager, "__setitem__"),
        (os, "replace"),
    ):
        interrupted(owner, name)
    return done


def test_resuming_after_an_error_at_every_stage(tmp_path: Path) -> None:
    expected = [demonstration(4, seed) for seed in range(2)]
    at, finished = 0, False
    while not finished:
        folder = tmp_path / str(at)
        with pytest.MonkeyPatch.context() as patch:

            def end() -> None:
                raise Killed

            done = stages(patch, at, end)
            try:
                with LiberoHdf5Writer(folder) as writer:
                    for demo in expected:
                        writer.add(demo)
                finished = True
            except Killed:
                pass
        with LiberoHdf5Writer(folder) as writer:
            missing = [demo for demo in expected if not writer.has(demo.id)]
            for demo in missing:
                writer.add(demo)
        check_complete(folder, expected)
        at += 1
    assert {"create_group", "create_dataset", "move", "flush", "__setitem__", "replace"} == set(done) and at > 40


def test_recording_goes_on_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [demonstration(4, seed) for seed in range(2)]
    with LiberoHdf5Writer(tmp_path) as writer:
        writer.add(expected[0])
        with monkeypatch.context() as patch:
            patch.setattr(h5py.Group, "move", lambda *names: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                writer.add(expected[1])
        assert writer.has(expected[0].id) and not writer.has(expected[1].id)
        writer.add(expected[1])
    check_complete(tmp_path, expected)


def check_complete(folder: Path, expected: list) -> None:
    (file,) = folder.iterdir()
    with h5py.File(file) as hdf5:
        assert list(hdf5) == ["data"] and set(hdf5["data"]) == {"demo_0", "demo_1"}
        assert (hdf5["data"].attrs["num_demos"], hdf5["data"].attrs["total"]) == (2, 8)
    assert sorted(episode.id for episode in read_libero_hdf5(file)) == sorted(demo.id for demo in expected)
    for demo in ("demo_0", "demo_1"):
        back = read_libero_demonstration(file, demo)
        np.testing.assert_array_equal(back.frames["agentview"], expected[back.seed].frames["agentview"])
        np.testing.assert_array_equal(back.actions, expected[back.seed].actions)


def test_resuming_after_the_process_was_killed(tmp_path: Path) -> None:
    expected = [demonstration(4, seed) for seed in range(2)]
    for at in range(0, 60, 3):
        folder = tmp_path / str(at)
        child = os.fork()
        if child == 0:
            # Nothing of pytest's may run in the child, whatever happens in it.
            try:
                patch = pytest.MonkeyPatch()
                stages(patch, at, lambda: os.kill(os.getpid(), signal.SIGKILL))
                with LiberoHdf5Writer(folder) as writer:
                    for demo in expected:
                        writer.add(demo)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        for left in folder.glob(".*.tmp"):
            left.unlink()
        with LiberoHdf5Writer(folder) as writer:
            for demo in expected:
                if not writer.has(demo.id):
                    writer.add(demo)
        check_complete(folder, expected)


def test_what_lies_aside_is_dropped_and_the_rest_stays(tmp_path: Path) -> None:
    file = record(tmp_path, 2)
    with h5py.File(file, "r+") as hdf5:
        # As after an interruption between the two steps of taking a name: one group, two names.
        hdf5["incomplete"] = hdf5["data/demo_1"]
        hdf5["refers to nothing"] = h5py.SoftLink("/nowhere")
        hdf5["mask/train"] = [b"demo_1"]
        hdf5["data"].attrs["total"] = 5
        del hdf5["data"].attrs["num_demos"]
    with LiberoHdf5Writer(tmp_path) as writer:
        assert all(writer.has(f"{TASK}/init_007_seed_{seed}") for seed in range(2))
    with h5py.File(file) as hdf5:
        assert sorted(hdf5) == ["data", "mask"] and hdf5["mask/train"][0] == b"demo_1"
        assert (hdf5["data"].attrs["num_demos"], hdf5["data"].attrs["total"]) == (2, 11)
        assert hdf5["data"].attrs["source"] == "scripted"
    for seed, demo in enumerate(("demo_0", "demo_1")):
        expected, back = demonstration(5 + seed, seed), read_libero_demonstration(file, demo)
        np.testing.assert_array_equal(back.frames["agentview"], expected.frames["agentview"])
        np.testing.assert_array_equal(back.details["states"], expected.details["states"])
        assert back.details["model_xml"] == expected.details["model_xml"] and back.phases == expected.phases


def test_full_disk_is_told_before_the_file_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = record(tmp_path, 1)
    before = file.read_bytes()
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(libero_writer.shutil, "disk_usage", lambda path: usage)
    with LiberoHdf5Writer(tmp_path) as writer, pytest.raises(OSError, match=r"the disk is full: \d+ MiB are needed"):
        writer.add(demonstration(seed=5))
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("KITCHEN_SCENE3_turn_on_the_stove_demo.hdf5", "turn on the stove"),
        ("LIVING_ROOM_SCENE10_put_the_red_mug_down_demo.hdf5", "put the red mug down"),
        ("put_the_bowl_on_the_stove_demo.hdf5", "put the bowl on the stove"),
    ],
)
def test_files_without_attributes_are_openvlas(tmp_path: Path, name: str, language: str) -> None:
    """OpenVLA's regenerate_libero_dataset.py writes groups and datasets alone, and drops the failed numbers."""
    file = write_official(tmp_path / name, (1, 3))
    with h5py.File(file, "r+") as hdf5:
        for group in (hdf5["data"], *hdf5["data"].values()):
            for attribute in list(group.attrs):
                del group.attrs[attribute]
    episodes = read_libero_hdf5(file)
    assert [(each.language, each.task, each.fps, each.metadata["demo"]) for each in episodes] == [
        (language, name.removesuffix("_demo.hdf5"), 20.0, f"demo_{number}") for number in (1, 3)
    ]


def test_a_file_without_a_demonstration_is_named(tmp_path: Path) -> None:
    file = write_official(tmp_path / "empty_demo.hdf5", ())
    with pytest.raises(ValueError, match=r"empty_demo\.hdf5: holds no demonstration: move it away"):
        load_demonstrations(tmp_path)
    file.unlink()
    linked = tmp_path / "recordings"
    linked.mkdir()
    write_official(tmp_path / "elsewhere/a_demo.hdf5", (0,))
    (linked / "link").symlink_to(tmp_path / "elsewhere")
    assert len(load_demonstrations(linked)) == 1


def test_half_a_character_in_an_instruction_is_named(tmp_path: Path) -> None:
    file = write_official(tmp_path / "a_demo.hdf5", (0,), problem_info='{"language_instruction": "wave \\ud83d"}')
    with pytest.raises(ValueError, match=r"data: the attribute problem_info: holds \\ud83d, which is half"):
        read_libero_hdf5(file)
    with pytest.raises(ValueError, match=r"language: holds \\ud83d, which is half"):
        demonstration(language="wave \ud83d")


def damage(file: Path, change: Callable[[Any, Any], None]) -> Path:
    """A whole official file with one change."""
    write_official(file, (0, 1))
    with h5py.File(file, "r+") as hdf5:
        change(hdf5["data"], hdf5["data/demo_1"])
    return file


def replace(name: str, value: Any) -> Callable[[Any, Any], None]:
    def change(data: Any, demo: Any) -> None:
        del demo[name]
        if value is not None:
            demo[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace("actions", None), r"demo_1: actions is missing"),
        (replace("actions", np.zeros((5, 6))), r"demo_1: actions: got shape \(5, 6\), expected \(5, 7\)"),
        (replace("actions", np.zeros((0, 7))), r"demo_1: actions: got shape \(0, 7\), expected \(T, 7\)"),
        (replace("actions", np.full((5, 7), np.nan)), r"demo_1: actions: has NaN or infinite values"),
        (replace("actions", np.full((5, 7), b"x")), r"demo_1: actions: got \|S1, expected numbers"),
        (replace("actions", np.zeros((6, 7))), r"demo_1: num_samples is 5, but there are 6 actions"),
        (replace("actions", h5py.Empty("f8")), r"demo_1: actions: got shape \(\)"),
        (replace("rewards", np.zeros(4)), r"demo_1: rewards: got shape \(4,\), expected \(5,\)"),
        (replace("dones", None), r"demo_1: dones is missing"),
        (replace("obs", None), r"demo_1: has no pictures; expected obs/agentview_rgb or obs/eye_in_hand_rgb"),
        (replace("obs", np.zeros(3)), r"demo_1: has no pictures"),
        (replace("obs/ee_pos", np.zeros((5, 4))), r"demo_1: obs/ee_pos: got shape \(5, 4\), expected \(5, 3\)"),
        (replace("obs/joint_states", np.full((5, 7), np.inf)), r"demo_1: obs/joint_states: has NaN or infinite"),
        (
            replace("obs/agentview_rgb", pictures(4)),
            r"obs/agentview_rgb: got uint8 \(4, 32, 48, 3\), expected uint8 \(5,",
        ),
        (
            replace("obs/agentview_rgb", np.zeros((5, 8, 8, 3))),
            r"demo_1: obs/agentview_rgb: got float64 \(5, 8, 8, 3\)",
        ),
        (replace("obs/agentview_rgb", h5py.SoftLink("/data/demo_0/obs/agentview_rgb")), r"agentview_rgb is a link"),
        (replace("actions", h5py.ExternalLink("other.hdf5", "/secrets")), r"demo_1: actions is a link"),
        (lambda data, demo: demo.create_dataset("phases", data=["a", "b"]), r"demo_1: phases: got 2 values"),
        (lambda data, demo: data.create_group("mask"), r"data: got 'mask', expected groups demo_0"),
        (lambda data, demo: data.create_dataset("demo_2", data=1), r"data: got 'demo_2', expected groups"),
        (lambda data, demo: data.attrs.pop("problem_info"), r"data lacks the attribute problem_info"),
        (lambda data, demo: data.attrs.update(problem_info="{"), r"data: the attribute problem_info is not JSON"),
        (lambda data, demo: data.attrs.update(env_args="[]"), r"attribute env_args: got list, expected a JSON object"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, change: Callable[[Any, Any], None], message: str) -> None:
    file = damage(tmp_path / "bad_demo.hdf5", change)
    with pytest.raises(ValueError, match=message) as caught:
        read_libero_hdf5(file)
    assert str(caught.value).startswith(str(file))


def test_frames_in_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(5 * 8 * 8 * 3))

    def outside(data: Any, demo: Any) -> None:
        del demo["obs/agentview_rgb"]
        size = 5 * 8 * 8 * 3
        demo.create_dataset("obs/agentview_rgb", (5, 8, 8, 3), "u1", external=[(tmp_path / "raw", 0, size)])

    with pytest.raises(ValueError, match="obs/agentview_rgb lies in other files"):
        read_libero_hdf5(damage(tmp_path / "bad_demo.hdf5", outside))


def test_files_that_are_no_demonstrations(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_libero_hdf5(tmp_path / "nowhere_demo.hdf5")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_libero_demonstration(tmp_path / "nowhere_demo.hdf5", "demo_0")
    other = tmp_path / f"{TASK}_demo.hdf5"
    other.write_bytes(b"not hdf5")
    with pytest.raises(ValueError, match="cannot be read as HDF5"):
        read_libero_hdf5(other)
    with pytest.raises(ValueError, match="move it away, then copy it or record it again"):
        LiberoHdf5Writer(tmp_path).has(f"{TASK}/seed_0")
    whole = write_official(other).read_bytes()
    other.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read as HDF5"):
        read_libero_hdf5(other)
    with h5py.File(other, "w") as hdf5:
        hdf5["numbers"] = 1
    with pytest.raises(ValueError, match="there is no group 'data'"):
        read_libero_hdf5(other)


def test_missing_h5py_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'hilam-hf\[libero\]'"):
        LiberoHdf5Writer(tmp_path)


def test_the_data_room_imports_without_h5py() -> None:
    code = "import sys; sys.modules['h5py'] = None; import hilam_hf.data"
    subprocess.run([sys.executable, "-c", code], check=True)
