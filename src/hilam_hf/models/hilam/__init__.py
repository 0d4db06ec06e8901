"""HiLAM: next-latent prediction, its losses, and the extraction of skills, from whole videos or while they run."""

from .configuration_hilam import HiLAMConfig
from .modeling_hilam import HiLAMModel, HiLAMOutput, HiLAMPreTrainedModel
from .skills import SegmentPieces, SkillExtraction, SkillStage, segment_ids, unfold, unfold_boundaries
from .streaming import SkillStream, StreamedStage, StreamedStep

__all__ = [
    "HiLAMConfig",
    "HiLAMModel",
    "HiLAMOutput",
    "HiLAMPreTrainedModel",
    "SegmentPieces",
    "SkillExtraction",
    "SkillStage",
    "SkillStream",
    "StreamedStage",
    "StreamedStep",
    "segment_ids",
    "unfold",
    "unfold_boundaries",
]
