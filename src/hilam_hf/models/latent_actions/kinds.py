"""Kinds of latent action models: each model's folder declares its own, and nothing else knows them apart.

The list of them is `hilam_hf.plugins.LATENT_ACTION_KINDS`, to which other packages add theirs as entry points of the
group `hilam_hf.latent_action_models`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...plugins import LATENT_ACTION_KINDS
from ..options import take_options
from .dynamics import ForwardDynamicsModel, InverseDynamicsModel

Models = tuple[InverseDynamicsModel, ForwardDynamicsModel]
Options = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class LatentActionKind:
    """What a kind of latent action model says of itself.

    What it does before and during training are methods of its inverse dynamics model: `needs_fit`, `fit`,
    `end_training_step`.

    Attributes:
        name: Its name, as `--kind` takes it.
        description: One line on its two models and the pixels that they see.
        idm_class: Class of the inverse dynamics model.
        fdm_class: Class of the forward dynamics model; `idm_class` itself where one model is both.
        build: Makes the two models, `build(idm_options, fdm_options)`, from fields of their configurations and the
            extra options. For a model that is both, all options are the first's, and it is returned twice.
        idm_extra: Options of `build` that are no fields of the inverse model's configuration.
        fdm_extra: The same of the forward model's.
        training: Defaults of its training options, by the names of `TrainingConfig`'s fields: those of its publication
            where there is one. `hilam train lam` takes them where the user gives no other.
        card: Its template for a model card, a file in the repository's folder `model_cards`, or a path.
    """

    name: str
    description: str
    idm_class: type[InverseDynamicsModel]
    fdm_class: type[ForwardDynamicsModel]
    build: Callable[[Options, Options], Models]
    idm_extra: tuple[str, ...] = ()
    fdm_extra: tuple[str, ...] = ()
    training: Mapping[str, Any]
    card: str

    def new(self, image_size: int | None = None, options: Mapping[str, Any] | None = None) -> Models:
        """An untrained model, its weights drawn from torch's own stream.

        Args:
            image_size: Side in pixels of the frames that both models see. None: that of their configurations.
            options: `idm.FIELD` and `fdm.FIELD`, or `FIELD` alone for a model that is both.

        Raises:
            ValueError: If an option is unknown, naming the nearest one.
        """
        common = {} if image_size is None else {"image_size": image_size}
        given = dict(options or {})
        if self.fdm_class is self.idm_class:
            return self.build(common | take_options(given, self.idm_class.config_class, extra=self.idm_extra), {})
        idm_options = take_options(given, self.idm_class.config_class, prefix="idm.", extra=self.idm_extra)
        fdm_options = take_options(given, self.fdm_class.config_class, prefix="fdm.", extra=self.fdm_extra)
        if given:
            raise ValueError(f"unknown model option {next(iter(given))!r}; this kind takes idm.FIELD and fdm.FIELD")
        return self.build(common | idm_options, common | fdm_options)


def get_latent_action_kind(name: str) -> LatentActionKind:
    """The kind of this name.

    Raises:
        ValueError: If the name is unknown (naming the nearest one), two packages declare it, or what is declared is no
            kind of this name.
        ImportError: If the package that declares it can't be imported.
    """
    return LATENT_ACTION_KINDS.get(name)
