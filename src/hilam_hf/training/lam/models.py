"""New latent action models by the name of their kind, ready to be trained."""

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import yaml
from transformers import PreTrainedConfig
from transformers.image_processing_utils import BaseImageProcessor

from ...models.feature_difference import FeatureDifferenceConfig, FeatureDifferenceIDM
from ...models.lapa import LapaConfig, LapaModel
from ...models.latent_actions import RegressionFDMConfig
from ...models.latent_actions.dynamics import ForwardDynamicsModel, InverseDynamicsModel
from ...models.latent_actions.modeling_regression_fdm import RegressionFDM
from ...models.latent_actions.processing_latent_actions import LatentActionImageProcessorPil
from ...models.uniskill import UniSkillFDM, UniSkillFDMConfig, UniSkillIDM, UniSkillIDMConfig

RESNET = "microsoft/resnet-18"
IMAGE_EDITOR = "timbrooks/instruct-pix2pix"
DEFAULT_KIND = "uniskill-light"

Models = tuple[InverseDynamicsModel, ForwardDynamicsModel]
Options = dict[str, Any]
_BASE_FIELDS = {field.name for field in dataclasses.fields(PreTrainedConfig)}


def new_latent_action_model(
    kind: str = DEFAULT_KIND,
    *,
    image_size: int | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> Models:
    """An untrained latent action model, or one that starts where published training starts.

    | kind | inverse dynamics | forward dynamics | pixels |
    | --- | --- | --- | --- |
    | uniskill | UniSkill's, on ImageNet's ResNet-18 | UniSkill's diffusion, from InstructPix2Pix | 224, 256 |
    | uniskill-light | UniSkill's, light, on the pixels themselves | regression | 64, 64 |
    | lapa | LAPA's latent action quantization | the same model | 256 |
    | feature-difference | components of DINOv2's features, not trained | regression | 224, 64 |

    The first and the last read the Hub ids `microsoft/resnet-18`, `timbrooks/instruct-pix2pix` and
    `facebook/dinov2-small`, or folders in their place.

    Args:
        kind: One of `LATENT_ACTION_KINDS`.
        image_size: Side in pixels of the frames that both models see. None: that of the kind.
        options: Fields of the models' configurations, as `idm.FIELD` and `fdm.FIELD`, or `FIELD` alone for "lapa". Also
            `idm.preset` ("published", "small" or "light") for both kinds of UniSkill, `preset` ("published" or "tiny")
            for "lapa"; and `idm.resnet` and `fdm.image_editor`, the Hub ids or folders from which "uniskill" starts.
            None for these two, and `idm.preset`, mean a random start.
        seed: Seed of the random weights. None: torch's own stream.

    Returns:
        (inverse dynamics model, forward dynamics model); one and the same object for "lapa".

    Raises:
        ValueError: If the kind or an option is unknown (naming the nearest one).
        StrictDataclassError: If an option's value is not valid.
        OSError: If a published network can't be had, in one line that names it and the option that takes a folder.

    Example:
        >>> idm, fdm = new_latent_action_model("uniskill-light", options={"idm.hidden_size": 96})
    """
    if kind not in _BUILDERS:
        raise ValueError(f"unknown kind of latent action model {kind!r}{_hint(kind, LATENT_ACTION_KINDS)}")
    given = dict(options or {})
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return _BUILDERS[kind](image_size, given)


def image_processor(model: InverseDynamicsModel | ForwardDynamicsModel) -> BaseImageProcessor:
    """The image processor that brings pictures to the model's size, to be saved beside it."""
    size = model.config.image_size
    return LatentActionImageProcessorPil(size={"height": size, "width": size})


def parse_model_options(pairs: Sequence[str]) -> Options:
    """Options of [`new_latent_action_model`] from `KEY=VALUE` pairs, values written as in YAML.

    Raises:
        ValueError: If a pair has no `=`, or its value is not YAML.

    Example:
        >>> parse_model_options(["idm.hidden_size=96", "fdm.image_editor=null"])
        {'idm.hidden_size': 96, 'fdm.image_editor': None}
    """
    options = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise ValueError(f"--model-option: got {pair!r}, expected KEY=VALUE, such as idm.hidden_size=96")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--model-option {key}: cannot read the value {value!r}: {error}") from error
    return options


def _uniskill(image_size: int | None, options: Options) -> Models:
    idm_options = _fields(UniSkillIDMConfig, options, "idm.", image_size, extra=("resnet", "preset"))
    fdm_options = _fields(UniSkillFDMConfig, options, "fdm.", image_size, extra=("image_editor",))
    _none_left(options)
    preset = idm_options.pop("preset", None)
    resnet = idm_options.pop("resnet", RESNET if preset is None else None)
    if preset is not None and resnet is not None:
        raise ValueError(f"model option 'idm.preset': {preset!r} starts at random; leave out 'idm.resnet'")
    editor = fdm_options.pop("image_editor", IMAGE_EDITOR)
    with _naming("idm.resnet"):
        if resnet is None:
            idm = UniSkillIDM(UniSkillIDMConfig.preset(preset or "published", **idm_options))
        else:
            idm = UniSkillIDM.from_resnet(resnet, **idm_options)
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


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Adds to an error about a network that can't be had which model option takes a folder."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{error}, here {option}") from error


def _uniskill_light(image_size: int | None, options: Options) -> Models:
    idm_options = _fields(UniSkillIDMConfig, options, "idm.", image_size, extra=("preset",))
    fdm_options = _fields(RegressionFDMConfig, options, "fdm.", image_size)
    _none_left(options)
    idm = UniSkillIDM(UniSkillIDMConfig.preset(idm_options.pop("preset", "light"), **idm_options))
    return idm, _regression(idm, fdm_options)


def _feature_difference(image_size: int | None, options: Options) -> Models:
    idm_options = _fields(FeatureDifferenceConfig, options, "idm.", image_size)
    fdm_options = _fields(RegressionFDMConfig, options, "fdm.", image_size)
    _none_left(options)
    backbone = idm_options.pop("backbone", FeatureDifferenceConfig.backbone)
    with _naming("idm.backbone"):
        idm = FeatureDifferenceIDM(FeatureDifferenceConfig.from_backbone(backbone, **idm_options))
    return idm, _regression(idm, fdm_options)


def _lapa(image_size: int | None, options: Options) -> Models:
    fields = _fields(LapaConfig, options, "", image_size, extra=("preset",))
    model = LapaModel(LapaConfig.preset(fields.pop("preset", "published"), **fields))
    return model, model


def _regression(idm: InverseDynamicsModel, options: Options) -> RegressionFDM:
    return RegressionFDM(RegressionFDMConfig(**{"latent_dim": idm.config.latent_dim} | options))


def _fields(
    config_class: type[PreTrainedConfig],
    options: Options,
    prefix: str,
    image_size: int | None,
    extra: Sequence[str] = (),
) -> Options:
    """Takes the options that begin with a prefix out of `options`; `image_size` is one where it is not among them."""
    found = {key.removeprefix(prefix): options.pop(key) for key in list(options) if key.startswith(prefix)}
    known = [*_own_fields(config_class), *extra]
    for name in found:
        if name not in known:
            raise ValueError(f"unknown model option {prefix + name!r}{_hint(name, known, prefix)}")
    return ({} if image_size is None else {"image_size": image_size}) | found


def _none_left(options: Options) -> None:
    if options:
        raise ValueError(f"unknown model option {next(iter(options))!r}; this kind takes idm.FIELD and fdm.FIELD")


def _own_fields(config_class: type[PreTrainedConfig]) -> list[str]:
    return sorted({field.name for field in dataclasses.fields(config_class)} - _BASE_FIELDS)


def _hint(name: str, known: Sequence[str], prefix: str = "") -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {prefix + nearest[0]!r}?" if nearest else f"; known: {', '.join(known)}"


_BUILDERS: dict[str, Callable[[int | None, Options], Models]] = {
    "uniskill": _uniskill,
    "uniskill-light": _uniskill_light,
    "lapa": _lapa,
    "feature-difference": _feature_difference,
}

LATENT_ACTION_KINDS = tuple(_BUILDERS)
