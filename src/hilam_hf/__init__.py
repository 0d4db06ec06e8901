"""hilam-hf: hierarchical latent actions on the Hugging Face Hub.

Turns action-free video into latent actions, latent actions into variable-length latent skills, and skills into robot
policies (HiLAM, Kim, Pinto and Kim 2026). The public names below are imported when first used.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ._auto_registration import register_with_libraries

# For type checkers and editors, which do not see names that are imported when used.
if TYPE_CHECKING:
    from .models.auto import AutoForwardDynamicsModel, AutoInverseDynamicsModel
    from .models.baku import BakuConfig, BakuPolicy
    from .models.hierarchical import HierarchicalPolicy, HierarchicalPolicyConfig
    from .models.hilam import HiLAMConfig, HiLAMModel, SkillExtraction, SkillStream, StreamedStep
    from .models.hnet import HNetConfig, HNetModel
    from .models.uniskill import (
        RegressionFDM,
        RegressionFDMConfig,
        UniSkillFDM,
        UniSkillFDMConfig,
        UniSkillIDM,
        UniSkillIDMConfig,
        UniSkillImageProcessorPil,
        UniSkillPipeline,
    )

__version__ = version("hilam-hf")

_MODULES = {
    "AutoForwardDynamicsModel": "models.auto",
    "AutoInverseDynamicsModel": "models.auto",
    "BakuConfig": "models.baku",
    "BakuPolicy": "models.baku",
    "HNetConfig": "models.hnet",
    "HNetModel": "models.hnet",
    "HiLAMConfig": "models.hilam",
    "HiLAMModel": "models.hilam",
    "HierarchicalPolicy": "models.hierarchical",
    "HierarchicalPolicyConfig": "models.hierarchical",
    "RegressionFDM": "models.uniskill",
    "RegressionFDMConfig": "models.uniskill",
    "SkillExtraction": "models.hilam",
    "SkillStream": "models.hilam",
    "StreamedStep": "models.hilam",
    "UniSkillFDM": "models.uniskill",
    "UniSkillFDMConfig": "models.uniskill",
    "UniSkillIDM": "models.uniskill",
    "UniSkillIDMConfig": "models.uniskill",
    "UniSkillImageProcessorPil": "models.uniskill",
    "UniSkillPipeline": "models.uniskill",
}

__all__ = [
    "AutoForwardDynamicsModel",
    "AutoInverseDynamicsModel",
    "BakuConfig",
    "BakuPolicy",
    "HNetConfig",
    "HNetModel",
    "HiLAMConfig",
    "HiLAMModel",
    "HierarchicalPolicy",
    "HierarchicalPolicyConfig",
    "RegressionFDM",
    "RegressionFDMConfig",
    "SkillExtraction",
    "SkillStream",
    "StreamedStep",
    "UniSkillFDM",
    "UniSkillFDMConfig",
    "UniSkillIDM",
    "UniSkillIDMConfig",
    "UniSkillImageProcessorPil",
    "UniSkillPipeline",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'hilam_hf' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__


register_with_libraries()
