"""New latent action models by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from hilam_hf.models.lapa import LapaModel
from hilam_hf.models.latent_actions.modeling_regression_fdm import RegressionFDM
from hilam_hf.models.uniskill import UniSkillFDM, UniSkillIDM
from hilam_hf.training.lam.models import new_latent_action_model
from hilam_hf.training.model_options import parse_model_options
from tests.models.uniskill.test_fdm import UNET, VAE

TINY_FDM = {"fdm.unet_config": UNET, "fdm.vae_config": VAE, "fdm.image_editor": None}
TINY_LAPA = {"preset": "tiny", "num_spatial_layers": 1, "num_temporal_layers": 1}


def test_the_light_kind_is_the_default_and_takes_the_image_size() -> None:
    idm, fdm = new_latent_action_model(image_size=32)
    assert isinstance(idm, UniSkillIDM) and isinstance(fdm, RegressionFDM)
    assert (idm.config.image_size, fdm.config.image_size) == (32, 32)
    assert idm.config.backbone_config is None and idm.config.depth_model is None
    assert idm.image_processor().size == {"height": 32, "width": 32}


def test_uniskill_has_the_published_sizes_and_can_start_at_random() -> None:
    idm, fdm = new_latent_action_model("uniskill", options={"idm.resnet": None, **TINY_FDM})
    assert isinstance(idm, UniSkillIDM) and isinstance(fdm, UniSkillFDM)
    assert (idm.config.image_size, fdm.config.image_size) == (224, 256)
    assert (idm.config.hidden_size, idm.config.num_hidden_layers, idm.config.latent_dim) == (256, 8, 64)


def test_uniskill_may_be_smaller_and_then_starts_at_random() -> None:
    idm, _ = new_latent_action_model("uniskill", options={"idm.preset": "small", **TINY_FDM})
    assert (idm.config.image_size, idm.config.backbone_config.hidden_sizes[0], idm.config.depth_model) == (96, 16, None)
    with pytest.raises(ValueError, match=r"'idm\.preset': 'small' starts at random; leave out 'idm\.resnet'"):
        new_latent_action_model("uniskill", options={"idm.preset": "small", "idm.resnet": "x", **TINY_FDM})


def test_the_forward_model_takes_the_inverse_models_width() -> None:
    idm, fdm = new_latent_action_model("uniskill-light", options={"idm.latent_dim": 9, "fdm.hidden_size": 8})
    assert (idm.config.latent_dim, fdm.config.latent_dim, fdm.config.hidden_size) == (9, 9, 8)


def test_a_models_own_size_wins_over_the_common_one() -> None:
    idm, fdm = new_latent_action_model("uniskill-light", image_size=32, options={"idm.image_size": 48})
    assert (idm.config.image_size, fdm.config.image_size) == (48, 32)


def test_lapa_is_one_model() -> None:
    lapa, same = new_latent_action_model("lapa", options=TINY_LAPA | {"codebook_size": 16})
    assert lapa is same and isinstance(lapa, LapaModel)
    assert (lapa.config.codebook_size, lapa.config.num_codes, lapa.config.num_spatial_layers) == (16, 4, 1)


def test_a_seed_gives_the_same_weights_and_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first, _ = new_latent_action_model(seed=1)
    assert torch.equal(torch.rand(2), expected)
    second, _ = new_latent_action_model(seed=1)
    other, _ = new_latent_action_model(seed=2)
    weights = [model.latent_proj.weight for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("uniskil", {}, "unknown kind of latent action model 'uniskil'; did you mean 'uniskill'"),
        ("xyz", {}, "'xyz'; known: uniskill, uniskill-light, lapa, feature-difference"),
        ("uniskill-light", {"idm.hiden_size": 3}, r"unknown model option 'idm\.hiden_size'; did you mean 'idm\.hidden"),
        ("uniskill-light", {"hidden_size": 3}, r"unknown model option 'hidden_size'; .* takes idm\.FIELD and fdm"),
        ("uniskill-light", {"idm.resnet": "x"}, r"unknown model option 'idm\.resnet'"),
        ("uniskill-light", {"idm.zzz": "x"}, r"unknown model option 'idm\.zzz'; known: backbone_config, "),
        ("uniskill-light", {"idm.preset": "tiny"}, "preset: got 'tiny'"),
        ("lapa", {"idm.num_codes": 2}, r"unknown model option 'idm\.num_codes'; did you mean 'num_codes'"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        new_latent_action_model(kind, options=options)


def test_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(StrictDataclassError, match="hidden_size"):
        new_latent_action_model("uniskill-light", options={"idm.hidden_size": "wide"})


@pytest.mark.parametrize(
    ("kind", "options", "name", "option"),
    [
        ("uniskill", {}, "microsoft/resnet-18", "idm.resnet"),
        ("uniskill", {"idm.resnet": None}, "timbrooks/instruct-pix2pix", "fdm.image_editor"),
        ("feature-difference", {}, "facebook/dinov2-small", "idm.backbone"),
    ],
)
def test_what_cannot_be_had_offline_is_named_in_one_line(
    kind: str, options: dict[str, Any], name: str, option: str, recwarn: pytest.WarningsRecorder
) -> None:
    with pytest.raises(OSError, match=name) as error:
        new_latent_action_model(kind, options=options)
    message = str(error.value)
    assert "\n" not in message and f"hf download {name} --local-dir" in message
    assert "then give that folder as" in message and message.endswith(option)
    # Such as diffusers' of an argument of its own.
    assert [str(each.message) for each in recwarn] == []


def test_options_are_read_as_yaml() -> None:
    pairs = ["idm.hidden_size=96", "fdm.image_editor=null", "idm.backbone_config={depths: [1, 1]}", "name=a=b"]
    assert parse_model_options(pairs) == {
        "idm.hidden_size": 96,
        "fdm.image_editor": None,
        "idm.backbone_config": {"depths": [1, 1]},
        "name": "a=b",
    }
    with pytest.raises(ValueError, match="got 'hidden_size', expected KEY=VALUE"):
        parse_model_options(["hidden_size"])
    with pytest.raises(ValueError, match=r"idm\.x: cannot read the value '\[1'"):
        parse_model_options(["idm.x=[1"])
