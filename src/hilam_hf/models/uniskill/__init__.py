"""UniSkill: continuous latent actions (Kim et al. 2025)."""

from .configuration_uniskill import RegressionFDMConfig, UniSkillIDMConfig
from .modeling_regression_fdm import RegressionFDM, RegressionFDMOutput
from .modeling_uniskill_idm import UniSkillIDM, UniSkillIDMOutput
from .processing_uniskill import UniSkillImageProcessorPil

__all__ = [
    "RegressionFDM",
    "RegressionFDMConfig",
    "RegressionFDMOutput",
    "UniSkillIDM",
    "UniSkillIDMConfig",
    "UniSkillIDMOutput",
    "UniSkillImageProcessorPil",
]
