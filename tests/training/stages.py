"""Every stage of training, small enough to be run in many ways, with batches whose parts differ in what counts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from hilam_hf.data import CorpusInfo, load_corpus, write_latent_action_corpus
from hilam_hf.data.samples.policy import PolicyDataset, PolicyEpisode
from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel
from hilam_hf.training import TrainingConfig
from hilam_hf.training.hilam import train_hilam
from hilam_hf.training.lam import train_lam
from hilam_hf.training.lam.models import new_latent_action_model
from hilam_hf.training.policy.train import FinetuningConfig, finetune_policy, pretrain_policy
from hilam_hf.training.processes import main_process_does
from tests.models.hierarchical.test_hierarchical import (
    ACTION_DIM,
    AGENT_POS_DIM,
    CHUNK,
    LATENT_DIM,
    SKILL_DIM,
    FakeLanguageEncoder,
    tiny_config,
)
from tests.models.uniskill.test_uniskill import tiny_fdm
from tests.training.hilam.test_continuous import StillFrames
from tests.training.lam.moving_bars import MovingBars
from tests.training.lam.test_train import OPTIONS
from tests.training.policy.test_train import Frames, video_labels

LENGTHS = [4, 200, 9, 57, 120, 31, 5, 80]
# A step is one batch, whose gradient AdamW's first moment then is, but for a factor.
BATCH = 8


def options(kind: type[TrainingConfig] = TrainingConfig, **changes: Any) -> Any:
    values = {"max_steps": 1, "global_batch_size": BATCH, "warmup_steps": 0, "log_every": 1, "save_every": 1}
    return kind(**values | {"max_grad_norm": None} | changes)


def lam(folder: Path, kind: str, **changes: Any) -> Any:
    idm, fdm = new_latent_action_model(kind, options=OPTIONS[kind], seed=0)
    pairs = MovingBars(fdm.config.image_size, idm.config.image_size)
    return train_lam(idm, fdm, pairs, options(**changes), output_dir=folder / "run")


def hilam(folder: Path, reconstruct: bool = False, held_out: Sequence[int] = (), **changes: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    rows = [
        {
            "id": str(number),
            "fps": 10.0,
            "num_frames": length + 2,
            "latent_actions": torch.randn(length, 3, generator=generator).cumsum(0),
        }
        for number, length in enumerate(LENGTHS)
    ]
    corpus = folder / "corpus"
    info = CorpusInfo(model="m", latent_dim=3, stride=2)
    main_process_does(lambda: write_latent_action_corpus(corpus, rows, info=info))
    torch.manual_seed(0)
    model = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=3, stride=2))
    partner: dict[str, Any] = {}
    if reconstruct:
        fdm = tiny_fdm(latent_dim=3)
        torch.manual_seed(1)
        torch.nn.init.normal_(fdm.out_conv.weight, std=0.05)
        partner = {"forward_dynamics": fdm, "frames": StillFrames()}
    partner |= {"output_dir": folder / "run", "held_out": held_out}
    return train_hilam(model, load_corpus(corpus), CorpusInfo.from_card(corpus), options(**changes), **partner)


def policy_and_data(labels: Callable[[int], dict[str, torch.Tensor]], chunk_size: int) -> tuple[Any, PolicyDataset]:
    from hilam_hf.models.hierarchical import HierarchicalPolicy

    torch.manual_seed(0)
    still = {"dropout": 0.0}
    policy = HierarchicalPolicy(tiny_config(high=still, low=still))
    policy.language_encoder = FakeLanguageEncoder()  # type: ignore[assignment]
    torch.manual_seed(1)
    episodes = []
    for number, length in enumerate((9, 2, 7)):
        kept = {name: values[:length] if name != "skills" else values for name, values in labels(9).items()}
        indices = torch.arange(length)
        episodes.append(PolicyEpisode(id=str(number), language=f"task {number}", frame_indices=indices, **kept))
    return policy, PolicyDataset(episodes, Frames(3), camera="front", chunk_size=chunk_size)


def pretraining(folder: Path, **changes: Any) -> Any:
    policy, data = policy_and_data(lambda _: video_labels(), 1)
    return pretrain_policy(policy, data, options(**changes), output_dir=folder / "run")


def finetuning(folder: Path, **changes: Any) -> Any:
    # Near the end of an episode most of a chunk is padding.
    policy, data = policy_and_data(
        lambda length: {
            "actions": torch.rand(length, ACTION_DIM) * 2 - 1,
            "agent_pos": torch.randn(length, AGENT_POS_DIM),
        },
        CHUNK,
    )
    policy.set_statistics(
        skills=(torch.zeros(SKILL_DIM), torch.ones(SKILL_DIM)),
        latent_actions=(torch.zeros(LATENT_DIM), torch.ones(LATENT_DIM)),
    )
    policy.prepare_for_finetuning(action_dim=ACTION_DIM, chunk_size=CHUNK, agent_pos_dim=AGENT_POS_DIM)
    return finetune_policy(policy, data, options(FinetuningConfig, **changes), output_dir=folder / "run")


STAGES: dict[str, Callable[..., Any]] = {
    "uniskill-light": lambda folder, **changes: lam(folder, "uniskill-light", **changes),
    "hilam": hilam,
    "hilam with frames": lambda folder, **changes: hilam(folder, reconstruct=True, **changes),
    "pretraining": pretraining,
    "fine-tuning": finetuning,
    "fine-tuning both levels": lambda folder, **changes: finetuning(folder, freeze_high_level=False, **changes),
    "LoRA": lambda folder, **changes: finetuning(folder, method="lora", lora_rank=2, **changes),
}
