"""Auto classes of the latent action models, and the registration of every model with transformers' own."""

from collections import OrderedDict

from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping

from .baku import BakuConfig, BakuPolicy
from .hierarchical import HierarchicalPolicy, HierarchicalPolicyConfig
from .hilam import HiLAMConfig, HiLAMModel
from .hnet import HNetConfig, HNetModel
from .uniskill import (
    RegressionFDM,
    RegressionFDMConfig,
    UniSkillFDM,
    UniSkillFDMConfig,
    UniSkillIDM,
    UniSkillIDMConfig,
    UniSkillImageProcessorPil,
)


class AutoInverseDynamicsModel(_BaseAutoModelClass):
    """Loads the inverse dynamics model that a checkpoint holds, whatever its kind.

    Example:
        >>> idm = AutoInverseDynamicsModel.from_pretrained("org/uniskill-idm")
    """

    _model_mapping = _LazyAutoMapping(OrderedDict(), OrderedDict())


class AutoForwardDynamicsModel(_BaseAutoModelClass):
    """Loads the forward dynamics model that a checkpoint holds, whatever its kind.

    Example:
        >>> fdm = AutoForwardDynamicsModel.from_pretrained("org/regression-fdm")
    """

    _model_mapping = _LazyAutoMapping(OrderedDict(), OrderedDict())


_MODELS: dict[type[PreTrainedConfig], type[PreTrainedModel]] = {
    HNetConfig: HNetModel,
    HiLAMConfig: HiLAMModel,
    UniSkillIDMConfig: UniSkillIDM,
    RegressionFDMConfig: RegressionFDM,
    UniSkillFDMConfig: UniSkillFDM,
    BakuConfig: BakuPolicy,
    HierarchicalPolicyConfig: HierarchicalPolicy,
}

for _config, _model in _MODELS.items():
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model)
AutoInverseDynamicsModel.register(UniSkillIDMConfig, UniSkillIDM)
AutoForwardDynamicsModel.register(RegressionFDMConfig, RegressionFDM)
AutoForwardDynamicsModel.register(UniSkillFDMConfig, UniSkillFDM)
AutoImageProcessor.register(UniSkillIDMConfig, slow_image_processor_class=UniSkillImageProcessorPil)
