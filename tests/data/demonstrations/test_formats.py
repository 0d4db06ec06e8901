"""A format that is not ours: made known in one line, then loaded, sampled and learnt from as any other."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hilam_hf.data import PolicyDataset, demonstration_formats, load_demonstrations, register_format, unregister_format
from hilam_hf.data.demonstrations import formats
from hilam_hf.models.hierarchical import HierarchicalPolicy
from hilam_hf.training.policy.train import FinetuningConfig, finetune_policy
from tests.data.demonstrations import toy_format
from tests.models.hierarchical.test_hierarchical import LATENT_DIM, SKILL_DIM, FakeLanguageEncoder, tiny_config
from tests.numbered_videos import frame_numbers, numbered_frames
from tests.test_plugins import add_package, looked_up_again


@pytest.fixture(autouse=True)
def known_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test makes known is forgotten after it."""
    monkeypatch.setattr(formats, "DEMONSTRATION_FORMATS", looked_up_again(formats.DEMONSTRATION_FORMATS))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    for name, length in (("a", 5), ("b", 4)):
        steps = np.arange(length, dtype=np.float32)[:, None]
        np.savez(
            tmp_path / f"push.{name}.npz",
            language="push it",
            actions=steps + np.float32([0, 10, 20]),
            joints=steps * np.float32([1, -1]),
            frames_side=numbered_frames(length).permute(0, 2, 3, 1).numpy(),
        )
    return tmp_path


def test_a_registered_format_is_learnt_from(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected LIBERO's files .*\(hdf5\); .*\(lerobot\): record"):
        load_demonstrations(recording)
    register_format(toy_format.FORMAT)
    demonstrations = load_demonstrations(recording)
    assert [each.id for each in demonstrations] == ["push/a", "push/b"] and demonstrations.cameras == ("side",)
    dataset = PolicyDataset.from_demonstrations(
        demonstrations, 32, chunk_size=2, camera_names={"side": "front"}, progress=False
    )
    assert len(dataset) == 9 and dataset.cameras == ["front"]
    assert dataset[6]["actions"].tolist() == [[1, 11, 21], [2, 12, 22]]
    assert dataset[6]["agent_pos"].tolist() == [1, -1]
    assert frame_numbers(dataset[6]["pixels"]["front"][None]) == [1]

    policy = HierarchicalPolicy(tiny_config())
    policy.language_encoder = FakeLanguageEncoder()  # type: ignore[assignment]
    policy.set_statistics(
        skills=(torch.zeros(SKILL_DIM), torch.ones(SKILL_DIM)),
        latent_actions=(torch.zeros(LATENT_DIM), torch.ones(LATENT_DIM)),
    )
    policy.prepare_for_finetuning(action_dim=3, chunk_size=2, agent_pos_dim=2)
    result = finetune_policy(
        policy, dataset, FinetuningConfig(max_steps=2, global_batch_size=4), output_dir=tmp_path / "run"
    )
    assert result.steps == 2
    observation = {"pixels": {"front": np.zeros((32, 32, 3), np.uint8)}, "agent_pos": np.zeros(2), "task": "push it"}
    action = HierarchicalPolicy.from_pretrained(tmp_path / "run" / "policy").eval()
    action.language_encoder = FakeLanguageEncoder()  # type: ignore[assignment]
    assert action.select_action(observation).shape == (3,)


def test_an_installed_package_makes_its_format_known(
    recording: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, group = tmp_path_factory.mktemp("site-packages"), formats.DEMONSTRATION_FORMATS.group
    add_package(site, "npz_package", "", f"toy_npz = {toy_format.__name__}:FORMAT", group)
    monkeypatch.syspath_prepend(site)
    assert list(demonstration_formats()) == ["hdf5", "videos", "lerobot", "toy_npz"]
    assert len(load_demonstrations(recording)) == 2


def test_an_installed_package_gives_a_format_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = formats.DEMONSTRATION_FORMATS.group
    add_package(tmp_path, "other_package", "", f"other = {toy_format.__name__}:FORMAT", group)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"format of demonstrations 'other': .* expected a DemonstrationFormat"):
        demonstration_formats()


def test_names_of_formats_are_different() -> None:
    register_format(toy_format.FORMAT)
    with pytest.raises(ValueError, match="there is a format of demonstrations 'toy_npz' already"):
        register_format(toy_format.FORMAT)
    unregister_format("toy_npz")
    assert "toy_npz" not in demonstration_formats()
