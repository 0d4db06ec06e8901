"""UniSkill's kinds of latent action models: as published, and light.

Both take `idm.preset` ("published", "small" or "light"), a random start. The first starts where published training does
otherwise: `idm.resnet` and `fdm.image_editor` are the Hub ids or folders of the networks, None a random start.
"""

from ..frozen import naming_option
from ..latent_actions.kinds import LatentActionKind, Models, Options
from ..latent_actions.modeling_regression_fdm import RegressionFDM
from .configuration_uniskill import UniSkillFDMConfig, UniSkillIDMConfig
from .modeling_uniskill_fdm import UniSkillFDM
from .modeling_uniskill_idm import UniSkillIDM

# What published training starts from.
RESNET = "microsoft/resnet-18"
IMAGE_EDITOR = "timbrooks/instruct-pix2pix"

# The command in the published code's README (KimHanjung/UniSkill) and what its `diffusion/train_uniskill.py` does
# unless told otherwise; its "constant" schedule warms nothing up.
TRAINING = {
    "learning_rate": 1e-4,
    "schedule": "constant_with_warmup",
    "warmup_steps": 0,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
}
# Small networks that start at random take a larger rate than the large ones that were trained before.
LIGHT_TRAINING = {
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "warmup_steps": 50,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
}


def _build(idm_options: Options, fdm_options: Options) -> Models:
    idm = _idm(idm_options)
    editor = fdm_options.pop("image_editor", IMAGE_EDITOR)
    fdm_options.setdefault("latent_dim", idm.config.latent_dim)
    if editor is None:
        return idm, UniSkillFDM(UniSkillFDMConfig(**fdm_options))
    try:
        return idm, UniSkillFDM.from_diffusers(editor, **fdm_options)
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"image-editing model {editor!r} cannot be loaded ({reason}); where there is a network, run "
            f"`hf download {editor} --local-dir FOLDER`, then give that folder as fdm.image_editor"
        ) from error


def _idm(options: Options) -> UniSkillIDM:
    preset = options.pop("preset", None)
    resnet = options.pop("resnet", RESNET if preset is None else None)
    if preset is not None and resnet is not None:
        raise ValueError(f"model option 'idm.preset': {preset!r} starts at random; leave out 'idm.resnet'")
    if resnet is None:
        return UniSkillIDM(UniSkillIDMConfig.preset(preset or "published", **options))
    with naming_option("idm.resnet"):
        return UniSkillIDM.from_resnet(resnet, **options)


def _build_light(idm_options: Options, fdm_options: Options) -> Models:
    preset = idm_options.pop("preset", "light")
    idm = UniSkillIDM(UniSkillIDMConfig.preset(preset, **idm_options))
    return idm, RegressionFDM.for_idm(idm, **fdm_options)


UNISKILL = LatentActionKind(
    name="uniskill",
    description="UniSkill's on ImageNet's ResNet-18; its diffusion, from InstructPix2Pix; 224 and 256 px",
    idm_class=UniSkillIDM,
    fdm_class=UniSkillFDM,
    build=_build,
    idm_extra=("resnet", "preset"),
    fdm_extra=("image_editor",),
    training=TRAINING,
    card="uniskill.md",
)

UNISKILL_LIGHT = LatentActionKind(
    name="uniskill-light",
    description="UniSkill's, light, on the pixels themselves; regression of the next frame; 64 px",
    idm_class=UniSkillIDM,
    fdm_class=RegressionFDM,
    build=_build_light,
    idm_extra=("preset",),
    training=LIGHT_TRAINING,
    card="uniskill.md",
)
