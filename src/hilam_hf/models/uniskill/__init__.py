"""UniSkill: continuous latent actions (Kim et al. 2025)."""

from typing import TYPE_CHECKING

from ...lazy import import_when_used
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


# The pipeline derives from a class of diffusers, which takes seconds to import.
__getattr__, __dir__ = import_when_used(__name__, {"UniSkillPipeline": "pipeline_uniskill"})
