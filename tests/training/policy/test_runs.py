"""Fine-tuning on folders of demonstrations, by function, command and example."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hilam_hf.data import LiberoHdf5Writer, VideoRecordingWriter
from hilam_hf.models.hierarchical.configuration_hierarchical import HierarchicalPolicyConfig
from hilam_hf.models.hierarchical.modeling_hierarchical import HierarchicalPolicy
from hilam_hf.training.policy.runs import finetune_on_demonstrations, parse_renames
from hilam_hf.training.policy.train import FinetuningConfig
from tests.robot_recordings import demonstration, small_demonstration
from tests.test_examples import run_example

TASK = "put_the_bowl_on_the_stove"  # libero_goal/1
TRUNK = {
    "image_size": 32,
    "vision_widths": [8, 8],
    "vision_groups": 2,
    "num_keypoints": 4,
    "token_dim": 16,
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
}
OPTIONS = FinetuningConfig(max_steps=1, global_batch_size=2)


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pretrained policies, named after the camera that they know."""
    root = tmp_path_factory.mktemp("policies")
    for camera in ("agentview", "front"):
        trunk = TRUNK | {"cameras": [camera]}
        config = HierarchicalPolicyConfig(high_config=dict(trunk), low_config=dict(trunk), skill_dim=3, latent_dim=4)
        policy = HierarchicalPolicy(config)
        policy.set_statistics(skills=(torch.zeros(3), torch.ones(3)), latent_actions=(torch.zeros(4), torch.ones(4)))
        policy.save_pretrained(root / camera)
    return root


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recording")
    told = {"mujoco": "3.2.1", "renderer": {"quality": "fast"}, "assets_fingerprint": "0123"}
    with LiberoHdf5Writer(root) as writer:
        for seed in range(2):
            writer.add(demonstration(4, seed, metadata=told))
        writer.add(demonstration(4, 2, task="other_task", language="do the other", metadata=told))
    return root


def test_the_policy_tells_of_its_demonstrations(policies: Path, recording: Path, tmp_path: Path) -> None:
    finetune_on_demonstrations(
        str(policies / "agentview"), recording, OPTIONS, output_dir=tmp_path, tasks=[TASK], chunk_size=3
    )
    policy = HierarchicalPolicy.from_pretrained(tmp_path / "policy")
    assert policy.config.training_data == {
        "demonstrations": 2,
        "episodes": [f"{TASK}/init_007_seed_0", f"{TASK}/init_007_seed_1"],
        "sources": ["scripted"],
        "tasks": [TASK],
        "cameras": ["agentview", "robot0_eye_in_hand"],
        "image_transform": "rotate_180",
        "proprioception": "ee_axis_angle_gripper",
        "mujoco": "3.2.1",
        "quality": "fast",
        "assets_fingerprint": "0123",
        "gripper": None,
        "action_scale": None,
    }
    spec = policy.acting_spec
    assert (spec.action_dim, spec.agent_pos_dim, spec.executed_chunk_length) == (7, 8, 1)
    assert policy.acting_spec.cameras == ("agentview", "robot0_eye_in_hand")


def test_actions_of_another_convention_are_converted(policies: Path, tmp_path: Path) -> None:
    """Actions ten times too large, and a gripper of 0 to 1."""
    actions = np.linspace(-9, 9, 28).reshape(4, 7)
    actions[:, 6] = [1, 1, 0, 0]
    with LiberoHdf5Writer(tmp_path / "recording") as writer:
        writer.add(demonstration(4, 0, actions=actions, metadata={}))
    with pytest.raises(ValueError, match=r"from -1 to 1: got x from -9 .* action_scale \(--action-scale\)"):
        finetune_on_demonstrations(
            str(policies / "agentview"), tmp_path / "recording", OPTIONS, output_dir=tmp_path / "out"
        )
    finetune_on_demonstrations(
        str(policies / "agentview"),
        tmp_path / "recording",
        OPTIONS,
        output_dir=tmp_path / "out",
        gripper="one_opens",
        action_scale=0.1,
    )
    told = HierarchicalPolicy.from_pretrained(tmp_path / "out/policy").config.training_data
    assert (told["gripper"], told["action_scale"]) == ("one_opens", 0.1)


def test_a_pretrained_camera_takes_its_new_name(policies: Path, recording: Path, tmp_path: Path) -> None:
    arguments = (str(policies / "front"), recording, OPTIONS)
    with pytest.raises(ValueError, match=r"pretrained on camera front, .* \(--rename-camera front=agentview\)"):
        finetune_on_demonstrations(*arguments, output_dir=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    options = {"rename_cameras": {"front": "agentview"}, "cameras": ["agentview"], "proprioception": "joints_gripper"}
    finetune_on_demonstrations(*arguments, output_dir=tmp_path / "renamed", **options)  # type: ignore[arg-type]
    policy = HierarchicalPolicy.from_pretrained(tmp_path / "renamed" / "policy")
    assert policy.acting_spec.cameras == ("agentview",) and policy.acting_spec.agent_pos_dim == 9
    before = HierarchicalPolicy.from_pretrained(policies / "front").high_level.state_dict()
    after = policy.high_level.state_dict()
    kept = [name for name in before if name in after]
    assert len(kept) > 10 and all(torch.equal(before[name], after[name]) for name in kept)


def test_meta_worlds_recordings_do_too(policies: Path, tmp_path: Path) -> None:
    demo = small_demonstration("drawer-open/episode_00000", 4, frames={"front": np.zeros((4, 32, 32, 3), np.uint8)})
    with VideoRecordingWriter(tmp_path / "recordings") as writer:
        writer.add(demo)
    finetune_on_demonstrations(str(policies / "front"), tmp_path / "recordings", OPTIONS, output_dir=tmp_path / "out")
    policy = HierarchicalPolicy.from_pretrained(tmp_path / "out" / "policy")
    spec = policy.acting_spec
    assert (spec.action_dim, spec.agent_pos_dim, spec.cameras) == (4, 4, ("front",))
    assert policy.config.training_data == {
        "demonstrations": 1,
        "episodes": ["drawer-open/episode_00000"],
        "sources": ["metaworld"],
        "tasks": ["drawer-open"],
        "cameras": ["front"],
        "image_transform": "none",
        "proprioception": "ee_gripper",
        "mujoco": None,
        "quality": None,
        "assets_fingerprint": None,
        "gripper": None,
        "action_scale": None,
    }
    with pytest.raises(ValueError, match=r"pretrained on camera agentview, .* \(--rename-camera agentview=front\)"):
        finetune_on_demonstrations(
            str(policies / "agentview"), tmp_path / "recordings", OPTIONS, output_dir=tmp_path / "refused"
        )


def test_names_of_cameras() -> None:
    assert parse_renames(["front=agentview", "a=b"]) == {"front": "agentview", "a": "b"}
    with pytest.raises(ValueError, match="--rename-camera: got 'front', expected OLD=NEW"):
        parse_renames(["front"])


def test_missing_demonstrations_are_named(policies: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there are no demonstrations here"):
        finetune_on_demonstrations(str(policies / "front"), tmp_path, OPTIONS, output_dir=tmp_path / "out")


def test_fewer_demonstrations_of_a_task_than_asked_for_are_refused(
    policies: Path, recording: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="task 'other_task' has 1 demonstrations, expected 2: record more"):
        finetune_on_demonstrations(
            str(policies / "agentview"), recording, OPTIONS, output_dir=tmp_path / "out", per_task=2
        )
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_there_is_named(policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="demos/goal: there is no such folder, and no such dataset"):
        finetune_on_demonstrations(str(policies / "front"), "demos/goal", OPTIONS, output_dir=tmp_path / "out")


@pytest.mark.sim
def test_the_example_takes_a_suites_tasks_and_a_protocols_choices(
    policies: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--policy", str(policies / "agentview"), "--demonstrations", str(recording), "--suite", "goal"]
    arguments += ["--tasks", "1", "--protocol", "baku", "--out", str(tmp_path), "max_steps=1", "global_batch_size=2"]
    assert run_example("finetune_libero", arguments) == 0
    told = HierarchicalPolicy.from_pretrained(tmp_path / "policy").config.training_data
    assert told is not None and told["tasks"] == [TASK]
    assert (told["image_transform"], told["proprioception"]) == ("flip_vertical", "joints_gripper")
    arguments[arguments.index("--tasks") + 1] = "0"
    arguments[arguments.index("--out") + 1] = str(tmp_path / "other")
    assert run_example("finetune_libero", arguments) == 1
    assert "open_the_middle_drawer_of_the_cabinet" in capsys.readouterr().err


def test_a_suite_needs_the_protocol_that_says_whose_it_is(policies: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="suite 'goal': give the protocol, too"):
        finetune_on_demonstrations(str(policies / "front"), tmp_path, OPTIONS, output_dir=tmp_path, suite="goal")
