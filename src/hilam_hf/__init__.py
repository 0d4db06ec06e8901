"""hilam-hf: hierarchical latent actions on the Hugging Face Hub.

Turns action-free video into latent actions, latent actions into variable-length latent skills, and skills into robot
policies (HiLAM, Kim, Pinto and Kim 2026). The public names below are imported when first used.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ._auto_registration import register_with_transformers

__version__ = version("hilam-hf")

_EXPORTS = {
    "hilam_hf.models.auto": ("AutoForwardDynamicsModel", "AutoInverseDynamicsModel"),
    "hilam_hf.models.hnet": ("HNetConfig", "HNetModel"),
    "hilam_hf.models.hilam": ("HiLAMConfig", "HiLAMModel", "SkillExtraction"),
    "hilam_hf.models.uniskill": (
        "RegressionFDM",
        "RegressionFDMConfig",
        "UniSkillIDM",
        "UniSkillIDMConfig",
        "UniSkillImageProcessorPil",
    ),
    "hilam_hf.models.baku": ("BakuConfig", "BakuPolicy"),
    "hilam_hf.models.hierarchical": ("HierarchicalPolicy", "HierarchicalPolicyConfig"),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]  # noqa: PLE0604

if TYPE_CHECKING:
    from .models.auto import AutoForwardDynamicsModel, AutoInverseDynamicsModel
    from .models.baku import BakuConfig, BakuPolicy
    from .models.hierarchical import HierarchicalPolicy, HierarchicalPolicyConfig
    from .models.hilam import HiLAMConfig, HiLAMModel, SkillExtraction
    from .models.hnet import HNetConfig, HNetModel
    from .models.uniskill import (
        RegressionFDM,
        RegressionFDMConfig,
        UniSkillIDM,
        UniSkillIDMConfig,
        UniSkillImageProcessorPil,
    )


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'hilam_hf' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__


register_with_transformers()
