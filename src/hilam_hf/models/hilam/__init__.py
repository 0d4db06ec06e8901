"""HiLAM: next-latent prediction, its losses, and the extraction of skills."""

from .configuration_hilam import HiLAMConfig
from .modeling_hilam import HiLAMModel, HiLAMOutput, HiLAMPreTrainedModel
from .skills import SkillExtraction, SkillStage, segment_ids, unfold, unfold_boundaries

__all__ = [
    "HiLAMConfig",
    "HiLAMModel",
    "HiLAMOutput",
    "HiLAMPreTrainedModel",
    "SkillExtraction",
    "SkillStage",
    "segment_ids",
    "unfold",
    "unfold_boundaries",
]
