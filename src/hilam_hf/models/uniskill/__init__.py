"""UniSkill: continuous latent actions (Kim et al. 2025)."""

from typing import TYPE_CHECKING, Any

from .configuration_uniskill import UniSkillFDMConfig, UniSkillIDMConfig
from .modeling_uniskill_fdm import DiffusionDraws, UniSkillFDM, UniSkillFDMOutput
from .modeling_uniskill_idm import UniSkillIDM, UniSkillIDMOutput

if TYPE_CHECKING:
    from .pipeline_uniskill import UniSkillPipeline

__all__ = [
    "DiffusionDraws",
    "UniSkillFDM",
    "UniSkillFDMConfig",
    "UniSkillFDMOutput",
    "UniSkillIDM",
    "UniSkillIDMConfig",
    "UniSkillIDMOutput",
    "UniSkillPipeline",
]


def __getattr__(name: str) -> Any:
    # The pipeline derives from a class of diffusers, which takes seconds to import.
    if name == "UniSkillPipeline":
        from .pipeline_uniskill import UniSkillPipeline

        return UniSkillPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
