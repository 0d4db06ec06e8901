"""Model cards, read back the way the Hub reads them."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hilam_hf.hub import (
    Measurement,
    latent_action_card_template,
    model_card,
    model_card_from_template,
    write_model_card,
)
from hilam_hf.plugins import LATENT_ACTION_KINDS
from tests.helpers import ROOT

CONTENT = {
    "title": "A policy",
    "description": "Opens drawers.",
    "usage": "policy = HierarchicalPolicy.from_pretrained(...)",
    "measurements": [
        Measurement(metric="success_rate", value=0.85, dataset="Meta-World drawer-open", note="17/20, 64-95 %")
    ],
    "provenance": {"seed": 3},
}


def test_measurements_become_evaluation_results(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    card = ModelCard.load(write_model_card(tmp_path, **CONTENT))
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("success_rate", 0.85)
    assert result.dataset_name == "Meta-World drawer-open"
    assert card.data.library_name == "hilam-hf"
    assert {"robotics", "hilam-hf"} <= set(card.data.tags)
    for text in ("# A policy", "Opens drawers.", "17/20, 64-95 %", '"seed": 3', "from_pretrained(...)"):
        assert text in card.text


def test_a_card_without_measurements_has_no_results() -> None:
    assert model_card(title="t", description="d", usage="u").data.eval_results is None


def test_a_card_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        write_model_card(tmp_path, **CONTENT)


PLACEHOLDERS = {
    "uniskill": {"latent_dim": "64"},
    "uniskill-light": {"latent_dim": "64"},
    "lapa": {"num_codes": "4", "codebook_size": "8"},
    "feature-difference": {"latent_dim": "64", "backbone": "facebook/dinov2-small"},
}
VALUES = {
    "repository": "org/lam",
    "description": "Trained on robots.",
    "data": "339 clips.",
    "stride": "0.6 s",
    "command": "accelerate launch examples/train_lam.py clips",
    "limits": "No collapse was found.",
}


@pytest.mark.parametrize("kind", LATENT_ACTION_KINDS.built_in_names())
def test_every_kind_of_latent_action_model_has_a_template(kind: str) -> None:
    values, template = VALUES | PLACEHOLDERS[kind], latent_action_card_template(kind, ROOT / "model_cards")
    common = {"title": "A model", "measurements": CONTENT["measurements"], "provenance": {"seed": 3}}
    card = model_card_from_template(template, **common, **values)
    assert card.data.eval_results[0].metric_value == 0.85
    assert card.text.startswith("\n# A model") or card.text.startswith("# A model")
    for text in (*values.values(), "17/20, 64-95 %", '"seed": 3'):
        assert text in card.text
    assert "{{" not in card.text and card.text.count("{") == card.text.count("}")
    del values["stride"]
    with pytest.raises(ValueError, match=r"wants the values \['stride'\], and has no place for \['strides'\]"):
        model_card_from_template(template, **common, **values, strides="1 s")


def test_a_card_tells_no_place_on_a_machine_and_holds_no_html(tmp_path: Path) -> None:
    measured = [Measurement(metric="rate", value=1, dataset="<script>x</script>", note="a | b")]
    content = {**CONTENT, "measurements": measured, "provenance": {"options": {"videos": "/disk/ada/videos"}}}
    text = model_card(**content).text
    assert "ada" not in text and '"videos": "videos"' in text
    assert "| &lt;script&gt;x&lt;/script&gt; | rate | 1 | a \\| b |" in text and "<script>" not in text
