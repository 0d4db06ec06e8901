"""Strict loading and the registration with transformers' Auto classes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel
from hilam_hf.models.latent_actions.auto import AutoInverseDynamicsModel, load_latent_action_model
from hilam_hf.models.latent_actions.modeling_regression_fdm import RegressionFDM
from hilam_hf.models.uniskill.modeling_uniskill_idm import UniSkillIDM
from tests.models.uniskill.test_uniskill import tiny_fdm, tiny_idm


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    tiny_fdm().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="kind 'regression_fdm', but UniSkillIDM takes 'uniskill_idm'"):
        UniSkillIDM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="AutoInverseDynamicsModel"):
        AutoInverseDynamicsModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(("change", "message"), [("drop", "1 missing keys"), ("add", "1 unexpected keys")])
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, change: str, message: str) -> None:
    tiny_idm().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    if change == "drop":
        del weights["proj.weight"]
    else:
        weights["extra.weight"] = torch.zeros(2)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        UniSkillIDM.from_pretrained(tmp_path)
    _, info = UniSkillIDM.from_pretrained(tmp_path, strict=False, output_loading_info=True)
    assert info["missing_keys"] == ({"proj.weight"} if change == "drop" else set())


def test_a_missing_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        RegressionFDM.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("order", ["import hilam_hf, transformers", "import transformers, hilam_hf"])
def test_importing_the_package_registers_its_models_in_either_order(tmp_path: Path, order: str) -> None:
    tiny_idm().save_pretrained(tmp_path)
    code = f"{order}; print(type(transformers.AutoModel.from_pretrained({str(tmp_path)!r})).__name__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "UniSkillIDM"


def test_importing_the_package_alone_does_not_import_torch() -> None:
    code = "import sys, hilam_hf, hilam_hf.envs, hilam_hf.cli; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_both_models_of_a_latent_action_model_are_loaded(tmp_path: Path) -> None:
    tiny_idm().save_pretrained(tmp_path / "lam" / "idm")
    idm, fdm = load_latent_action_model(tmp_path / "lam")
    assert (type(idm), fdm, idm.training) == (UniSkillIDM, None, False)
    tiny_fdm().save_pretrained(tmp_path / "lam" / "fdm")
    idm, fdm = load_latent_action_model(str(tmp_path / "lam"))
    assert (type(idm), type(fdm), fdm.training) == (UniSkillIDM, RegressionFDM, False)
    alone, none = load_latent_action_model(tmp_path / "lam" / "idm")
    assert (type(alone), none) == (UniSkillIDM, None)
    torch.testing.assert_close(alone.latent_proj.weight, idm.latent_proj.weight)


def test_what_is_no_latent_action_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: there is no such folder, and it is not a Hub id"):
        load_latent_action_model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"neither config\.json nor idm/config\.json"):
        load_latent_action_model(tmp_path)
    tiny_fdm().save_pretrained(tmp_path / "fdm")
    with pytest.raises(ValueError, match="AutoInverseDynamicsModel"):
        load_latent_action_model(tmp_path / "fdm")


def test_a_checkpoint_does_not_say_where_it_or_its_parts_were_loaded_from(tmp_path: Path) -> None:
    tiny_idm().save_pretrained(tmp_path / "ada" / "idm")
    idm, _ = load_latent_action_model(tmp_path / "ada" / "idm")
    assert idm.name_or_path == idm.config._name_or_path == "idm"
    HiLAMModel(
        HiLAMConfig.preset("tiny", latent_dim=idm.config.latent_dim, stride=1, idm_config=idm.config)
    ).save_pretrained(tmp_path / "ada" / "hilam")
    config = tmp_path / "ada" / "hilam" / "config.json"
    assert "ada" not in config.read_text()
    # One that was saved before.
    config.write_text(config.read_text().replace('"_name_or_path": "idm"', f'"_name_or_path": "{tmp_path}/ada/idm"'))
    assert "ada" in config.read_text()
    HiLAMModel.from_pretrained(tmp_path / "ada" / "hilam").save_pretrained(tmp_path / "again")
    assert "ada" not in (tmp_path / "again" / "config.json").read_text()
