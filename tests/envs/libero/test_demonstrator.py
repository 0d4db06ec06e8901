"""Recorded experts of LIBERO: files that replay to success, labelled as scripted, resumable."""

import json
from dataclasses import replace
from itertools import groupby

import h5py
import numpy as np
import pytest

from hilam_hf.data import load_demonstrations
from hilam_hf.envs import EpisodeSpec
from hilam_hf.envs.libero import LiberoEnv
from hilam_hf.envs.libero.demonstrator import LiberoDemonstrator
from hilam_hf.envs.registry import get_protocol
from hilam_hf.recording import record

pytestmark = pytest.mark.sim
TASK = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
SMALL = {"image_size": 16, "quality": "fast", "progress": False}


@pytest.fixture(scope="module")
def recording(tmp_path_factory, libero_assets):
    root = tmp_path_factory.mktemp("libero")
    summary = _record(root, libero_assets, num_workers=2)
    return root, summary


def _record(root, libero_assets, **options):
    return record(root, "libero", [0], 2, suite="object", assets=libero_assets, **{**SMALL, **options})


def test_both_formats_hold_the_same_episodes(recording):
    root, summary = recording
    assert (summary.recorded, summary.kept) == (2, 0)
    hdf5, lerobot = (load_demonstrations(root / name) for name in ("hdf5", "lerobot"))
    assert [episode.id for episode in hdf5] == [episode.id for episode in lerobot]
    for one, other in zip(hdf5, lerobot, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_allclose(one.agent_pos, other.agent_pos, atol=1e-6)
        assert one.phases == other.phases and one.source == other.source == "scripted"
        assert one.language == "pick up the alphabet soup and place it in the basket"
    assert summary.frames == sum(episode.num_frames for episode in hdf5)
    assert hdf5[0].num_frames != hdf5[1].num_frames or not np.array_equal(hdf5[0].actions, hdf5[1].actions)


def test_a_recorded_file_replays_to_success(recording, libero_assets):
    import mujoco  # after the graphics library has been chosen

    root, _ = recording
    environment = LiberoEnv("libero_object/0", protocol="baku", assets=libero_assets, quality="fast", render=False)
    environment.protocol = replace(get_protocol("openvla"), initial_states="random")
    with h5py.File(root / "hdf5" / f"{TASK}_demo.hdf5") as file:
        demo = file["data/demo_1"]
        environment.reset(seed=int(demo.attrs["seed"]))
        model = mujoco.MjModel.from_xml_string(demo.attrs["model_file"])
        np.testing.assert_allclose(model.body_pos, environment.simulator.model.body_pos, atol=1e-5)
        succeeded = False
        for action, state in zip(demo["actions"], demo["states"], strict=True):
            np.testing.assert_array_equal(environment.simulator.state(), state)
            *_, info = environment.step(action)
            succeeded |= info["success"]
        assert succeeded and info["success"]
        assert demo["rewards"][()].tolist() == demo["dones"][()].tolist() == [0] * (len(demo["actions"]) - 1) + [1]
    environment.close()


def test_phases_tell_the_task(recording):
    root, _ = recording
    for episode in load_demonstrations(root / "hdf5"):
        order = [phase for phase, _ in groupby(episode.phases)]
        assert order == ["approach", "descend", "grasp", "lift", "carry", "place", "retract"]
        closed = episode.actions[:, 6] > 0
        assert closed[[phase in ("lift", "carry") for phase in episode.phases]].all()


def test_recording_says_how_it_was_made(recording):
    root, _ = recording
    record = json.loads((root / "recording.json").read_text())
    assert record["finished"] and record["source"] == "scripted" and record["simulator"] == "libero"
    assert record["tasks"] == {"libero_object/0": 2}
    assert record["settings"]["protocol"]["name"] == "openvla"
    assert record["settings"]["protocol"]["initial_states"] == "random"
    assert record["mujoco"] == record["renderer"]["mujoco"] and len(record["assets_fingerprint"]) == 16
    with h5py.File(root / "hdf5" / f"{TASK}_demo.hdf5") as file:
        assert file["data"].attrs["source"] == "scripted"
        assert json.loads(file["data"].attrs["provenance"])["mujoco"] == record["mujoco"]


def test_a_finished_recording_starts_no_worker_and_others_are_refused(recording, libero_assets, monkeypatch):
    root, _ = recording
    monkeypatch.setattr("hilam_hf.envs.pool.Worker", None)
    summary = _record(root, libero_assets)
    assert (summary.recorded, summary.kept) == (0, 2)
    with pytest.raises(ValueError, match=r"other options \(noise 0.05 -> 0.0\)"):
        _record(root, libero_assets, noise=0.0)


def _short_episode(libero_assets, **options):
    protocol = replace(get_protocol("openvla"), max_steps={"": 6}, image_size=16, image_transform="none")
    settings = {"noise": 0.2, "speed_variation": 0.0, "hold_steps": 1, "action_labels": "executed", **options}
    demonstrator = LiberoDemonstrator(protocol=protocol, quality="fast", assets=str(libero_assets), **settings)
    episode = demonstrator.record(EpisodeSpec("libero_object/0", 3, 3, initial_state=3))
    demonstrator.close()
    return episode


def test_labels_are_what_was_executed_or_meant(libero_assets):
    executed, expert = (_short_episode(libero_assets, action_labels=labels) for labels in ("executed", "expert"))
    assert not executed.success and executed.num_frames == 6
    assert executed.id == f"{TASK}/init_003_seed_3"
    np.testing.assert_array_equal(executed.details["states"], expert.details["states"])
    np.testing.assert_array_equal(executed.actions[:, 6], expert.actions[:, 6])
    noise = (executed.actions - expert.actions)[:, :6]
    assert 0.1 < noise[np.abs(expert.actions[:, :6]) < 0.5].std() < 0.3


def test_speed_changes_the_course(libero_assets):
    slow, other = (_short_episode(libero_assets, speed_variation=value) for value in (0.0, 0.3))
    assert slow.metadata["speed"] == 1.0 and abs(other.metadata["speed"] - 1.0) > 0.01
    assert not np.array_equal(slow.details["states"], other.details["states"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["zarr"]}, r"formats: got \['zarr'\], expected some of hdf5, videos, lerobot"),
        ({"action_labels": "human"}, "action_labels must be 'expert' or 'executed'"),
        ({"speed_variation": 1.0}, "speed_variation must be at least 0 and below 1"),
        ({"noise": -0.1}, "noise must be at least 0"),
        ({"hold_steps": 0}, "hold_steps must be at least 1"),
        ({"image_size": 33}, "image_size must be even"),
        ({"protocol": "metaworld"}, "LIBERO has no protocol 'metaworld'; it has openvla"),
        ({"quality": "best"}, "render quality must be one of"),
    ],
)
def test_bad_options_are_named_before_anything_is_written(tmp_path, libero_assets, options, message):
    with pytest.raises(ValueError, match=message):
        _record(tmp_path / "new", libero_assets, **options)
    assert not (tmp_path / "new").exists()
