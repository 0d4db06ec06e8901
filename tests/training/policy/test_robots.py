"""Fine-tuning of the hierarchical policy on recordings of a robot with two cameras."""

from pathlib import Path

import torch

from hilam_hf.data import LeRobotWriter, LiberoHdf5Writer, PolicyDataset, load_demonstrations
from hilam_hf.models.hierarchical.modeling_hierarchical import HierarchicalPolicy
from hilam_hf.training.policy.train import FinetuningConfig, finetune_policy
from tests.models.hierarchical.test_hierarchical import LATENT_DIM, SKILL_DIM, FakeLanguageEncoder, tiny_config
from tests.robot_recordings import demonstration


def finetuned(root: Path, writer_class: type[LeRobotWriter] | type[LiberoHdf5Writer]) -> HierarchicalPolicy:
    with writer_class(root / "recording") as writer:
        for seed, task in enumerate(("open", "close")):
            writer.add(demonstration(5, seed, task=task, language=f"{task} it"))
    recording = load_demonstrations(root / "recording")
    dataset = PolicyDataset.from_demonstrations(recording, 32, chunk_size=3, progress=False)
    torch.manual_seed(0)
    policy = HierarchicalPolicy(tiny_config())
    policy.language_encoder = FakeLanguageEncoder()  # type: ignore[assignment]
    policy.set_statistics(
        skills=(torch.zeros(SKILL_DIM), torch.ones(SKILL_DIM)),
        latent_actions=(torch.zeros(LATENT_DIM), torch.ones(LATENT_DIM)),
    )
    # Pretraining had one camera; the wrist's is new.
    policy.prepare_for_finetuning(
        action_dim=7, chunk_size=3, agent_pos_dim=8, cameras=dataset.cameras, rename_cameras={"front": "agentview"}
    )
    config = FinetuningConfig(max_steps=2, global_batch_size=4, log_every=1)
    result = finetune_policy(policy, dataset, config, output_dir=root / "run")
    assert result.steps == 2
    reloaded = HierarchicalPolicy.from_pretrained(root / "run" / "policy").eval()
    reloaded.language_encoder = FakeLanguageEncoder()  # type: ignore[assignment]
    return reloaded


def test_policies_learn_from_both_formats(tmp_path: Path) -> None:
    demo = demonstration(5, 1, task="close")
    actions = []
    for name, writer_class in (("hdf5", LiberoHdf5Writer), ("lerobot", LeRobotWriter)):
        policy = finetuned(tmp_path / name, writer_class)
        assert policy.config.low_config.cameras == ["agentview", "robot0_eye_in_hand"]
        assert policy.config.high_config.cameras == ["agentview"]
        low, high = policy.action_normalizer.denormalize(torch.tensor([[-1.0] * 7, [1.0] * 7]))
        recorded = torch.cat([torch.from_numpy(demonstration(5, seed).actions) for seed in range(2)]).float()
        torch.testing.assert_close(low, recorded.amin(0), rtol=0, atol=1e-4)
        torch.testing.assert_close(high, recorded.amax(0), rtol=0, atol=1e-4)
        pixels = {camera: frames[0, :, 8:40][::-1, ::-1].copy() for camera, frames in demo.frames.items()}
        observation = {"pixels": pixels, "agent_pos": torch.zeros(8).numpy(), "task": "close it"}
        actions.append(policy.select_action(observation))
    # The same data but for the loss of the videos' codec.
    torch.testing.assert_close(torch.from_numpy(actions[0]), torch.from_numpy(actions[1]), rtol=0, atol=0.1)
