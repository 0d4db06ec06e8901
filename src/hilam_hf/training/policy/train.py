"""Training of the hierarchical policy (paper section 3.3): pretraining on skills, fine-tuning on demonstrations."""

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from ...data.samples.policy import PolicyDataset
from ...models.hierarchical import HierarchicalPolicy
from ...models.numerics import is_constant, seeded_weights
from ...optional import require
from ..config import TrainingConfig
from ..loop import TrainingResult, train
from ..processes import gathered, process_state
from ..run_folder import RunFolder, open_run_folder
from ..saving import save_model
from .collator import PolicyCollator, encode_instructions

WRITES = ("policy",)
BAKU_TRAINING: dict[str, Any] = {
    "global_batch_size": 64,
    "learning_rate": 1e-4,
    "max_grad_norm": None,
    "schedule": "constant_with_warmup",
    "warmup_steps": 0,
    "weight_decay": 1e-4,
}
"""Training options as published with BAKU, whose trunk both levels are (its config.yaml and agent/baku.py): what the
commands start from. Its NLL has gradient norms near 20, so that clipping at 1 would be at work in every step."""


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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora_rank < 1 or self.lora_alpha < 1:
            raise ValueError(
                f"lora_rank and lora_alpha must be at least 1, got {self.lora_rank} and {self.lora_alpha}; "
                "use method=full to train without LoRA"
            )
        if self.method == "lora" and not self.freeze_high_level:
            raise ValueError("LoRA adapts the low-level policy alone; set freeze_high_level=true or method=full")


def pretrain_policy(
    policy: HierarchicalPolicy,
    dataset: PolicyDataset,
    config: TrainingConfig,
    *,
    output_dir: str | Path | RunFolder,
    held_out: PolicyDataset | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> TrainingResult:
    """Trains π^h to predict skills and π^l, given π^h's prediction, latent actions; saves `output_dir/policy`.

    Args:
        policy: The policy in its pretraining phase; it takes the statistics of the labels.
        dataset: Samples with skills and latent actions, of `PolicyDataset.from_skill_corpus`.
        config: Training options.
        output_dir: Folder for checkpoints, history and the trained policy.
        held_out: Samples of other episodes to validate on every `config.validate_every` steps.
        resume: Go on with the run that is in `output_dir`.
        overwrite: Replace it.

    Raises:
        ValueError: A label is no number; or as [`train`].
    """
    skills = torch.cat([episode.skills[episode.segments] for episode in dataset.episodes])  # type: ignore[index]
    latents = torch.cat([episode.latent_actions for episode in dataset.episodes])  # type: ignore[misc]
    policy.set_statistics(skills=_mean_std("skills", skills), latent_actions=_mean_std("latent actions", latents))
    with open_run_folder(output_dir, resume=resume, overwrite=overwrite, writes=WRITES) as folder:
        result = train(
            policy,
            dataset,
            config,
            collate_fn=PolicyCollator(encode_instructions(policy, *_given(dataset, held_out))),
            output_dir=folder,
            held_out=held_out,
            description="pretraining the policy",
        )
        result.note_in(policy.config)
        save_model(policy, folder.path / "policy")
    return result


def finetune_policy(
    policy: HierarchicalPolicy,
    dataset: PolicyDataset,
    config: FinetuningConfig,
    *,
    output_dir: str | Path | RunFolder,
    held_out: PolicyDataset | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> TrainingResult:
    """Fine-tunes π^l on demonstrations and saves the policy that acts as `output_dir/policy`.

    With LoRA the adapter alone is saved, too, as `output_dir/adapter`, and merged into the saved policy.

    Args:
        policy: A policy whose `prepare_for_finetuning` has been called; it takes the statistics of the demonstrations.
        dataset: Samples with actions, of `PolicyDataset.from_demonstrations`.
        config: Training options.
        output_dir: Folder for checkpoints, history and the trained policy.
        held_out: Samples of other episodes to validate on every `config.validate_every` steps.
        resume: Go on with the run that is in `output_dir`.
        overwrite: Replace it.

    Raises:
        ValueError: An action or proprioception is no number; or as [`train`].
        ImportError: If LoRA is asked for without peft.
    """
    actions = torch.cat([episode.actions for episode in dataset.episodes])  # type: ignore[misc]
    check_finite("actions", actions)
    policy.set_statistics(actions=(actions.amin(0), actions.amax(0)))
    if policy.agent_pos_normalizer is not None:
        agent_pos = torch.cat([episode.agent_pos for episode in dataset.episodes])  # type: ignore[misc]
        policy.set_statistics(agent_pos=_mean_std("agent_pos", agent_pos))
    policy.freeze_high_level(config.freeze_high_level)
    if not config.freeze_high_level:
        # Otherwise no gradient of the actions reaches π^h.
        policy.config.detach_skill = False
    with open_run_folder(output_dir, resume=resume, overwrite=overwrite, writes=WRITES) as folder:
        collate = _finetuning_collator(policy, config, *_given(dataset, held_out))
        trained: Any = _with_lora(policy, config) if config.method == "lora" else policy
        result = train(
            trained,
            dataset,
            config,
            collate_fn=collate,
            output_dir=folder,
            held_out=held_out,
            description="fine-tuning the policy",
        )
        result.note_in(policy.config)
        if config.method == "lora":
            # Otherwise peft asks the Hub for the policy, by its name, to compare vocabularies.
            save_model(trained, folder.path / "adapter", save_embedding_layers=False)
            policy = trained.merge_and_unload()
        save_model(policy, folder.path / "policy")
    return dataclasses.replace(result, model=policy)


def _given(dataset: PolicyDataset, held_out: PolicyDataset | None) -> list[PolicyDataset]:
    return [dataset] if held_out is None else [dataset, held_out]


def _finetuning_collator(
    policy: HierarchicalPolicy, config: FinetuningConfig, *datasets: PolicyDataset
) -> PolicyCollator:
    """Makes batches; where π^h is frozen, its skills come with them, computed once."""
    language = encode_instructions(policy, *datasets)
    if not config.freeze_high_level:
        return PolicyCollator(language)
    skills = [predict_skills(policy, each, PolicyCollator(language), config) for each in datasets]
    return PolicyCollator(language, {name: values for each in skills for name, values in each.items()})


def _with_lora(policy: HierarchicalPolicy, config: FinetuningConfig) -> Any:
    peft = require("peft", extra="peft")
    targets = policy.low_level_lora_targets()
    with seeded_weights(config.seed), warnings.catch_warnings():
        # PEFT asks transformers whether activations are checkpointed by the name that this had before.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        return peft.get_peft_model(policy, peft.LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, **targets))


@torch.no_grad()
def predict_skills(
    policy: HierarchicalPolicy,
    dataset: PolicyDataset,
    collate: PolicyCollator,
    config: TrainingConfig,
    batch_size: int = 256,
) -> dict[str, Tensor]:
    """π^h's skills (N, S) of the N samples of every episode, by its id, in evaluation mode.

    Every process of a launch computes its share on its device. The skills equal those of π^h run in the training loop
    with the same precision.
    """
    state = process_state()
    training = policy.training
    policy.to(state.device).eval()
    share = -(-len(dataset) // state.num_processes)
    own = range(len(dataset))[state.process_index * share : (state.process_index + 1) * share]
    loader = DataLoader(Subset(dataset, own), batch_size=batch_size, collate_fn=collate, num_workers=config.num_workers)
    skills = [torch.zeros(0, policy.config.skill_dim)]
    dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.mixed_precision]
    shown = tqdm(loader, "skills of the demonstrations", leave=False, disable=not state.is_main_process)
    for batch in shown:
        batch = send_to_device(batch, state.device)
        with torch.autocast(state.device.type, dtype, enabled=dtype is not None):
            predicted = policy.predict_skills(batch["pixels"], batch["language"], batch.get("agent_pos"))
        skills.append(predicted.float().cpu())
    policy.train(training)
    lengths = [len(episode.frame_indices) for episode in dataset.episodes]
    everyone = torch.cat(gathered(torch.cat(skills)))
    ids = [episode.id for episode in dataset.episodes]
    return dict(zip(ids, everyone.split(lengths), strict=True))


def check_finite(what: str, values: Tensor) -> None:
    """Checks labels (N, D) before a model takes statistics of them.

    Raises:
        ValueError: Some are no numbers, with how many.
    """
    bad = int((~torch.isfinite(values)).any(-1).sum())
    if bad:
        raise ValueError(f"{what}: {bad} of {len(values)} samples hold NaN or infinity; make the labels again without")


def _mean_std(what: str, values: Tensor) -> tuple[Tensor, Tensor]:
    """Statistics of (N, D) values; a constant dimension gets a deviation of 1, so that it is predicted like others."""
    check_finite(what, values)
    mean, std = values.mean(0), values.std(0, correction=0)
    return mean, torch.where(is_constant(mean, std), 1, std)
