"""What every latent action model shares: the contract, Auto classes, pairs of frames, the regression forward model."""

from .auto import (
    AutoForwardDynamicsModel,
    AutoInverseDynamicsModel,
    load_latent_action_model,
    register_latent_action_kind,
    unregister_latent_action_kind,
)
from .configuration_regression_fdm import RegressionFDMConfig
from .dynamics import ForwardDynamicsModel, InverseDynamicsModel
from .kinds import LatentActionKind
from .modeling_regression_fdm import RegressionFDM, RegressionFDMOutput

__all__ = [
    "AutoForwardDynamicsModel",
    "AutoInverseDynamicsModel",
    "ForwardDynamicsModel",
    "InverseDynamicsModel",
    "LatentActionKind",
    "RegressionFDM",
    "RegressionFDMConfig",
    "RegressionFDMOutput",
    "load_latent_action_model",
    "register_latent_action_kind",
    "unregister_latent_action_kind",
]
