"""Whether corpora and models belong to one latent action model, as latent actions of another mean different things."""

import logging

from ...fingerprint import weights_fingerprint
from .dynamics import ForwardDynamicsModel, InverseDynamicsModel

logger = logging.getLogger(__name__)


def idm_fingerprint(model: ForwardDynamicsModel) -> str | None:
    """Return the fingerprint of the inverse dynamics model that a forward dynamics model was trained with.

    Args:
        model: A forward dynamics model, whose config keeps it; one that is both encodes by itself.

    Returns:
        The fingerprint; None where the checkpoint is older than this field.
    """
    if isinstance(model, InverseDynamicsModel):
        return weights_fingerprint(model)
    return getattr(model.config, "idm_fingerprint", None)


def check_same_idm(first: str, first_fingerprint: str | None, second: str, second_fingerprint: str | None) -> None:
    """Refuses two artifacts of different latent action models, whose latent actions mean different things.

    Args:
        first: What errors call the one.
        first_fingerprint: Fingerprint of its inverse dynamics model; None is not known, which is logged.
        second: What errors call the other.
        second_fingerprint: Fingerprint of its inverse dynamics model.

    Raises:
        ValueError: The fingerprints differ.
    """
    if first_fingerprint is None or second_fingerprint is None:
        older = first if first_fingerprint is None else second
        logger.warning(
            "%s does not say the fingerprint of its latent action model (an older version wrote it): "
            "whether %s and %s belong together cannot be checked",
            older,
            first,
            second,
        )
    elif first_fingerprint != second_fingerprint:
        raise ValueError(
            f"{first} is of the latent action model with fingerprint {first_fingerprint}, {second} of "
            f"{second_fingerprint}: their latent actions mean different things; give the two of one model, or make "
            "one of them again"
        )
