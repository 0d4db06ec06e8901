"""The hierarchical policy: pretraining, preparation for fine-tuning, LoRA and acting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import T5Config

from hilam_hf.models.baku import BakuConfig, BakuPolicy
from hilam_hf.models.hierarchical import HierarchicalPolicy, HierarchicalPolicyConfig
from hilam_hf.video import resize_frames
from tests.models.baku.tiny import FakeLanguageEncoder
from tests.models.mixins import StoredModelTester

TRUNK = {
    "cameras": ["front"],
    "image_size": 32,
    "vision_widths": [8, 16],
    "vision_groups": 4,
    "num_keypoints": 6,
    "token_dim": 24,
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "dropout": 0.0,
}
SKILL_DIM, LATENT_DIM, ACTION_DIM, CHUNK, AGENT_POS_DIM, LANGUAGE_DIM = 6, 5, 3, 4, 7, 8


def tiny_config(*, high: dict[str, Any] | None = None, low: dict[str, Any] | None = None, **changes: Any):
    return HierarchicalPolicyConfig(
        high_config=TRUNK | {"language_dim": LANGUAGE_DIM} | (high or {}),
        low_config=TRUNK | (low or {}),
        skill_dim=SKILL_DIM,
        latent_dim=LATENT_DIM,
        **changes,
    )


def set_video_statistics(policy: HierarchicalPolicy) -> None:
    policy.set_statistics(
        skills=(torch.arange(6.0), torch.full((6,), 2.0)),
        latent_actions=(torch.arange(5.0) - 2, torch.full((5,), 0.5)),
    )


def set_robot_statistics(policy: HierarchicalPolicy) -> None:
    policy.set_statistics(
        actions=(torch.tensor([-1.0, 0.0, -3.0]), torch.tensor([1.0, 4.0, 3.0])),
        agent_pos=(torch.arange(7.0), torch.full((7,), 3.0)),
    )


def pretraining_policy(**changes: Any) -> HierarchicalPolicy:
    torch.manual_seed(0)
    policy = HierarchicalPolicy(tiny_config(**changes)).eval()
    set_video_statistics(policy)
    policy.language_encoder = FakeLanguageEncoder()
    return policy


def acting_policy(**changes: Any) -> HierarchicalPolicy:
    policy = pretraining_policy(**changes)
    policy.prepare_for_finetuning(
        action_dim=ACTION_DIM, chunk_size=CHUNK, agent_pos_dim=AGENT_POS_DIM, cameras=["front", "wrist"]
    )
    set_robot_statistics(policy)
    return policy.eval()


def video_batch(batch: int = 3, steps: int | None = None) -> dict[str, Any]:
    leading = (batch,) if steps is None else (batch, steps)
    return {
        "pixels": {"front": torch.rand(*leading, 3, 32, 32)},
        "language": torch.randn(batch, LANGUAGE_DIM),
        "skills": torch.randn(*leading, SKILL_DIM),
        "latent_actions": torch.randn(*leading, LATENT_DIM),
    }


def robot_batch(batch: int = 3) -> dict[str, Any]:
    return {
        "pixels": {"front": torch.rand(batch, 3, 32, 32), "wrist": torch.rand(batch, 3, 32, 32)},
        "language": torch.randn(batch, LANGUAGE_DIM),
        "agent_pos": torch.randn(batch, AGENT_POS_DIM),
        "actions": torch.rand(batch, CHUNK, ACTION_DIM),
    }


def observation(batch: int | None = None, seed: int = 0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    leading = () if batch is None else (batch,)
    return {
        "pixels": {
            camera: generator.integers(0, 256, (*leading, 40, 48, 3), dtype=np.uint8) for camera in ("front", "wrist")
        },
        "agent_pos": generator.normal(size=(*leading, AGENT_POS_DIM)).astype(np.float32),
        "task": "open the drawer" if batch is None else [f"task {'x' * row}" for row in range(batch)],
    }


class TestPretraining(StoredModelTester):
    model_class = HierarchicalPolicy

    def make_config(self) -> HierarchicalPolicyConfig:
        return tiny_config()

    def make_inputs(self) -> dict[str, Any]:
        return video_batch()

    def prepare_model(self, model: HierarchicalPolicy) -> None:
        set_video_statistics(model)


class TestFinetuning(StoredModelTester):
    model_class = HierarchicalPolicy
    no_gradient = ("high_level.",)

    def make_config(self) -> HierarchicalPolicyConfig:
        low = {"cameras": ["front", "wrist"], "proprioception_dim": AGENT_POS_DIM, "chunk_size": CHUNK}
        return tiny_config(low=low, action_dim=ACTION_DIM)

    def make_inputs(self) -> dict[str, Any]:
        return robot_batch()

    def prepare_model(self, model: HierarchicalPolicy) -> None:
        set_video_statistics(model)
        set_robot_statistics(model)


def test_config_fills_in_what_follows_from_the_dimensions():
    config = tiny_config()
    assert (config.high_config.action_dim, config.high_config.chunk_size) == (SKILL_DIM, 1)
    assert (config.low_config.condition_dim, config.low_config.action_dim) == (SKILL_DIM, LATENT_DIM)
    # The paper's pi^l sees the observation and the skill, not the instruction.
    assert config.low_config.language_dim is None
    assert config.low_config.step_tokens == ["front", "condition", "action"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"high": {"action_dim": 9}}, r"high_config\.action_dim must be 6 \(skill_dim\), got 9"),
        ({"high": {"chunk_size": 2}}, r"high_config\.chunk_size must be 1"),
        ({"low": {"condition_dim": 9}}, r"low_config\.condition_dim must be 6"),
        ({"low": {"action_dim": 9}}, r"low_config\.action_dim must be 5 \(latent_dim\)"),
        ({"low": {"use_tanh": True}}, "use_tanh must be False"),
        ({"high": {"proprioception_dim": 2}, "low": {"proprioception_dim": 3}}, "disagree on proprioception_dim"),
        ({"low": {"language_dim": 9}}, "disagree on language_dim"),
        ({"low": {"image_size": 16}, "share_vision_encoder": True}, "same image_size"),
        ({"high": {"share_camera_encoder": False}, "share_vision_encoder": True}, "share_camera_encoder=True"),
        ({"low": {"has_vision_encoder": False}}, "opposite of share_vision_encoder"),
        ({"skill_loss": "huber"}, "skill_loss"),
    ],
)
def test_bad_config_is_named(options: dict[str, Any], message: str):
    with pytest.raises(StrictDataclassError, match=message):
        tiny_config(**options)


@pytest.mark.parametrize("steps", [None, 2])
def test_pretraining_losses_are_regressions_on_standardised_targets(steps: int | None):
    policy = pretraining_policy(skill_loss="l1", skill_loss_weight=3.0)
    batch = video_batch(steps=steps)
    output = policy(**batch)
    assert output.skills.shape == batch["skills"].shape
    assert output.latent_actions.shape == batch["latent_actions"].shape
    skill_loss = (output.skills - batch["skills"]).abs().mean() / 2.0
    latent_loss = (output.latent_actions - batch["latent_actions"]).square().mean() / 0.5**2
    torch.testing.assert_close(output.skill_loss, skill_loss)
    torch.testing.assert_close(output.latent_action_loss, latent_loss)
    torch.testing.assert_close(output.loss, 3 * skill_loss + latent_loss)


def test_low_level_takes_the_standardised_predicted_skill():
    policy = pretraining_policy()
    batch = video_batch()
    output = policy(batch["pixels"], batch["language"])
    condition = ((output.skills - torch.arange(6.0)) / 2)[:, None]
    pixels = {"front": batch["pixels"]["front"][:, None]}
    expected = policy.low_level(pixels=pixels, condition=condition).action_mean[:, 0, 0] * 0.5 + torch.arange(5.0) - 2
    torch.testing.assert_close(output.latent_actions, expected, rtol=1e-4, atol=1e-5)
    assert output.loss is None


@pytest.mark.parametrize("detach", [True, False])
def test_gradient_of_the_low_level_into_the_high_level(detach: bool):
    policy = pretraining_policy(detach_skill=detach)
    batch = video_batch()
    del batch["skills"]
    policy(**batch).loss.backward()
    reached = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in policy.high_level.parameters()]
    assert not any(reached) if detach else any(reached)


def test_skill_targets_alone_run_the_high_level_only():
    policy = pretraining_policy()
    policy.low_level.register_forward_pre_hook(lambda *_: pytest.fail("pi^l ran"))
    batch = video_batch()
    output = policy(batch["pixels"], batch["language"], skills=batch["skills"])
    assert output.loss is not None and output.latent_actions is None


def test_cached_skills_stand_in_for_the_high_level():
    policy = acting_policy()
    policy.freeze_high_level()
    batch = robot_batch()
    expected = policy(**batch)
    cached = policy.predict_skills(batch["pixels"], batch["language"])
    assert cached.shape == (3, SKILL_DIM) and not cached.requires_grad
    policy.high_level.trunk.register_forward_pre_hook(lambda *_: pytest.fail("pi^h ran"))
    output = policy(**batch, predicted_skills=cached)
    torch.testing.assert_close(output.loss, expected.loss)
    torch.testing.assert_close(output.actions, expected.actions, rtol=1e-4, atol=1e-5)


def test_action_loss_counts_real_actions_only():
    policy = acting_policy()
    batch = robot_batch()
    mask = torch.ones(3, CHUNK, dtype=torch.bool)
    mask[1, 1:] = False
    scale = torch.tensor([1.0, 2.0, 3.0])  # half the range of each dimension
    predicted = policy(**batch).actions
    assert predicted.shape == (3, CHUNK, ACTION_DIM)
    expected = ((predicted - batch["actions"]) / scale)[mask].square().mean()
    batch["actions"][1, 1:] = torch.nan
    loss = policy(**batch, action_mask=mask).action_loss
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    loss.backward()
    assert torch.isfinite(policy.low_level.action_head.output.weight.grad).all()


def test_preparing_keeps_what_was_pretrained_and_names_what_is_fresh():
    policy = pretraining_policy()
    old = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    fresh = policy.prepare_for_finetuning(
        action_dim=ACTION_DIM, chunk_size=CHUNK, agent_pos_dim=AGENT_POS_DIM, cameras=["wrist", "front"]
    )
    assert set(fresh) == {"action_head", "proprioception_projector", "trunk.position_embedding"}
    assert policy.config.fresh_modules == fresh
    new = policy.state_dict()
    for name, tensor in old.items():
        if not name.startswith(("low_level.action_head", "low_level.trunk.position")):
            torch.testing.assert_close(new[name], tensor, rtol=0, atol=0, equal_nan=True)
    # Tokens before: front, condition, action; after: wrist, front, agent_pos, condition, action.
    before = old["low_level.trunk.position_embedding.weight"]
    after = new["low_level.trunk.position_embedding.weight"]
    torch.testing.assert_close(after[[1, 3, 4]], before[[0, 1, 2]], rtol=0, atol=0)
    torch.testing.assert_close(after[[6, 8, 9]], before[[3, 4, 5]], rtol=0, atol=0)
    assert (after[0] - before[0]).abs().max() > 0


def test_preparing_without_new_modalities_changes_the_head_only():
    policy = pretraining_policy()
    features = features_of(policy)
    assert policy.prepare_for_finetuning(action_dim=ACTION_DIM, chunk_size=CHUNK) == ["action_head"]
    torch.testing.assert_close(features_of(policy), features)


def test_head_is_fresh_even_for_actions_as_long_as_latents():
    policy = pretraining_policy()
    old = {name: tensor.clone() for name, tensor in policy.low_level.action_head.state_dict().items()}
    # Another seed than that of the policy's own, untrained head.
    policy.prepare_for_finetuning(action_dim=LATENT_DIM, chunk_size=1, seed=1)
    new = policy.low_level.action_head.state_dict()
    assert all(not torch.equal(new[name], old[name]) for name in old if name.endswith("weight"))


def features_of(policy: HierarchicalPolicy) -> Tensor:
    torch.manual_seed(3)
    pixels = {"front": torch.rand(2, 1, 3, 32, 32)}
    return policy.low_level(pixels=pixels, condition=torch.randn(2, 1, SKILL_DIM)).features


@pytest.mark.parametrize("shared", [True, False])
def test_renamed_camera_keeps_its_encoder(shared: bool):
    policy = pretraining_policy(high={"share_camera_encoder": shared}, low={"share_camera_encoder": shared})
    batch = video_batch()
    skills, encoder = policy(**batch).skills, next(iter(policy.low_level.vision_encoders.values())).stem.weight.clone()
    fresh = policy.prepare_for_finetuning(
        action_dim=3, chunk_size=2, cameras=["agentview", "wrist"], rename_cameras={"front": "agentview"}
    )
    assert set(fresh) - {"action_head", "trunk.position_embedding"} == (set() if shared else {"vision_encoders.wrist"})
    name = "shared" if shared else "agentview"
    torch.testing.assert_close(policy.low_level.vision_encoders[name].stem.weight, encoder, rtol=0, atol=0)
    renamed = {"agentview": batch["pixels"]["front"]}
    torch.testing.assert_close(policy.predict_skills(renamed, batch["language"]), skills)


def test_preparing_refuses_an_unknown_camera_and_a_bad_size():
    policy = pretraining_policy()
    with pytest.raises(ValueError, match=r"Cannot rename cameras \['back'\]"):
        policy.prepare_for_finetuning(action_dim=3, chunk_size=2, rename_cameras={"back": "front"})
    with pytest.raises(StrictDataclassError, match="chunk_size must be greater than 0"):
        policy.prepare_for_finetuning(action_dim=3, chunk_size=0)
    assert policy.config.action_dim is None and policy.action_normalizer is None


def test_frozen_high_level_gets_no_gradient_and_no_dropout():
    policy = acting_policy(high={"dropout": 0.5})
    policy.freeze_high_level()
    policy.train()
    assert policy.low_level.training and not policy.high_level.training
    batch = robot_batch()
    assert torch.equal(policy(**batch).skills, policy(**batch).skills)
    policy(**batch).loss.backward()
    assert all(p.grad is None for p in policy.high_level.parameters())
    assert all(p.grad is not None for p in policy.low_level.parameters())


def test_a_frozen_high_level_stays_frozen_in_a_checkpoint_until_it_is_taken_back(tmp_path: Path):
    policy = acting_policy(high={"dropout": 0.5})
    policy.freeze_high_level()
    policy.save_pretrained(tmp_path)
    for loaded in (HierarchicalPolicy.from_pretrained(tmp_path), HierarchicalPolicy(policy.config)):
        loaded.train()
        assert not any(p.requires_grad for p in loaded.high_level.parameters())
        assert all(p.requires_grad for p in loaded.low_level.parameters())
        assert loaded.low_level.training and not loaded.high_level.training
    loaded.prepare_for_finetuning(action_dim=2, chunk_size=3)
    assert not any(p.requires_grad for p in loaded.high_level.parameters())
    loaded.freeze_high_level(False)
    assert all(p.requires_grad for p in loaded.high_level.parameters()) and loaded.high_level.training


@pytest.mark.parametrize("given", [{}, {"language_dim": None, "film_source": None}, {"language_dim": 5}])
def test_the_width_of_language_is_that_of_the_encoder_unless_it_is_said(tmp_path: Path, given: dict[str, Any]):
    T5Config(d_model=12).save_pretrained(tmp_path)
    expected = given.get("language_dim", 12)
    trunk = {**TRUNK, **given}
    config = HierarchicalPolicyConfig(
        high_config=trunk, low_config=TRUNK, skill_dim=4, latent_dim=4, language_encoder=str(tmp_path)
    )
    assert config.high_config.language_dim == expected
    assert config.low_config.language_dim is None
    assert BakuConfig(**trunk, language_encoder=str(tmp_path)).language_dim == expected
    assert BakuConfig(**TRUNK).language_dim == 384
    with pytest.raises(OSError, match="give that folder as language_encoder"):
        BakuConfig(**TRUNK, language_encoder="absent/encoder")


def test_training_reduces_both_losses():
    policy = pretraining_policy().train()
    batch = video_batch()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        output = policy(**batch)
        losses.append((float(output.skill_loss.detach()), float(output.latent_action_loss.detach())))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert losses[-1][0] < 0.2 * losses[0][0]
    assert losses[-1][1] < 0.2 * losses[0][1]


def test_lora_trains_adapters_and_fresh_modules_only(tmp_path: Path):
    peft = pytest.importorskip("peft")
    policy = acting_policy()
    policy.freeze_high_level()
    policy.save_pretrained(tmp_path / "base")
    targets = policy.low_level_lora_targets()
    modules = dict(policy.named_modules())
    assert all(name in modules for names in targets.values() for name in names)
    assert not any(name.startswith("high_level.") for names in targets.values() for name in names)
    assert set(targets["modules_to_save"]) == {
        "low_level.action_head",
        "low_level.proprioception_projector",
        "low_level.trunk.position_embedding",
    }
    assert "low_level.trunk.layers.0.attention.qkv" in targets["target_modules"]
    no_vision = policy.low_level_lora_targets(vision=False)["target_modules"]
    assert no_vision and not any("vision" in name for name in no_vision)

    adapted = peft.get_peft_model(policy, peft.LoraConfig(r=2, **targets))
    before = {name: p.detach().clone() for name, p in adapted.named_parameters()}
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    batch = robot_batch()
    for _ in range(2):
        optimizer.zero_grad()
        adapted(**batch).loss.backward()
        optimizer.step()
    changed = {name for name, p in adapted.named_parameters() if not torch.equal(p, before[name])}
    assert changed and all("lora_" in name or "modules_to_save" in name for name in changed)
    assert any("layers.0.attention.qkv.lora_B" in name for name in changed)
    assert any("vision_encoders" in name for name in changed)

    adapted.save_pretrained(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(HierarchicalPolicy.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.eval()(**batch).actions, adapted.eval()(**batch).actions, rtol=1e-4, atol=1e-5
        )


def test_lora_needs_a_prepared_policy():
    with pytest.raises(ValueError, match="call prepare_for_finetuning"):
        pretraining_policy().low_level_lora_targets()


@pytest.mark.parametrize("low_cameras", [["front"], ["front", "wrist"]])
def test_shared_vision_encoder_feeds_both_levels(low_cameras: list[str]):
    policy = pretraining_policy(share_vision_encoder=True)
    assert not policy.low_level.vision_encoders
    batch = video_batch()
    del batch["skills"]
    policy(**batch).loss.backward()
    assert policy.high_level.vision_encoders["shared"].stem.weight.grad.abs().sum() > 0

    policy.prepare_for_finetuning(action_dim=3, chunk_size=2, cameras=low_cameras)
    policy.set_statistics(actions=(-torch.ones(3), torch.ones(3)))
    robot = robot_batch()
    output = policy(robot["pixels"], robot["language"])
    cached = policy(robot["pixels"], robot["language"], predicted_skills=output.skills)
    torch.testing.assert_close(cached.actions, output.actions, rtol=1e-4, atol=1e-5)
    assert policy.select_action(observation()).shape == (3,)


def test_low_level_may_take_the_instruction_too():
    policy = acting_policy(low={"language_dim": LANGUAGE_DIM})
    assert policy.low_level.language_projector is not None
    assert policy.select_action(observation(2)).shape == (2, ACTION_DIM)


def test_first_action_is_the_first_of_the_chunk():
    policy = acting_policy()
    seen = observation(2)
    pixels = {c: resize_frames(torch.from_numpy(f).permute(0, 3, 1, 2), 32) for c, f in seen["pixels"].items()}
    with torch.no_grad():
        language = policy.language_encoder.encode(seen["task"])
        expected = policy(pixels, language, torch.from_numpy(seen["agent_pos"])).actions[:, 0]
    np.testing.assert_allclose(policy.select_action(seen), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{}, {"execution": "open_loop", "n_action_steps": 2}, {"high": {"history": 3}, "low": {"history": 2}}],
)
def test_batch_with_restarting_rows_equals_single_episodes(changes: dict[str, Any]):
    together = acting_policy(**changes)
    steps = [observation(2, seed) for seed in range(5)]
    actions = []
    for step, seen in enumerate(steps):
        if step == 3:
            together.reset([1])
        actions.append(together.select_action(seen))
    for row in range(2):
        single = acting_policy(**changes)
        for step, seen in enumerate(steps):
            if step == 3 and row == 1:
                single.reset()
            own = {
                "pixels": {camera: frames[row] for camera, frames in seen["pixels"].items()},
                "agent_pos": seen["agent_pos"][row],
                "task": seen["task"][row],
            }
            np.testing.assert_allclose(single.select_action(own), actions[step][row], atol=1e-4)


def test_temporal_aggregation_averages_the_chunks_of_several_steps():
    policy = acting_policy(aggregation_decay=0.5)
    chunks = [torch.full((1, CHUNK, ACTION_DIM), value) for value in (0.2, 0.6)]
    policy._predict_chunk = lambda inputs: chunks.pop(0)
    policy.select_action(observation())
    weight = np.exp(-0.5)
    normalised = (0.2 + 0.6 * weight) / (1 + weight)
    # Ranges -1..1, 0..4 and -3..3.
    expected = [normalised, 2 + 2 * normalised, 3 * normalised]
    np.testing.assert_allclose(policy.select_action(observation()), expected, atol=1e-6)


@pytest.mark.parametrize("prepared", [True, False])
def test_saved_policy_is_the_same_when_loaded(prepared: bool, tmp_path: Path):
    policy = acting_policy(stage=1, execution="open_loop") if prepared else pretraining_policy(stage=1)
    policy.save_pretrained(tmp_path)
    loaded, report = HierarchicalPolicy.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert loaded.config.stage == 1 and loaded.config.fresh_modules == policy.config.fresh_modules
    for name, tensor in policy.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    loaded.language_encoder = FakeLanguageEncoder()
    if prepared:
        for seed in range(3):
            seen = observation(2, seed)
            np.testing.assert_allclose(loaded.select_action(seen), policy.select_action(seen), atol=1e-5)
    else:
        batch = video_batch()
        torch.testing.assert_close(loaded(**batch).loss, policy(**batch).loss)


def test_statistics_are_required_and_survive_loading_unset(tmp_path: Path):
    policy = HierarchicalPolicy(tiny_config())
    with pytest.raises(ValueError, match="statistics of skills are not set"):
        policy(**video_batch())
    policy.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="statistics of skills are not set"):
        HierarchicalPolicy.from_pretrained(tmp_path)(**video_batch())
    policy.set_statistics(skills=(torch.zeros(6), torch.ones(6)))
    with pytest.raises(ValueError, match="statistics of latent_actions are not set"):
        policy(**video_batch())
    with pytest.raises(ValueError, match="must be 6 finite numbers"):
        policy.set_statistics(skills=(torch.zeros(5), torch.ones(5)))


def test_policy_without_actions_says_what_to_do():
    policy = pretraining_policy()
    for attempt in (
        lambda: policy.select_action(observation()),
        lambda: policy(**{k: v for k, v in robot_batch().items() if k != "agent_pos"}),
        lambda: policy.set_statistics(actions=(torch.zeros(3), torch.ones(3))),
    ):
        with pytest.raises(ValueError, match="call prepare_for_finetuning"):
            attempt()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skills": torch.rand(3, 5)}, "skills must have length 6"),
        ({"skills": torch.rand(2, 6)}, "Targets must have shape"),
        ({"latent_actions": torch.rand(3, 4)}, "latent_actions must have length 5"),
        ({"predicted_skills": torch.rand(3, 6)}, "drop one"),
        ({"language": None}, "language is missing"),
        ({"pixels": {"wrist": torch.rand(3, 3, 32, 32)}}, "Camera 'front' is missing"),
        ({"pixels": {"front": torch.rand(3, 3, 64, 64)}}, "image_size=32"),
    ],
)
def test_bad_pretraining_input_is_named(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        pretraining_policy()(**video_batch() | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agent_pos": None}, "agent_pos is missing"),
        ({"agent_pos": torch.rand(3, 2)}, "agent_pos must have length 7"),
        ({"actions": torch.rand(3, CHUNK, 2)}, "actions must have length 3"),
        ({"actions": torch.rand(3, 2, 3)}, "Targets must have shape"),
        ({"latent_actions": torch.rand(3, 5)}, "removed its latent action head"),
    ],
)
def test_bad_finetuning_input_is_named(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        acting_policy()(**robot_batch() | changes)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda o: o["pixels"].pop("wrist"), "lacks camera 'wrist'"),
        (lambda o: o.pop("agent_pos"), "lacks 'agent_pos'"),
        (lambda o: o.pop("task"), "lacks 'task'"),
        (lambda o: o.update(agent_pos=np.zeros(3)), r"shape \(7,\)"),
    ],
)
def test_bad_observation_is_named(spoil: Any, message: str):
    seen = observation()
    spoil(seen)
    with pytest.raises(ValueError, match=message):
        acting_policy().select_action(seen)


def test_checkpoint_of_another_kind_is_refused(tmp_path: Path):
    BakuPolicy(BakuConfig(**TRUNK)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="baku"):
        HierarchicalPolicy.from_pretrained(tmp_path)
