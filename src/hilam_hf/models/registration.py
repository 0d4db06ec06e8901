"""Registers every model with transformers' Auto classes and with those of latent action models."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedConfig, PreTrainedModel

from ..plugins import LATENT_ACTION_KINDS
from .baku import BakuConfig, BakuPolicy
from .hierarchical import HierarchicalPolicy, HierarchicalPolicyConfig
from .hilam import HiLAMConfig, HiLAMModel
from .hnet import HNetConfig, HNetModel
from .latent_actions.auto import register_with_auto_classes
from .latent_actions.kinds import get_latent_action_kind
from .processing import SquareImageProcessorPil

_MODELS: dict[type[PreTrainedConfig], type[PreTrainedModel]] = {
    HNetConfig: HNetModel,
    HiLAMConfig: HiLAMModel,
    BakuConfig: BakuPolicy,
    HierarchicalPolicyConfig: HierarchicalPolicy,
}

for _config, _model in _MODELS.items():
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model)
for _config in (HiLAMConfig, BakuConfig, HierarchicalPolicyConfig):
    AutoImageProcessor.register(_config, image_processor_classes={"pil": SquareImageProcessorPil})
for _name in LATENT_ACTION_KINDS.built_in_names():
    register_with_auto_classes(get_latent_action_kind(_name))
