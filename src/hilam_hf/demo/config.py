"""Sizes of the demo: one set for two CPU cores and a quarter of an hour, one as small as it goes."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ..training import TrainingConfig
from ..training.policy.train import FinetuningConfig

SIMULATOR = "metaworld"
TASKS = ("drawer-open", "door-open", "button-press-topdown")


@dataclass(kw_only=True)
class DemoConfig:
    """What the demo does, and how much of it.

    Attributes:
        tasks: Tasks of the simulator.
        videos: A folder of videos to use instead of recordings; then the demo ends with the skills.
        seed: Seed of recordings, weights, order of samples and rollouts.
        image_size: Side in pixels of recordings and of the frames that models see.
        camera: Camera that records, and that the policy sees.
        episodes_per_task: Expert episodes recorded of each task; their videos are the corpus without actions.
        expert_noise: Standard deviation of the noise on the expert's actions.
        held_out_fraction: Fraction of the episodes that no model trains on, by their ids; of few episodes the nearest
            fraction that holds out one and not all.
        stride: k, frames between the two frames of a latent action, for recordings.
        stride_seconds: The same in seconds, for `videos`, which may differ in rate.
        lam: Training of the latent action model.
        idm: Options of `UniSkillIDMConfig`.
        fdm: Options of `RegressionFDMConfig`.
        hilam: Training of HiLAM.
        hilam_model: Options of `HiLAMConfig.preset("tiny", ...)`.
        skill_stage: Stage whose tokens the high-level policy learns to predict (2 in the paper).
        policy: Options of both BAKU trunks.
        pretraining: Training of the policy on the skill corpus.
        demonstrations_per_task: Labelled demonstrations of each task.
        chunk_size: Actions that the low-level policy predicts at a time.
        finetuning: Fine-tuning on the demonstrations, with and without pretraining alike.
        rollouts_per_task: Episodes of each task that a policy is evaluated on.
        max_steps: Control steps after which an episode has failed.
        num_workers: Parallel simulators.
        timelines: Skill timelines to draw.
    """

    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    videos: str | None = None
    seed: int = 0
    image_size: int = 64
    camera: str = "workspace"
    episodes_per_task: int = 30
    expert_noise: float = 0.1
    held_out_fraction: float = 0.1
    stride: int = 5
    stride_seconds: float = 0.5
    lam: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(max_steps=500, global_batch_size=32, learning_rate=1e-3)
    )
    idm: dict[str, Any] = field(default_factory=lambda: {"hidden_size": 96, "num_hidden_layers": 3})
    fdm: dict[str, Any] = field(default_factory=lambda: {"hidden_size": 48})
    hilam: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(max_steps=600, global_batch_size=16, learning_rate=1e-3)
    )
    hilam_model: dict[str, Any] = field(default_factory=lambda: {"target_ratios": [4.0, 3.0], "lambda_ratio": 0.1})
    skill_stage: int = 2
    policy: dict[str, Any] = field(
        default_factory=lambda: {
            "vision_widths": [32, 64],
            "num_keypoints": 64,
            "token_dim": 128,
            "hidden_size": 128,
            "num_layers": 4,
            "num_heads": 4,
        }
    )
    pretraining: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(max_steps=600, global_batch_size=64, learning_rate=5e-4)
    )
    demonstrations_per_task: int = 3
    chunk_size: int = 10
    finetuning: FinetuningConfig = field(
        default_factory=lambda: FinetuningConfig(max_steps=150, global_batch_size=64, learning_rate=5e-4)
    )
    rollouts_per_task: int = 20
    max_steps: int = 150
    num_workers: int = 2
    timelines: int = 6

    @classmethod
    def smallest(cls) -> "DemoConfig":
        """The main job in miniature: every step and artifact, no meaningful result."""
        few: dict[str, Any] = {"max_steps": 4, "global_batch_size": 4, "warmup_steps": 1, "log_every": 2}
        return cls(
            tasks=["drawer-open"],
            image_size=32,
            episodes_per_task=3,
            lam=TrainingConfig(**few),
            idm={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            fdm={"hidden_size": 16, "num_blocks": 1},
            hilam=TrainingConfig(**few),
            policy={
                "vision_widths": [8, 16],
                "num_keypoints": 8,
                "token_dim": 32,
                "hidden_size": 32,
                "num_layers": 1,
                "num_heads": 2,
            },
            pretraining=TrainingConfig(**few),
            demonstrations_per_task=2,
            chunk_size=4,
            finetuning=FinetuningConfig(**few),
            rollouts_per_task=1,
            max_steps=10,
            timelines=2,
        )

    @property
    def stride_options(self) -> dict[str, Any]:
        """k as data sets and extraction take it."""
        return {"stride": self.stride} if self.videos is None else {"stride_seconds": self.stride_seconds}

    def seeded(self, training: Any) -> Any:
        """A stage's training options with the demo's seed."""
        return dataclasses.replace(training, seed=self.seed)
