"""LAPA's kind of latent action model; it takes `preset`, "published" or "tiny"."""

from ..latent_actions.kinds import LatentActionKind, Models, Options
from .configuration_lapa import LapaConfig
from .modeling_lapa import LapaModel

# `laq/train_sthv2.py` and the defaults of `LAQTrainer` in the published code (LatentActionPretraining/LAPA); its Adam
# without decay is AdamW without decay, and it has no schedule. Its betas (0.9, 0.99) are not among the options.
TRAINING = {
    "learning_rate": 1e-4,
    "schedule": "constant_with_warmup",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": 0.5,
}


def _build(options: Options, _: Options) -> Models:
    preset = options.pop("preset", "published")
    model = LapaModel(LapaConfig.preset(preset, **options))
    return model, model


LAPA = LatentActionKind(
    name="lapa",
    description="LAPA's latent action quantization, codes; one model is both sides; 256 px",
    idm_class=LapaModel,
    fdm_class=LapaModel,
    build=_build,
    idm_extra=("preset",),
    training=TRAINING,
    card="lapa.md",
)
