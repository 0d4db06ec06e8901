"""H-Net: dynamic chunking and the recursive backbone, usable on their own."""

from .cache import LevelCache
from .configuration_hnet import HNetConfig
from .dynamic_chunking import Chunks, RoutingModule, RoutingOutput, chunk, dechunk, ratio_loss
from .modeling_hnet import HNetModel, HNetOutput, HNetPreTrainedModel, HNetStageOutput
from .packing import SequenceLayout
from .scan import ema

__all__ = [
    "Chunks",
    "HNetConfig",
    "HNetModel",
    "HNetOutput",
    "HNetPreTrainedModel",
    "HNetStageOutput",
    "LevelCache",
    "RoutingModule",
    "RoutingOutput",
    "SequenceLayout",
    "chunk",
    "dechunk",
    "ema",
    "ratio_loss",
]
