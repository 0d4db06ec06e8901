"""Auto classes of the latent action models: any of them from its checkpoint, whatever its kind."""

import re
from collections import OrderedDict
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping

from .dynamics import ForwardDynamicsModel, InverseDynamicsModel


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
        ValueError: If its model is of another kind, or its weights do not fit.

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
    has_fdm = (folder / "fdm" / "config.json").is_file()
    return idm, AutoForwardDynamicsModel.from_pretrained(folder / "fdm").eval() if has_fdm else None


def _local_folder(name_or_path: str | Path, revision: str | None) -> Path:
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(name_or_path)):
        raise FileNotFoundError(f"{name_or_path}: there is no such folder, and it is not a Hub id (owner/name)")
    allowed = ["*.json", "*.safetensors"]
    return Path(snapshot_download(str(name_or_path), revision=revision, allow_patterns=allowed))
