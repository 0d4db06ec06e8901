"""Auto classes of the latent action models: any of them from its checkpoint, whatever its kind."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import CONFIG_MAPPING, AutoConfig, AutoImageProcessor, AutoModel
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping

from ...fingerprint import weights_fingerprint
from ...hints import absent, is_hub_id
from ...plugins import LATENT_ACTION_KINDS
from ..loading import without_code
from ..model_files import AbsentModelError, naming_absent_model, naming_damaged_files
from .dynamics import ForwardDynamicsModel, InverseDynamicsModel
from .kinds import LatentActionKind, get_latent_action_kind
from .partners import check_same_idm, idm_fingerprint


class _AutoDynamicsModel(_BaseAutoModelClass):
    """An Auto class that also knows the kinds of other packages."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        register_kinds_of_other_packages()
        name = pretrained_model_name_or_path
        with naming_absent_model(name, kwargs), naming_damaged_files(name, kwargs), without_code(name):
            return super().from_pretrained(name, *model_args, **{**kwargs, "trust_remote_code": False})

    @classmethod
    def from_config(cls, config: Any, **kwargs: Any) -> Any:
        register_kinds_of_other_packages()
        return super().from_config(config, **{**kwargs, "trust_remote_code": False})


class AutoInverseDynamicsModel(_AutoDynamicsModel):
    """Loads the inverse dynamics model that a checkpoint holds, whatever its kind.

    Example:
        >>> idm = AutoInverseDynamicsModel.from_pretrained("org/uniskill-idm")
    """

    _model_mapping = _LazyAutoMapping(OrderedDict(), OrderedDict())


class AutoForwardDynamicsModel(_AutoDynamicsModel):
    """Loads the forward dynamics model that a checkpoint holds, whatever its kind.

    Example:
        >>> fdm = AutoForwardDynamicsModel.from_pretrained("org/regression-fdm")
    """

    _model_mapping = _LazyAutoMapping(OrderedDict(), OrderedDict())


def register_with_auto_classes(kind: LatentActionKind) -> None:
    """Lets the Auto classes, these and transformers', find the models of a kind; a second time changes nothing.

    Raises:
        ValueError: If another configuration has the `model_type` already.
    """
    _register(kind.idm_class, AutoInverseDynamicsModel)
    _register(kind.fdm_class, AutoForwardDynamicsModel)


def _register(model_class: Any, auto_class: type[_AutoDynamicsModel]) -> None:
    config_class = model_class.config_class
    model_type = config_class.model_type
    if model_type in CONFIG_MAPPING and (known := CONFIG_MAPPING[model_type]) is not config_class:
        raise ValueError(
            f"model_type {model_type!r} of {config_class.__name__} is that of {known.__module__}.{known.__name__} "
            "already; choose another"
        )
    AutoConfig.register(model_type, config_class, exist_ok=True)
    AutoModel.register(config_class, model_class, exist_ok=True)
    auto_class.register(config_class, model_class, exist_ok=True)
    processors = {"pil": model_class.image_processor_class}
    AutoImageProcessor.register(config_class, image_processor_classes=processors, exist_ok=True)


def register_latent_action_kind(kind: LatentActionKind) -> None:
    """Adds a kind for this process: it can then be made by its name, and its checkpoints load.

    A package that others install declares an entry point instead, see `docs/latent_actions.md`.

    Raises:
        ValueError: If its name, or the `model_type` of a configuration, is taken.

    Example:
        >>> register_latent_action_kind(LatentActionKind(name="mine", ...))
        >>> idm, fdm = new_latent_action_model("mine")
    """
    LATENT_ACTION_KINDS.add(kind.name, kind)
    try:
        register_with_auto_classes(kind)
    except ValueError:
        LATENT_ACTION_KINDS.remove(kind.name)
        raise


def unregister_latent_action_kind(name: str) -> None:
    """Takes a kind's name away that `register_latent_action_kind` added; checkpoints of its models still load.

    Raises:
        ValueError: If no kind of this name was added.
    """
    LATENT_ACTION_KINDS.remove(name)


def register_kinds_of_other_packages() -> None:
    """Registers the kinds that other packages add through entry points.

    Not done where this package is imported, as theirs import it, too, and may be in the midst of it.

    Raises:
        ImportError: If one can't be imported, naming its entry point.
        ValueError: If two packages declare one name.
    """
    for name in LATENT_ACTION_KINDS.names_from_packages():
        register_with_auto_classes(get_latent_action_kind(name))


def load_latent_action_model(
    name_or_path: str | Path, *, revision: str | None = None
) -> tuple[InverseDynamicsModel, ForwardDynamicsModel | None]:
    """Loads the inverse and the forward dynamics model of a checkpoint, in evaluation mode.

    Args:
        name_or_path: Hub id or folder, with the two models in `idm` and `fdm` (which may be missing), or with one model
            that is both.
        revision: Branch, tag or commit on the Hub.

    Returns:
        The inverse dynamics model, and the forward dynamics model or None; the same object twice for a model that is
        both.

    Raises:
        OSError: If there is no such checkpoint.
        ValueError: If its model is of another kind, its weights do not fit, or the forward dynamics model was trained
            with another inverse dynamics model.

    Example:
        >>> idm, fdm = load_latent_action_model("org/uniskill")
    """
    folder = _local_folder(name_or_path, revision)
    if (folder / "config.json").is_file():
        model = AutoInverseDynamicsModel.from_pretrained(folder).eval()
        return model, model if isinstance(model, ForwardDynamicsModel) else None
    if not (folder / "idm" / "config.json").is_file():
        raise FileNotFoundError(f"{name_or_path}: it has neither config.json nor idm/config.json; give a trained model")
    idm = AutoInverseDynamicsModel.from_pretrained(folder / "idm").eval()
    if not (folder / "fdm" / "config.json").is_file():
        return idm, None
    fdm = AutoForwardDynamicsModel.from_pretrained(folder / "fdm").eval()
    # Checkpoints of older versions don't say it.
    if (trained_with := idm_fingerprint(fdm)) is not None:
        check_same_idm(f"{name_or_path}/fdm", trained_with, f"{name_or_path}/idm", weights_fingerprint(idm))
    return idm, fdm


def _local_folder(name_or_path: str | Path, revision: str | None) -> Path:
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    if not is_hub_id(name_or_path):
        raise AbsentModelError(absent(name_or_path, "model"))
    allowed = ["*.json", "*.safetensors"]
    with naming_absent_model(name_or_path, {"revision": revision}):
        return Path(snapshot_download(str(name_or_path), revision=revision, allow_patterns=allowed))
