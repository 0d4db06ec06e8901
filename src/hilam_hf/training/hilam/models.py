"""New HiLAM models that fit a corpus."""

from collections.abc import Sequence
from typing import Any

import torch

from ...data.corpora.info import CorpusInfo
from ...fingerprint import weights_fingerprint
from ...models.hilam import HiLAMConfig, HiLAMModel
from ...models.latent_actions.dynamics import InverseDynamicsModel
from ...models.latent_actions.partners import check_same_idm
from ...models.numerics import seeded_weights
from ...models.options import own_fields
from ..model_options import parse_model_options


def new_hilam(
    info: CorpusInfo, preset: str, *, idm: InverseDynamicsModel | None = None, seed: int = 0, **options: Any
) -> HiLAMModel:
    """An untrained HiLAM that fits a corpus.

    Args:
        info: What the corpus' card says.
        preset: Size of the model, of `HiLAMConfig.preset`.
        idm: The inverse dynamics model that made the corpus. With it the checkpoint takes frames, too, and not only
            latent actions; it stays frozen.
        seed: Of the weights, whatever was drawn before.
        **options: Further fields of `HiLAMConfig`.

    Raises:
        ValueError: If the corpus is of another inverse dynamics model.
    """
    if idm is not None:
        check_same_idm("the corpus", info.model_fingerprint, "idm", weights_fingerprint(idm))
    fields: dict[str, Any] = {
        **_latent_space(info),
        "stride": info.stride,
        "stride_seconds": info.stride_seconds if info.stride is None else None,
        "idm_config": None if idm is None else idm.config,
        "idm_fingerprint": info.model_fingerprint,
    }
    with seeded_weights(seed):
        model = HiLAMModel(HiLAMConfig.preset(preset, **fields, **options))
    if idm is not None and model.idm is not None:
        model.idm.load_state_dict(idm.state_dict())
    if info.codebook is not None:
        model.set_codebook(torch.tensor(info.codebook))
    return model


def _latent_space(info: CorpusInfo) -> dict[str, Any]:
    if info.codebook is None:
        return {"latent_dim": info.latent_dim}
    return {"latent_type": "discrete", "num_codes": info.latent_dim, "codebook_size": len(info.codebook)}


def parse_hilam_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Options of `HiLAMConfig.preset` from `KEY=VALUE` pairs, values written as in YAML.

    Raises:
        ValueError: If a pair has no `=`, its key is neither a field of `HiLAMConfig` nor `routing`, or its value is not
            YAML.

    Example:
        >>> parse_hilam_options(["target_ratios=[4.0, 3.0]", "routing=identity"])
        {'target_ratios': [4.0, 3.0], 'routing': 'identity'}
    """
    return parse_model_options(pairs, known=sorted([*own_fields(HiLAMConfig), "routing"]))
