"""Training of HiLAM on a corpus of codes, and what a run with limited chunks logs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hilam_hf.data import CorpusInfo, load_corpus, write_latent_action_corpus
from hilam_hf.models.hilam.configuration_hilam import HiLAMConfig
from hilam_hf.models.hilam.modeling_hilam import HiLAMModel
from hilam_hf.training.config import TrainingConfig
from hilam_hf.training.hilam import new_hilam, train_hilam
from hilam_hf.training.hilam.data import LatentSequences, SequencesToReconstruct
from hilam_hf.training.hilam.models import parse_hilam_options
from hilam_hf.training.rows import Rows

CONFIG = TrainingConfig(max_steps=4, global_batch_size=3, warmup_steps=1, log_every=2)


def make_code_corpus(folder: Path, num_codes: int = 4, codebook_size: int = 8) -> CorpusInfo:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(6):
        codes = torch.randint(0, codebook_size, (12 + number, num_codes), generator=generator)
        rows.append({"id": str(number), "fps": 10.0, "num_frames": len(codes) + 2, "latent_actions": codes})
    codebook = torch.randn(codebook_size, 5, generator=generator).tolist()
    info = CorpusInfo(model="m", latent_dim=num_codes, stride=2, codebook=codebook)
    return write_latent_action_corpus(folder, rows, info=info)


def test_a_corpus_of_codes_trains_a_discrete_model(tmp_path: Path) -> None:
    info = make_code_corpus(tmp_path / "corpus")
    corpus = load_corpus(tmp_path / "corpus")
    torch.manual_seed(0)
    model = new_hilam(info, "tiny")
    assert (model.config.latent_type, model.config.num_codes, model.config.codebook_size) == ("discrete", 4, 8)
    torch.testing.assert_close(model.codebook, torch.tensor(info.codebook))
    result = train_hilam(model, corpus, info, CONFIG, output_dir=tmp_path / "run")
    assert result.history["latent_loss"][0][1] == pytest.approx(torch.tensor(8.0).log().item(), rel=0.2)
    assert {"boundary_rates/0", "boundary_rates/1"} <= set(result.history)
    loaded = HiLAMModel.from_pretrained(tmp_path / "run" / "hilam")
    codes = LatentSequences(corpus)[0]
    assert codes.dtype == torch.int64
    assert len(loaded.extract_skills(codes)) == 12


def test_codes_and_floats_are_not_mixed_up(tmp_path: Path) -> None:
    info = make_code_corpus(tmp_path / "corpus")
    corpus = load_corpus(tmp_path / "corpus")
    for model, taken in (
        (HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=4)), "floats"),
        (HiLAMModel(HiLAMConfig.preset("tiny", latent_type="discrete", codebook_size=4)), "codes from 0 to 3"),
    ):
        with pytest.raises(ValueError, match=f"the corpus has codes from 0 to 7, the model takes {taken}"):
            train_hilam(model, corpus, info, CONFIG, output_dir=tmp_path / "run")


def test_dropped_boundaries_are_logged_where_chunks_are_limited(tmp_path: Path) -> None:
    info = make_code_corpus(tmp_path / "corpus")
    corpus = load_corpus(tmp_path / "corpus")
    backbone = HiLAMConfig.preset("tiny").backbone
    backbone.chunk_capacity = [0.5, 0.5]
    limited = new_hilam(info, "tiny", hnet_config=backbone)
    history = train_hilam(limited, corpus, info, CONFIG, output_dir=tmp_path / "limited").history
    assert {"dropped_boundaries/0", "dropped_boundaries/1", "boundary_rates/0"} <= set(history)
    exact = new_hilam(info, "tiny")
    assert "dropped_boundaries/0" not in train_hilam(exact, corpus, info, CONFIG, output_dir=tmp_path / "exact").history


def test_model_options_are_read_as_yaml_and_unknown_ones_refused() -> None:
    pairs = ["target_ratios=[4.0, 3.0]", "routing=identity", "lambda_ratio=1"]
    options = parse_hilam_options(pairs)
    assert options == {"target_ratios": [4.0, 3.0], "routing": "identity", "lambda_ratio": 1}
    assert HiLAMConfig.preset("tiny", **options).backbone.routing == "identity"
    for wrong in ("target_ratio=[4.0]", "routing", "architectures=x"):
        with pytest.raises(ValueError, match=r"expected KEY=VALUE with a key of .*lambda_ratio.*routing"):
            parse_hilam_options([wrong])


def test_sequences_know_their_episodes(tmp_path: Path) -> None:
    make_code_corpus(tmp_path / "corpus")
    sequences = LatentSequences(load_corpus(tmp_path / "corpus"))
    some = Rows(sequences, [2, 5])
    assert [each.sample_id(1) for each in (sequences, some, SequencesToReconstruct(sequences))] == ["1", "5", "1"]
    assert torch.equal(some[1], sequences[5]) and len(some) == 2


def test_sequences_are_told_apart(tmp_path: Path) -> None:
    make_code_corpus(tmp_path / "corpus")
    corpus = load_corpus(tmp_path / "corpus")
    sequences = LatentSequences(corpus)
    told = sequences.fingerprint()
    assert LatentSequences(load_corpus(tmp_path / "corpus")).fingerprint() == told
    make_code_corpus(tmp_path / "other", codebook_size=9)
    renamed, changed = LatentSequences(corpus), LatentSequences(corpus)
    renamed.episode_ids[0] = "new"
    changed.sequences[5] = changed.sequences[5].clone()
    changed.sequences[5][-1, -1] += 1
    others = [renamed, changed, LatentSequences(load_corpus(tmp_path / "other")), Rows(sequences, [1, 0, 2, 3, 4, 5])]
    others.append(SequencesToReconstruct(sequences))
    assert len({told, *(other.fingerprint() for other in others)}) == 6
