"""LAPA's kind of latent action model; it takes `preset`, "published" or "tiny"."""

from ..latent_actions.kinds import LatentActionKind, Models, Options
from .configuration_lapa import LapaConfig
from .modeling_lapa import LapaModel


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
    card="lapa.md",
)
