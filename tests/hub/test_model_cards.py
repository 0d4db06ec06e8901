"""Model cards, read back the way the Hub reads them."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hilam_hf.hub import Measurement, model_card, write_model_card

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
