"""Registers every model with transformers' Auto classes and with those of latent action models."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedConfig, PreTrainedModel

from .baku import BakuConfig, BakuPolicy
from .feature_difference import FeatureDifferenceConfig, FeatureDifferenceIDM
from .hierarchical import HierarchicalPolicy, HierarchicalPolicyConfig
from .hilam import HiLAMConfig, HiLAMModel
from .hnet import HNetConfig, HNetModel
from .lapa import LapaConfig, LapaModel
from .latent_actions.auto import AutoForwardDynamicsModel, AutoInverseDynamicsModel
from .latent_actions.configuration_regression_fdm import RegressionFDMConfig
from .latent_actions.modeling_regression_fdm import RegressionFDM
from .latent_actions.processing_latent_actions import LatentActionImageProcessorPil
from .processing import SquareImageProcessorPil
from .uniskill import UniSkillFDM, UniSkillFDMConfig, UniSkillIDM, UniSkillIDMConfig

_MODELS: dict[type[PreTrainedConfig], type[PreTrainedModel]] = {
    HNetConfig: HNetModel,
    HiLAMConfig: HiLAMModel,
    UniSkillIDMConfig: UniSkillIDM,
    RegressionFDMConfig: RegressionFDM,
    UniSkillFDMConfig: UniSkillFDM,
    LapaConfig: LapaModel,
    FeatureDifferenceConfig: FeatureDifferenceIDM,
    BakuConfig: BakuPolicy,
    HierarchicalPolicyConfig: HierarchicalPolicy,
}

for _config, _model in _MODELS.items():
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model)
for _config in (UniSkillIDMConfig, LapaConfig, FeatureDifferenceConfig):
    AutoInverseDynamicsModel.register(_config, _MODELS[_config])
    AutoImageProcessor.register(_config, slow_image_processor_class=LatentActionImageProcessorPil)
for _config in (BakuConfig, HierarchicalPolicyConfig):
    AutoImageProcessor.register(_config, slow_image_processor_class=SquareImageProcessorPil)
for _config in (RegressionFDMConfig, UniSkillFDMConfig, LapaConfig):
    AutoForwardDynamicsModel.register(_config, _MODELS[_config])
