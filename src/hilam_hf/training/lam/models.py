"""New latent action models by the name of their kind, ready to be trained."""

from collections.abc import Mapping
from typing import Any

import torch

from ...models.latent_actions.dynamics import ForwardDynamicsModel, InverseDynamicsModel
from ...models.latent_actions.kinds import get_latent_action_kind
from ...plugins import DEFAULT_LATENT_ACTION_KIND


def new_latent_action_model(
    kind: str = DEFAULT_LATENT_ACTION_KIND,
    *,
    image_size: int | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> tuple[InverseDynamicsModel, ForwardDynamicsModel]:
    """An untrained latent action model, or one that starts where published training starts.

    | kind | inverse dynamics | forward dynamics | pixels |
    | --- | --- | --- | --- |
    | uniskill | UniSkill's, on ImageNet's ResNet-18 | UniSkill's diffusion, from InstructPix2Pix | 224, 256 |
    | uniskill-light | UniSkill's, light, on the pixels themselves | regression | 64, 64 |
    | lapa | LAPA's latent action quantization | the same model | 256 |
    | feature-difference | components of DINOv2's features, not trained | regression | 224, 64 |

    The first and the last read the Hub ids `microsoft/resnet-18`, `timbrooks/instruct-pix2pix` and
    `facebook/dinov2-small`, or folders in their place. Other packages may add kinds, see `LatentActionKind`.

    Args:
        kind: One of `hilam_hf.plugins.LATENT_ACTION_KINDS`.
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
    declared = get_latent_action_kind(kind)
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return declared.new(image_size, options)
