"""Whether corpora and models belong to one latent action model."""

import logging
from pathlib import Path

import pytest
import torch

from hilam_hf.fingerprint import weights_fingerprint
from hilam_hf.models.latent_actions.auto import load_latent_action_model
from hilam_hf.models.latent_actions.partners import check_same_idm, idm_fingerprint
from hilam_hf.training.lam.models import new_latent_action_model
from tests.models.uniskill.test_uniskill import tiny_fdm, tiny_idm


def test_a_forward_model_says_with_which_inverse_model_it_was_trained(tmp_path) -> None:
    fdm = tiny_fdm(latent_dim=3)
    assert idm_fingerprint(fdm) is None
    fdm.config.idm_fingerprint = "0123456789abcdef"
    fdm.save_pretrained(tmp_path)
    assert idm_fingerprint(type(fdm).from_pretrained(tmp_path)) == "0123456789abcdef"


def test_one_model_that_is_both_is_its_own_inverse_model() -> None:
    torch.manual_seed(0)
    lam, _ = new_latent_action_model("lapa", options={"preset": "tiny", "image_size": 16, "patch_size": 4})
    assert idm_fingerprint(lam) == weights_fingerprint(lam)


def test_partners_of_another_model_are_refused_and_unknown_ones_told(caplog: pytest.LogCaptureFixture) -> None:
    check_same_idm("the corpus", "a" * 16, "the FDM", "a" * 16)
    assert not caplog.records
    with pytest.raises(ValueError, match=r"the corpus is of .* fingerprint a{16}, the FDM of b{16}: .*"):
        check_same_idm("the corpus", "a" * 16, "the FDM", "b" * 16)
    with caplog.at_level(logging.WARNING):
        check_same_idm("the corpus", "a" * 16, "the FDM", None)
    assert "the FDM does not say the fingerprint" in caplog.text and "cannot be checked" in caplog.text


def test_a_folder_of_two_models_of_different_trainings_is_refused(tmp_path: Path) -> None:
    idm, fdm = tiny_idm(), tiny_fdm()
    idm.save_pretrained(tmp_path / "idm")
    fdm.config.idm_fingerprint = weights_fingerprint(idm)
    fdm.save_pretrained(tmp_path / "fdm")
    load_latent_action_model(tmp_path)
    with torch.no_grad():
        next(idm.parameters()).mul_(1.01)
    idm.save_pretrained(tmp_path / "idm")
    old, new = fdm.config.idm_fingerprint, weights_fingerprint(idm)
    with pytest.raises(ValueError, match=f"fdm is of .* {old}, .*idm of {new}"):
        load_latent_action_model(tmp_path)
