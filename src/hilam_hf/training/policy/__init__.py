"""Training of policies: pretraining on skills, fine-tuning on demonstrations."""

from .collator import PolicyCollator
from .models import new_policy
from .train import FinetuningConfig, finetune_policy, pretrain_policy

__all__ = ["FinetuningConfig", "PolicyCollator", "finetune_policy", "new_policy", "pretrain_policy"]
