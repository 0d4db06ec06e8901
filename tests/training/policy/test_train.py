"""Pretraining and fine-tuning of the hierarchical policy, whole and with LoRA."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoImageProcessor

from hilam_hf.data.samples.policy import PolicyDataset, PolicyEpisode
from hilam_hf.fingerprint import data_fingerprint
from hilam_hf.models.hierarchical.modeling_hierarchical import HierarchicalPolicy
from hilam_hf.training import TrainingConfig
from hilam_hf.training.policy.collator import PolicyCollator, encode_instructions
from hilam_hf.training.policy.train import (
    FinetuningConfig,
    finetune_policy,
    predict_skills,
    pretrain_policy,
)
from tests.models.hierarchical.test_hierarchical import (
    ACTION_DIM,
    AGENT_POS_DIM,
    CHUNK,
    LATENT_DIM,
    SKILL_DIM,
    FakeLanguageEncoder,
    tiny_config,
)

LENGTH = 9


class Frames:
    """Frames that are kept in memory, as `FrameStore` would read them."""

    def __init__(self, count: int):
        generator = torch.Generator().manual_seed(0)
        self.frames = torch.randint(0, 256, (count, LENGTH, 3, 32, 32), dtype=torch.uint8, generator=generator)

    def read(self, episode: int, indices: list[int]) -> Tensor:
        return self.frames[episode, indices]

    def fingerprint(self) -> str:
        return data_fingerprint(self.frames)


def make_dataset(labels: Callable[[], dict[str, Tensor]], chunk_size: int = 1) -> PolicyDataset:
    torch.manual_seed(1)
    episodes = [
        PolicyEpisode(id=str(n), language=f"task {'x' * n}", frame_indices=torch.arange(LENGTH), **labels())
        for n in range(3)
    ]
    return PolicyDataset(episodes, Frames(3), camera="front", chunk_size=chunk_size)  # type: ignore[arg-type]


def video_labels() -> dict[str, Tensor]:
    """Latent actions that mostly follow from the skill, as the low-level policy is told it."""
    segments = torch.arange(LENGTH) // 3
    return {
        "latent_actions": 3 * torch.randn(3, LATENT_DIM)[segments] + 0.3 * torch.randn(LENGTH, LATENT_DIM) + 1,
        "skills": torch.randn(3, SKILL_DIM) - 2,
        "segments": segments,
    }


def robot_labels() -> dict[str, Tensor]:
    return {"actions": torch.rand(LENGTH, ACTION_DIM) * 2 - 1, "agent_pos": torch.randn(LENGTH, AGENT_POS_DIM)}


def make_policy(**changes: Any) -> HierarchicalPolicy:
    torch.manual_seed(0)
    policy = HierarchicalPolicy(tiny_config(**changes))
    policy.language_encoder = FakeLanguageEncoder()  # type: ignore[assignment]
    return policy


def prepared_policy() -> HierarchicalPolicy:
    policy = make_policy()
    policy.set_statistics(
        skills=(torch.zeros(SKILL_DIM), torch.ones(SKILL_DIM)),
        latent_actions=(torch.zeros(LATENT_DIM), torch.ones(LATENT_DIM)),
    )
    policy.prepare_for_finetuning(action_dim=ACTION_DIM, chunk_size=CHUNK, agent_pos_dim=AGENT_POS_DIM)
    return policy


def options(kind: type[TrainingConfig] = TrainingConfig, **changes: Any) -> Any:
    return kind(
        **{"max_steps": 80, "global_batch_size": 9, "learning_rate": 1.5e-3, "warmup_steps": 2, "log_every": 5}
        | changes
    )


def changed(before: dict[str, Tensor], after: dict[str, Tensor], prefix: str) -> bool:
    return any(not torch.equal(before[name], after[name]) for name in before if name.startswith(prefix))


def copied(policy: HierarchicalPolicy) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}


def test_pretraining_takes_the_labels_statistics_and_lowers_both_losses(tmp_path: Path) -> None:
    policy, dataset = make_policy(), make_dataset(video_labels)
    result = pretrain_policy(policy, dataset, options(max_steps=150), output_dir=tmp_path)
    latents = torch.cat([episode.latent_actions for episode in dataset.episodes])
    # A skill counts as often as there are latent actions in its segment.
    skills = torch.cat([episode.skills.repeat_interleave(3, 0) for episode in dataset.episodes])
    for values, normalizer in ((latents, policy.latent_action_normalizer), (skills, policy.skill_normalizer)):
        normalized = normalizer.normalize(values)
        torch.testing.assert_close(normalized.mean(0), torch.zeros(values.shape[1]), rtol=0, atol=1e-5)
        torch.testing.assert_close(normalized.std(0, correction=0), torch.ones(values.shape[1]), rtol=0, atol=1e-5)
    for name in ("skill_loss", "latent_action_loss"):
        assert result.history[name][-1][1] < 0.8 * result.history[name][0][1]
    assert HierarchicalPolicy.from_pretrained(tmp_path / "policy").config.action_dim is None
    assert AutoImageProcessor.from_pretrained(tmp_path / "policy").size == {"height": 32, "width": 32}


def test_fine_tuning_leaves_the_high_level_as_it_was(tmp_path: Path) -> None:
    policy, dataset = prepared_policy(), make_dataset(robot_labels, CHUNK)
    before = copied(policy)
    result = finetune_policy(policy, dataset, options(FinetuningConfig), output_dir=tmp_path)
    after = copied(policy)
    assert not changed(before, after, "high_level.")
    assert not any(parameter.requires_grad for parameter in policy.high_level.parameters())
    assert changed(before, after, "low_level.vision_encoders.")
    assert changed(before, after, "low_level.action_head.")
    assert result.history["action_loss"][-1][1] < 0.8 * result.history["action_loss"][0][1]
    reloaded = HierarchicalPolicy.from_pretrained(tmp_path / "policy")
    assert reloaded.config.action_dim == ACTION_DIM
    assert AutoImageProcessor.from_pretrained(tmp_path / "policy").size == {"height": 32, "width": 32}


def test_training_with_cached_skills_equals_running_the_frozen_high_level(tmp_path: Path) -> None:
    policy, dataset = prepared_policy(), make_dataset(robot_labels, CHUNK)
    policy.set_statistics(
        actions=(torch.full((ACTION_DIM,), -1.0), torch.ones(ACTION_DIM)),
        agent_pos=(torch.zeros(AGENT_POS_DIM), torch.ones(AGENT_POS_DIM)),
    )
    policy.freeze_high_level()
    language = encode_instructions(policy, dataset)
    skills = predict_skills(policy, dataset, PolicyCollator(language), options(), batch_size=4)
    assert {name: tuple(episode.shape) for name, episode in skills.items()} == dict.fromkeys("012", (LENGTH, SKILL_DIM))
    sample = dataset[11]
    inputs = PolicyCollator(language, skills)([sample])
    assert torch.equal(inputs["predicted_skills"], skills["1"][[2]])
    cached = policy.eval()(**inputs)
    computed = policy(**PolicyCollator(language)([sample]))
    torch.testing.assert_close(cached.action_loss, computed.action_loss, rtol=1e-4, atol=1e-5)


def test_lora_trains_few_parameters_and_saves_adapter_and_merged_policy(tmp_path: Path) -> None:
    policy, dataset = prepared_policy(), make_dataset(robot_labels, CHUNK)
    before = copied(policy)
    config = options(FinetuningConfig, method="lora", lora_rank=2)
    result = finetune_policy(policy, dataset, config, output_dir=tmp_path)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    merged = HierarchicalPolicy.from_pretrained(tmp_path / "policy").eval()
    after = copied(merged)
    assert not changed(before, after, "high_level.")
    assert changed(before, after, "low_level.")
    assert set(after) == set(before)
    for left, right in zip(after.values(), copied(result.model).values(), strict=True):
        assert torch.equal(left, right)
    assert result.history["action_loss"][-1][1] < result.history["action_loss"][0][1]


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_lora_warns_of_nothing(
    gradient_checkpointing: bool,
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = options(FinetuningConfig, method="lora", lora_rank=2, gradient_checkpointing=gradient_checkpointing)
    finetune_policy(prepared_policy(), make_dataset(robot_labels, CHUNK), config, output_dir=tmp_path)
    assert [str(each.message) for each in recwarn] == []
    # What the libraries log, which is not in the recorder.
    assert "warn" not in capfd.readouterr().err.lower()


def test_without_pretraining_both_levels_learn_from_actions(tmp_path: Path) -> None:
    policy = make_policy(detach_skill=False)
    policy.set_statistics(skills=(torch.zeros(SKILL_DIM), torch.ones(SKILL_DIM)))
    policy.prepare_for_finetuning(action_dim=ACTION_DIM, chunk_size=CHUNK)
    before = copied(policy)
    dataset = make_dataset(lambda: {"actions": torch.rand(LENGTH, ACTION_DIM) * 2 - 1}, CHUNK)
    config = options(FinetuningConfig, freeze_high_level=False)
    finetune_policy(policy, dataset, config, output_dir=tmp_path)
    after = copied(policy)
    assert changed(before, after, "high_level.")
    assert changed(before, after, "low_level.")


def test_lora_with_a_trainable_high_level_or_without_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="LoRA adapts the low-level policy alone"):
        options(FinetuningConfig, method="lora", freeze_high_level=False)
    for wrong in ({"lora_rank": 0}, {"lora_alpha": 0}):
        with pytest.raises(ValueError, match="lora_rank and lora_alpha must be at least 1"):
            options(FinetuningConfig, method="lora", **wrong)


def test_an_adapter_does_not_say_where_its_policy_lay(tmp_path: Path) -> None:
    prepared_policy().save_pretrained(tmp_path / "ada" / "base")
    policy = HierarchicalPolicy.from_pretrained(tmp_path / "ada" / "base")
    policy.language_encoder = FakeLanguageEncoder()
    config = options(FinetuningConfig, method="lora", lora_rank=2)
    finetune_policy(policy, make_dataset(robot_labels, CHUNK), config, output_dir=tmp_path / "out")
    adapter = tmp_path / "out" / "adapter"
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"
    written = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".json", ".md", ".jsonl")]
    assert len(written) > 3 and not [path for path in written if "ada/" in path.read_text()]


@pytest.mark.parametrize("changes", [{}, {"method": "lora", "lora_rank": 2}, {"freeze_high_level": False}])
def test_fine_tuning_twice_ends_in_the_same_bytes_whatever_ran_before(tmp_path: Path, changes: dict[str, Any]) -> None:
    base = make_policy()
    base.set_statistics(
        skills=(torch.zeros(SKILL_DIM), torch.ones(SKILL_DIM)),
        latent_actions=(torch.zeros(LATENT_DIM), torch.ones(LATENT_DIM)),
    )
    base.save_pretrained(tmp_path / "base")
    files = []
    for number in range(2):
        torch.manual_seed(number)  # whatever was drawn before must not matter
        policy = HierarchicalPolicy.from_pretrained(tmp_path / "base")
        policy.language_encoder = FakeLanguageEncoder()  # type: ignore[assignment]
        policy.prepare_for_finetuning(action_dim=ACTION_DIM, chunk_size=CHUNK, agent_pos_dim=AGENT_POS_DIM, seed=4)
        config = options(FinetuningConfig, max_steps=3, seed=4, **changes)
        data = make_dataset(robot_labels, CHUNK)
        torch.manual_seed(10 + number)
        finetune_policy(policy, data, config, output_dir=tmp_path / str(number))
        files.append((tmp_path / str(number) / "policy" / "model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_fresh_modules_follow_from_the_seed() -> None:
    heads = []
    for seed, drawn in ((0, 1), (0, 2), (1, 1)):
        policy = make_policy()
        torch.manual_seed(drawn)
        policy.prepare_for_finetuning(action_dim=ACTION_DIM, chunk_size=CHUNK, agent_pos_dim=AGENT_POS_DIM, seed=seed)
        heads.append({name: each for name, each in copied(policy).items() if "action_head" in name})
    first, same, other = heads
    assert first and all(torch.equal(each, same[name]) for name, each in first.items())
    assert any(not torch.equal(each, other[name]) for name, each in first.items())


def test_a_frozen_high_level_is_not_trained_by_a_pretrained_policys_actions_and_a_free_one_is(tmp_path: Path) -> None:
    for frozen in (True, False):
        policy = prepared_policy()
        assert policy.config.detach_skill
        before = copied(policy)
        config = options(FinetuningConfig, max_steps=2, freeze_high_level=frozen)
        finetune_policy(policy, make_dataset(robot_labels, CHUNK), config, output_dir=tmp_path / str(frozen))
        moved = {name for name, value in copied(policy).items() if not torch.equal(value, before[name])}
        of_high = {name for name in before if name.startswith("high_level.")}
        assert len(moved & of_high) >= (0 if frozen else 0.9 * len(of_high)) and bool(moved & of_high) != frozen


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("label", ["actions", "agent_pos", "skills", "latent_actions"])
def test_labels_that_are_no_numbers_are_named_before_training(tmp_path: Path, label: str, value: float) -> None:
    of_robot = label in ("actions", "agent_pos")
    data = make_dataset(robot_labels, CHUNK) if of_robot else make_dataset(video_labels)
    getattr(data.episodes[1], label)[0, 0] = value
    told = f"{label.replace('latent_a', 'latent a')}: .* of .* samples hold NaN or infinity"
    with pytest.raises(ValueError, match=told):
        if of_robot:
            finetune_policy(prepared_policy(), data, options(FinetuningConfig), output_dir=tmp_path)
        else:
            pretrain_policy(make_policy(), data, options(), output_dir=tmp_path)
    assert not list(tmp_path.iterdir())
