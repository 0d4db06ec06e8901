"""Strict loading and the registration with transformers' Auto classes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file

from hilam_hf.models.baku import BakuConfig
from hilam_hf.models.feature_difference import FeatureDifferenceConfig
from hilam_hf.models.hierarchical import HierarchicalPolicyConfig
from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel
from hilam_hf.models.hnet import HNetConfig
from hilam_hf.models.lapa import LapaConfig
from hilam_hf.models.latent_actions.auto import (
    AutoForwardDynamicsModel,
    AutoInverseDynamicsModel,
    load_latent_action_model,
)
from hilam_hf.models.latent_actions.configuration_regression_fdm import RegressionFDMConfig
from hilam_hf.models.latent_actions.modeling_regression_fdm import RegressionFDM
from hilam_hf.models.uniskill import UniSkillFDMConfig, UniSkillIDMConfig
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


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 123456\n"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS_POINTER, "it is a pointer of Git LFS and not the file itself; run `git lfs pull` in its folder"),
        (b"", "it is empty; download or copy it again"),
        (b"{", r"it is damaged or cut off \(.+\); download or copy it again"),
        (b"\xff" * 100, r"it is damaged or cut off \(.+\); download or copy it again"),
        (None, r"it is damaged or cut off \(.+\); download or copy it again"),
    ],
    ids=["lfs", "empty", "start", "garbage", "half"],
)
@pytest.mark.parametrize("loader", [RegressionFDM, AutoForwardDynamicsModel])
def test_a_damaged_file_is_named_with_the_remedy_in_one_line(
    tmp_path: Path, loader: Any, file: str, content: bytes | None, message: str
) -> None:
    tiny_fdm().save_pretrained(tmp_path)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(OSError, match=rf"{file}: {message}$"):
        loader.from_pretrained(tmp_path)


def test_a_damaged_file_in_the_cache_of_the_hub_is_named(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--fdm"
    snapshot = repository / "snapshots" / ("a" * 40)
    tiny_fdm().save_pretrained(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (snapshot / "model.safetensors").write_bytes(LFS_POINTER)
    with pytest.raises(OSError, match=r"model\.safetensors: it is a pointer of Git LFS"):
        RegressionFDM.from_pretrained("org/fdm", cache_dir=tmp_path, local_files_only=True)


def test_pickled_weights_are_refused_and_never_read(tmp_path: Path) -> None:
    tiny_fdm().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(OSError, match=r"pytorch_model\.bin: pickled weights can execute code and are not loaded"):
        RegressionFDM.from_pretrained(tmp_path)


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    tiny_fdm().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"latent_dim": config["latent_dim"] + 1}))
    expected = rf"condition_norm\.bias of \({config['latent_dim']},\) instead of \({config['latent_dim'] + 1},\)"
    with pytest.raises(ValueError, match=expected):
        RegressionFDM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("config_class", "changes"),
    [
        (HNetConfig, {"arch_layout": ["T999999"]}),
        (HNetConfig, {"arch_layout": ["T300T300"]}),
        (HNetConfig, {"d_model": [256, 256, 10**9]}),
        (HNetConfig, {"ssm_cfg": {"d_state": 10**9}}),
        (HiLAMConfig, {"latent_dim": 10**9}),
        (HiLAMConfig, {"hnet_config": {"arch_layout": ["T999999"]}}),
        (BakuConfig, {"num_layers": 10**6}),
        (BakuConfig, {"vision_widths": [8] * 1000}),
        (HierarchicalPolicyConfig, {"skill_dim": 10**9}),
        (UniSkillIDMConfig, {"num_hidden_layers": 10**6}),
        (UniSkillIDMConfig, {"backbone_config": {"depths": [2, 2, 2, 10**6]}}),
        (UniSkillFDMConfig, {"latent_dim": 10**9}),
        (LapaConfig, {"num_spatial_layers": 10**6}),
        (LapaConfig, {"codebook_size": 10**9}),
        (RegressionFDMConfig, {"num_blocks": 10**6}),
        (FeatureDifferenceConfig, {"latent_dim": 10**9}),
    ],
)
def test_configurations_are_bounded_before_anything_is_built(config_class: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(StrictDataclassError, match=r"expected at most (512|16|131072)\. Check the configuration"):
        config_class(**changes)


def test_a_layout_that_nests_too_deeply_is_refused() -> None:
    layout: list[Any] = ["T1"]
    for _ in range(500):
        layout = ["T1", layout, "T1"]
    with pytest.raises(StrictDataclassError, match="stages of arch_layout: got 17, expected at most 16"):
        HNetConfig(arch_layout=layout)


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
