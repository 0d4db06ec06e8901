"""BAKU: a causal transformer over one token per modality, and the flat policy that acts with it."""

from .configuration_baku import BakuConfig
from .convert_baku import convert_published_state_dict, load_published_weights
from .modeling_baku import BakuModel, BakuOutput
from .policy_baku import BakuPolicy

__all__ = [
    "BakuConfig",
    "BakuModel",
    "BakuOutput",
    "BakuPolicy",
    "convert_published_state_dict",
    "load_published_weights",
]
