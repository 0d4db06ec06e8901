"""The baseline latent action model that needs no training: principal components of frozen feature differences."""

from .configuration_feature_difference import FeatureDifferenceConfig
from .modeling_feature_difference import FeatureDifferenceIDM, FeatureDifferenceOutput

__all__ = ["FeatureDifferenceConfig", "FeatureDifferenceIDM", "FeatureDifferenceOutput"]
