"""Training of the hierarchical policy (paper section 3.3): pretraining on skills, fine-tuning on demonstrations."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ...data.samples.policy import PolicyDataset
from ...models.hierarchical import HierarchicalPolicy
from ...models.numerics import is_constant
from ...optional import require
from ..config import TrainingConfig
from ..loop import TrainingResult, save_model, train
from .collator import PolicyCollator, encode_instructions


@dataclass(kw_only=True)
class FinetuningConfig(TrainingConfig):
    """Options of fine-tuning besides those of every training run.

    Attributes:
        method: "full" trains all of π^l, "lora" adapts its layers with low-rank matrices and trains fresh heads whole.
        freeze_high_level: Keep π^h as pretrained (the paper's way). Off, both levels learn from the actions, which is
            the baseline without pretraining.
        lora_rank: Rank of LoRA's matrices.
        lora_alpha: LoRA's scale, divided by the rank.
    """

    method: Literal["full", "lora"] = "full"
    freeze_high_level: bool = True
    lora_rank: int = 16
    lora_alpha: int = 32


def pretrain_policy(
    policy: HierarchicalPolicy,
    dataset: PolicyDataset,
    config: TrainingConfig,
    *,
    output_dir: str | Path,
    resume: bool = False,
) -> TrainingResult:
    """Trains π^h to predict skills and π^l, given π^h's prediction, latent actions; saves `output_dir/policy`.

    Args:
        policy: The policy in its pretraining phase; it takes the statistics of the labels.
        dataset: Samples with skills and latent actions, of `PolicyDataset.from_skill_corpus`.
        config: Training options.
        output_dir: Folder for checkpoints, history and the trained policy.
        resume: Continue from the latest checkpoint in `output_dir`.
    """
    skills = torch.cat([episode.skills[episode.segments] for episode in dataset.episodes])  # type: ignore[index]
    latents = torch.cat([episode.latent_actions for episode in dataset.episodes])  # type: ignore[misc]
    policy.set_statistics(skills=_mean_std(skills), latent_actions=_mean_std(latents))
    result = train(
        policy,
        dataset,
        config,
        collate_fn=PolicyCollator(encode_instructions(policy, dataset)),
        output_dir=output_dir,
        resume=resume,
        description="pretraining the policy",
    )
    save_model(policy, Path(output_dir) / "policy")
    return result


def finetune_policy(
    policy: HierarchicalPolicy,
    dataset: PolicyDataset,
    config: FinetuningConfig,
    *,
    output_dir: str | Path,
    resume: bool = False,
) -> TrainingResult:
    """Fine-tunes π^l on demonstrations and saves the policy that acts as `output_dir/policy`.

    With LoRA the adapter alone is saved, too, as `output_dir/adapter`, and merged into the saved policy.

    Args:
        policy: A policy whose `prepare_for_finetuning` has been called; it takes the statistics of the demonstrations.
        dataset: Samples with actions, of `PolicyDataset.from_demonstrations`.
        config: Training options.
        output_dir: Folder for checkpoints, history and the trained policy.
        resume: Continue from the latest checkpoint in `output_dir`.

    Raises:
        ValueError: If LoRA is asked for with π^h unfrozen.
        ImportError: If LoRA is asked for without peft.
    """
    if config.method == "lora" and not config.freeze_high_level:
        raise ValueError("LoRA adapts the low-level policy alone; set freeze_high_level=True or method='full'")
    actions = torch.cat([episode.actions for episode in dataset.episodes])  # type: ignore[misc]
    policy.set_statistics(actions=(actions.amin(0), actions.amax(0)))
    if policy.agent_pos_normalizer is not None:
        agent_pos = torch.cat([episode.agent_pos for episode in dataset.episodes])  # type: ignore[misc]
        policy.set_statistics(agent_pos=_mean_std(agent_pos))
    language = encode_instructions(policy, dataset)
    collate = PolicyCollator(language)
    policy.freeze_high_level(config.freeze_high_level)
    if config.freeze_high_level:
        collate = PolicyCollator(language, predict_skills(policy, dataset, collate))
    trained: Any = _with_lora(policy, config) if config.method == "lora" else policy
    result = train(
        trained,
        dataset,
        config,
        collate_fn=collate,
        output_dir=output_dir,
        resume=resume,
        description="fine-tuning the policy",
    )
    if config.method == "lora":
        # Otherwise peft asks the Hub for the policy, by its name, to compare vocabularies.
        save_model(trained, Path(output_dir) / "adapter", save_embedding_layers=False)
        policy = trained.merge_and_unload()
    save_model(policy, Path(output_dir) / "policy")
    return dataclasses.replace(result, model=policy)


def _with_lora(policy: HierarchicalPolicy, config: FinetuningConfig) -> Any:
    peft = require("peft", extra="peft")
    targets = policy.low_level_lora_targets()
    return peft.get_peft_model(policy, peft.LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, **targets))


@torch.no_grad()
def predict_skills(
    policy: HierarchicalPolicy, dataset: PolicyDataset, collate: PolicyCollator, batch_size: int = 256
) -> list[Tensor]:
    """π^h's skills (N, S) of the N samples of every episode, in evaluation mode."""
    training = policy.training
    policy.eval()
    skills = []
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=collate)
    for batch in tqdm(loader, desc="skills of the demonstrations", leave=False, dynamic_ncols=True):
        pixels = {camera: frames.to(policy.device) for camera, frames in batch["pixels"].items()}
        skills.append(policy.predict_skills(pixels, batch["language"].to(policy.device)).cpu())
    policy.train(training)
    lengths = [len(episode.frame_indices) for episode in dataset.episodes]
    return list(torch.cat(skills).split(lengths))


def _mean_std(values: Tensor) -> tuple[Tensor, Tensor]:
    """Statistics of (N, D) values; a constant dimension gets a deviation of 1, so that it is predicted like others."""
    mean, std = values.mean(0), values.std(0, correction=0)
    return mean, torch.where(is_constant(mean, std), 1, std)
