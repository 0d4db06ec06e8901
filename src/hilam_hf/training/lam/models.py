"""New latent action models by the name of their kind, ready to be trained."""

from collections.abc import Mapping
from typing import Any

from ...models.latent_actions.dynamics import ForwardDynamicsModel, InverseDynamicsModel
from ...models.latent_actions.kinds import get_latent_action_kind
from ...models.numerics import seeded_weights
from ...plugins import DEFAULT_LATENT_ACTION_KIND


def new_latent_action_model(
    kind: str = DEFAULT_LATENT_ACTION_KIND,
    *,
    image_size: int | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> tuple[InverseDynamicsModel, ForwardDynamicsModel]:
    """An untrained latent action model, or one that starts where published training starts.

    Each kind is declared in its model's folder, see [`LatentActionKind`]; the declaration says which published networks
    it reads, by their Hub ids or from folders.

    Args:
        kind: One of `hilam_hf.plugins.LATENT_ACTION_KINDS`.
        image_size: Side in pixels of the frames that both models see. None: that of the kind.
        options: Fields of the models' configurations, as `idm.FIELD` and `fdm.FIELD`, or `FIELD` alone where one model
            is both, and what the kind takes besides, such as `idm.preset`.
        seed: Of the weights, whatever was drawn before.

    Returns:
        (inverse dynamics model, forward dynamics model); one and the same object where one model is both.

    Raises:
        ValueError: If the kind or an option is unknown (naming the nearest one).
        StrictDataclassError: If an option's value is not valid.
        OSError: If a published network can't be had, in one line that names it and the option that takes a folder.

    Example:
        >>> idm, fdm = new_latent_action_model("uniskill-light", options={"idm.hidden_size": 96})
    """
    declared = get_latent_action_kind(kind)
    with seeded_weights(seed):
        return declared.new(image_size, options)
