"""hilam-hf: hierarchical latent actions on the Hugging Face Hub.

Turns action-free video into latent actions, latent actions into variable-length latent skills, and skills into robot
policies (HiLAM, Kim, Pinto and Kim 2026). The public names below are imported when first used.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

from ._auto_registration import register_with_libraries
from .lazy import import_when_used

# For type checkers and editors, which do not see names that are imported when used.
if TYPE_CHECKING:
    from .models.baku import BakuConfig, BakuPolicy
    from .models.feature_difference import FeatureDifferenceConfig, FeatureDifferenceIDM
    from .models.hierarchical import HierarchicalPolicy, HierarchicalPolicyConfig
    from .models.hilam import HiLAMConfig, HiLAMModel, SkillExtraction, SkillStream, StreamedStep
    from .models.hnet import HNetConfig, HNetModel
    from .models.lapa import LapaConfig, LapaModel
    from .models.latent_actions import (
        AutoForwardDynamicsModel,
        AutoInverseDynamicsModel,
        RegressionFDM,
        RegressionFDMConfig,
        load_latent_action_model,
    )
    from .models.processing import SquareImageProcessorPil
    from .models.uniskill import UniSkillFDM, UniSkillFDMConfig, UniSkillIDM, UniSkillIDMConfig, UniSkillPipeline

__version__ = version("hilam-hf")

_MODULES = {
    "AutoForwardDynamicsModel": "models.latent_actions",
    "AutoInverseDynamicsModel": "models.latent_actions",
    "BakuConfig": "models.baku",
    "BakuPolicy": "models.baku",
    "FeatureDifferenceConfig": "models.feature_difference",
    "FeatureDifferenceIDM": "models.feature_difference",
    "HNetConfig": "models.hnet",
    "HNetModel": "models.hnet",
    "HiLAMConfig": "models.hilam",
    "HiLAMModel": "models.hilam",
    "HierarchicalPolicy": "models.hierarchical",
    "HierarchicalPolicyConfig": "models.hierarchical",
    "LapaConfig": "models.lapa",
    "LapaModel": "models.lapa",
    "RegressionFDM": "models.latent_actions",
    "RegressionFDMConfig": "models.latent_actions",
    "SkillExtraction": "models.hilam",
    "SkillStream": "models.hilam",
    "SquareImageProcessorPil": "models.processing",
    "StreamedStep": "models.hilam",
    "UniSkillFDM": "models.uniskill",
    "UniSkillFDMConfig": "models.uniskill",
    "UniSkillIDM": "models.uniskill",
    "UniSkillIDMConfig": "models.uniskill",
    "UniSkillPipeline": "models.uniskill",
    "load_latent_action_model": "models.latent_actions",
}

__all__ = [
    "AutoForwardDynamicsModel",
    "AutoInverseDynamicsModel",
    "BakuConfig",
    "BakuPolicy",
    "FeatureDifferenceConfig",
    "FeatureDifferenceIDM",
    "HNetConfig",
    "HNetModel",
    "HiLAMConfig",
    "HiLAMModel",
    "HierarchicalPolicy",
    "HierarchicalPolicyConfig",
    "LapaConfig",
    "LapaModel",
    "RegressionFDM",
    "RegressionFDMConfig",
    "SkillExtraction",
    "SkillStream",
    "SquareImageProcessorPil",
    "StreamedStep",
    "UniSkillFDM",
    "UniSkillFDMConfig",
    "UniSkillIDM",
    "UniSkillIDMConfig",
    "UniSkillPipeline",
    "__version__",
    "load_latent_action_model",
]


__getattr__, __dir__ = import_when_used(__name__, _MODULES)


register_with_libraries()
