"""The policy half of the demo: pretraining on skills, fine-tuning on few demonstrations, rollouts."""

from typing import Any

import torch

from ..data.corpora.corpus import load_corpus
from ..data.corpora.info import CorpusInfo
from ..data.demonstrations.loader import load_demonstrations
from ..data.samples.policy import PolicyDataset
from ..envs.registry import get_simulator
from ..evaluation import evaluate
from ..models.hierarchical import HierarchicalPolicy
from ..training.policy.models import new_policy
from ..training.policy.train import finetune_policy, pretrain_policy
from ..training.run_folder import holds_run
from ..viz import plot_training_curves, save_figure
from .config import SIMULATOR, DemoConfig
from .paths import DemoPaths
from .video_steps import load_episodes

WITH, WITHOUT = "with_pretraining", "without_pretraining"


def untrained_policy(config: DemoConfig, info: CorpusInfo, *, detach_skill: bool = True) -> HierarchicalPolicy:
    """The demo's policy as it starts."""
    return new_policy(
        info,
        stage=config.skill_stage,
        cameras=[config.camera],
        image_size=config.image_size,
        trunk=config.policy,
        detach_skill=detach_skill,
        seed=config.seed,
    )


def pretrain(config: DemoConfig, paths: DemoPaths) -> dict[str, Any]:
    """Pretrains both levels on videos labelled with skills and latent actions."""
    info = CorpusInfo.from_card(paths.latent_skills)
    dataset = PolicyDataset.from_skill_corpus(
        load_corpus(paths.latent_skills),
        [episode for episodes in load_episodes(config, paths) for episode in episodes],
        config.image_size,
        config.skill_stage,
        info=info,
        camera=config.camera,
    )
    result = pretrain_policy(
        untrained_policy(config, info),
        dataset,
        config.seeded(config.pretraining),
        output_dir=paths.pretraining,
        resume=holds_run(paths.pretraining),
    )
    curves = {name: result.history[name] for name in ("skill_loss", "latent_action_loss")}
    save_figure(plot_training_curves(curves), paths.figure("pretraining"))
    last = {name: values[-1][1] for name, values in curves.items()}
    return {
        **last,
        "detail": f"Of the labels' variance stay unexplained: skills {last['skill_loss']:.0%}, "
        f"latent actions {last['latent_action_loss']:.0%}.",
    }


def finetune(config: DemoConfig, paths: DemoPaths, arm: str) -> dict[str, Any]:
    """Fine-tunes the low level on the demonstrations; without pretraining both levels learn from them end to end."""
    demonstrations = load_demonstrations(paths.recordings, tasks=config.tasks, per_task=config.demonstrations_per_task)
    dataset = PolicyDataset.from_demonstrations(demonstrations, config.image_size, config.chunk_size)
    options = config.seeded(config.finetuning)
    if arm == WITH:
        policy = HierarchicalPolicy.from_pretrained(paths.pretraining / "policy")
    else:
        policy = untrained_policy(config, CorpusInfo.from_card(paths.latent_skills), detach_skill=False)
        unit = torch.ones(policy.config.skill_dim)
        policy.set_statistics(skills=(0 * unit, unit))
        options.freeze_high_level = False
    sample = dataset[0]
    policy.prepare_for_finetuning(
        action_dim=sample["actions"].shape[-1],
        chunk_size=config.chunk_size,
        agent_pos_dim=sample["agent_pos"].shape[-1],
        seed=config.seed,
    )
    folder = paths.finetuning(arm)
    result = finetune_policy(policy, dataset, options, output_dir=folder, resume=holds_run(folder))
    save_figure(plot_training_curves({"action_loss": result.history["action_loss"]}), paths.figure(f"finetuning_{arm}"))
    last = result.history["action_loss"][-1][1]
    return {
        "action_loss": last,
        "steps": result.steps,
        "demonstrations": len(demonstrations),
        "detail": f"Action loss {last:.4f} after {result.steps} steps on {len(demonstrations)} demonstrations.",
    }


def roll_out(config: DemoConfig, paths: DemoPaths, arm: str) -> dict[str, Any]:
    """Rolls a fine-tuned policy out from initial states that no demonstration started from."""
    result = evaluate(
        HierarchicalPolicy.from_pretrained(paths.finetuning(arm) / "policy").eval(),
        config.tasks,
        protocol=get_simulator(SIMULATOR)
        .protocol()
        .with_options(cameras=(config.camera,), image_size=config.image_size, max_steps={"": config.max_steps}),
        episodes=config.rollouts_per_task,
        num_envs=config.num_workers,
        seed=config.seed,
        out_dir=paths.evaluation(arm),
        policy_name=paths.relative(paths.finetuning(arm) / "policy"),
    )
    return {
        "overall": _success(result.overall),
        "tasks": {task: _success(rate) for task, rate in result.tasks.items()},
        "videos": [episode.video for episode in result.episodes if episode.video is not None],
        "detail": "; ".join(f"{task} {rate.successes}/{rate.trials}" for task, rate in result.tasks.items()),
    }


def _success(rate: Any) -> dict[str, Any]:
    low, high = rate.interval
    return {"successes": rate.successes, "trials": rate.trials, "rate": rate.rate, "low": low, "high": high}
