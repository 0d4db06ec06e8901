"""Kinds of latent action models: the built-in ones, one that is registered, and one of another package."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel
from hilam_hf.models.latent_actions import (
    AutoForwardDynamicsModel,
    AutoInverseDynamicsModel,
    InverseDynamicsModel,
    LatentActionKind,
    register_latent_action_kind,
    unregister_latent_action_kind,
)
from hilam_hf.models.latent_actions.kinds import get_latent_action_kind
from hilam_hf.plugins import LATENT_ACTION_KINDS
from hilam_hf.training import TrainingConfig, load_config
from hilam_hf.training.lam.models import new_latent_action_model
from tests.helpers import ROOT
from tests.models.latent_actions.toy import TOY, ToyConfig, ToyIDM
from tests.test_plugins import add_package


@pytest.fixture
def _toy() -> Iterator[None]:
    register_latent_action_kind(TOY)
    yield
    unregister_latent_action_kind("toy")


@pytest.mark.parametrize("name", LATENT_ACTION_KINDS.built_in_names())
def test_a_built_in_kind_is_declared_in_its_models_folder(name: str) -> None:
    kind = get_latent_action_kind(name)
    assert kind.name == name and "\n" not in kind.description
    assert (ROOT / "model_cards" / kind.card).is_file()
    for auto_class, model_class in (
        (AutoInverseDynamicsModel, kind.idm_class),
        (AutoForwardDynamicsModel, kind.fdm_class),
    ):
        assert auto_class._model_mapping[model_class.config_class] is model_class


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("uniskill", (1e-4, "constant_with_warmup", 0, 0.01, 1.0)),
        ("lapa", (1e-4, "constant_with_warmup", 0, 0.0, 0.5)),
        ("uniskill-light", (1e-3, "cosine", 50, 0.01, 1.0)),
        ("feature-difference", (1e-3, "cosine", 50, 0.01, 1.0)),
    ],
)
def test_a_kind_trains_as_published_unless_told_otherwise(name: str, expected: tuple) -> None:
    training = get_latent_action_kind(name).training
    config = load_config(TrainingConfig, defaults=training)
    taken = (config.learning_rate, config.schedule, config.warmup_steps, config.weight_decay, config.max_grad_norm)
    assert taken == expected
    assert load_config(TrainingConfig, overrides=["learning_rate=0.5"], defaults=training).learning_rate == 0.5


def test_the_documents_name_every_kind() -> None:
    for page in ("examples/README.md", "docs/latent_actions.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert [name for name in LATENT_ACTION_KINDS.built_in_names() if f"`{name}`" not in text] == []


@pytest.mark.usefixtures("_toy")
def test_a_registered_kind_is_made_by_its_name() -> None:
    idm, fdm = new_latent_action_model("toy", image_size=24, options={"idm.gain": 2.0, "fdm.patch_size": 2}, seed=0)
    assert type(idm) is ToyIDM and (idm.config.image_size, idm.config.gain) == (24, 2.0)
    assert (fdm.config.image_size, fdm.config.latent_dim, fdm.config.patch_size) == (24, 2, 2)
    with pytest.raises(ValueError, match=r"unknown model option 'idm\.gian'; did you mean 'idm\.gain'"):
        new_latent_action_model("toy", options={"idm.gian": 1})
    assert type(AutoModel.from_config(AutoConfig.for_model("toy_idm"))) is ToyIDM


def test_a_kind_that_was_taken_away_is_unknown() -> None:
    register_latent_action_kind(TOY)
    unregister_latent_action_kind("toy")
    with pytest.raises(ValueError, match="unknown kind of latent action model 'toy'"):
        new_latent_action_model("toy")


def test_taken_names_and_model_types_are_refused() -> None:
    with pytest.raises(ValueError, match="there is a kind of latent action model 'lapa' already"):
        register_latent_action_kind(replace(TOY, name="lapa"))

    class OtherConfig(PreTrainedConfig):
        model_type = "uniskill_idm"

    class OtherIDM(ToyIDM):
        config_class = OtherConfig

    with pytest.raises(ValueError, match=r"model_type 'uniskill_idm' of OtherConfig is that of .*UniSkillIDMConfig"):
        register_latent_action_kind(replace(TOY, name="other", idm_class=OtherIDM))
    assert "other" not in LATENT_ACTION_KINDS.names()


def test_what_is_declared_under_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model 'odd': got LatentActionKind\(name='toy'.* with this name"):
        LATENT_ACTION_KINDS.add("odd", TOY)


def test_most_models_do_nothing_besides_gradients() -> None:
    idm, _ = new_latent_action_model(image_size=16)
    assert not idm.needs_fit and idm.fit([]) is idm and idm.end_training_step(10, 4) == {}


def test_the_kind_of_another_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """In processes of their own: its checkpoints load, inside HiLAM and alone, and its name is known."""
    idm: InverseDynamicsModel = ToyIDM(ToyConfig())
    idm.save_pretrained(tmp_path / "lam" / "idm")
    with_idm = HiLAMConfig.preset("tiny", latent_dim=2, idm_config=idm.config)
    HiLAMModel(with_idm).save_pretrained(tmp_path / "hilam")
    code = "from tests.models.latent_actions.toy import TOY"
    add_package(tmp_path, "toy_package", code, "toy = toy_package:TOY", group=LATENT_ACTION_KINDS.group)
    start = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    own_first = "import tests.models.latent_actions.toy\n"  # imports its model before anything of this package
    hilam = f"import hilam_hf; model = hilam_hf.HiLAMModel.from_pretrained({str(tmp_path / 'hilam')!r}).idm\n"
    lam = f"import hilam_hf; model, _ = hilam_hf.load_latent_action_model({str(tmp_path / 'lam')!r})\n"
    made = "from hilam_hf.training.lam import models; model, _ = models.new_latent_action_model('toy')\n"
    for script in (hilam, lam, own_first + lam + made):
        script = start + script + "print(type(model).__name__)"
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
        assert result.stdout.strip() == "ToyIDM", result.stderr


def test_a_kind_of_one_model_takes_bare_options() -> None:
    seen = []

    def build(options: dict, others: dict) -> tuple:
        seen.append((options, others))
        return None, None

    joint = LatentActionKind(
        name="j",
        description="",
        idm_class=ToyIDM,
        fdm_class=ToyIDM,
        build=build,
        idm_extra=("preset",),
        training={},
        card="",
    )
    joint.new(8, {"gain": 2.0, "preset": "x"})
    joint.new(8, {"image_size": 4})
    assert seen == [({"image_size": 8, "gain": 2.0, "preset": "x"}, {}), ({"image_size": 4}, {})]
