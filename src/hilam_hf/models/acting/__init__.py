"""What every policy that acts shares: observations, language, history, normalisation, execution of chunks.

A policy derives from [`ActingMixin`], its config from [`ActingConfig`]; what acting has to know of its networks is
[`TrunkConfig`].
"""

from ...acting_spec import ActingSpec
from .configuration_acting import ActingConfig, TrunkConfig
from .execution import OpenLoop, TemporalAggregator
from .language import LanguageEncoder
from .normalization import Normalizer
from .observation import PolicyInputs
from .policy import ActingMixin

__all__ = [
    "ActingConfig",
    "ActingMixin",
    "ActingSpec",
    "LanguageEncoder",
    "Normalizer",
    "OpenLoop",
    "PolicyInputs",
    "TemporalAggregator",
    "TrunkConfig",
]
