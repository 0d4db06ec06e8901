"""UniSkill: continuous latent actions (Kim et al. 2025)."""

from typing import TYPE_CHECKING, Any

from .configuration_uniskill import RegressionFDMConfig, UniSkillFDMConfig, UniSkillIDMConfig
from .modeling_regression_fdm import RegressionFDM, RegressionFDMOutput
from .modeling_uniskill_fdm import DiffusionDraws, UniSkillFDM, UniSkillFDMOutput
from .modeling_uniskill_idm import UniSkillIDM, UniSkillIDMOutput
from .processing_uniskill import UniSkillImageProcessorPil

if TYPE_CHECKING:
    from .pipeline_uniskill import UniSkillPipeline

__all__ = [
    "DiffusionDraws",
    "RegressionFDM",
    "RegressionFDMConfig",
    "RegressionFDMOutput",
    "UniSkillFDM",
    "UniSkillFDMConfig",
    "UniSkillFDMOutput",
    "UniSkillIDM",
    "UniSkillIDMConfig",
    "UniSkillIDMOutput",
    "UniSkillImageProcessorPil",
    "UniSkillPipeline",
]


def __getattr__(name: str) -> Any:
    # The pipeline derives from a class of diffusers, which takes seconds to import.
    if name == "UniSkillPipeline":
        from .pipeline_uniskill import UniSkillPipeline

        return UniSkillPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
