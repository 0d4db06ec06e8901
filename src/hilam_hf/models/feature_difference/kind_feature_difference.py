"""The kind of latent action model whose inverse side is not trained.

It reads the configuration of its network, `idm.backbone`, a Hub id or folder, at once and the weights at the first use.
"""

from ..frozen import naming_option
from ..latent_actions.kinds import LatentActionKind, Models, Options
from ..latent_actions.modeling_regression_fdm import RegressionFDM
from .configuration_feature_difference import FeatureDifferenceConfig
from .modeling_feature_difference import FeatureDifferenceIDM

# No publication trains this: the small regression is all that learns, and these suit it.
TRAINING = {
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "warmup_steps": 50,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
}


def _build(idm_options: Options, fdm_options: Options) -> Models:
    backbone = idm_options.pop("backbone", FeatureDifferenceConfig.backbone)
    with naming_option("idm.backbone"):
        idm = FeatureDifferenceIDM(FeatureDifferenceConfig.from_backbone(backbone, **idm_options))
    return idm, RegressionFDM.for_idm(idm, **fdm_options)


FEATURE_DIFFERENCE = LatentActionKind(
    name="feature-difference",
    description="components of DINOv2's features, not trained; regression of the next frame; 224 and 64 px",
    idm_class=FeatureDifferenceIDM,
    fdm_class=RegressionFDM,
    build=_build,
    training=TRAINING,
    card="feature_difference.md",
)
