"""Training of policies: pretraining on skills, fine-tuning on demonstrations."""

from .train import FinetuningConfig, finetune_policy, pretrain_policy

__all__ = ["FinetuningConfig", "finetune_policy", "pretrain_policy"]
