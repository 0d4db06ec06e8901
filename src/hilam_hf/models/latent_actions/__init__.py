"""What every latent action model shares: the contract, Auto classes, pairs of frames, the regression forward model."""

from .auto import AutoForwardDynamicsModel, AutoInverseDynamicsModel, load_latent_action_model
from .configuration_regression_fdm import RegressionFDMConfig
from .dynamics import ForwardDynamicsModel, InverseDynamicsModel
from .modeling_regression_fdm import RegressionFDM, RegressionFDMOutput
from .processing_latent_actions import LatentActionImageProcessorPil

__all__ = [
    "AutoForwardDynamicsModel",
    "AutoInverseDynamicsModel",
    "ForwardDynamicsModel",
    "InverseDynamicsModel",
    "LatentActionImageProcessorPil",
    "RegressionFDM",
    "RegressionFDMConfig",
    "RegressionFDMOutput",
    "load_latent_action_model",
]
