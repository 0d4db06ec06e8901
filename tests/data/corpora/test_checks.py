"""Corpora of others: columns, gaps and numbers are checked where a corpus is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from hilam_hf.data import CorpusInfo, load_corpus, write_latent_action_corpus
from tests.cli.bad_inputs import Spoil, edit_table, filled, null_row, widened, with_values, without_column

SHARD = "corpus/data/train-*"


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[[bool], Path]:
    def make(codes: bool) -> Path:
        codebook = [[0.0], [1.0], [2.0]] if codes else None
        latents = [[0, 1], [2, 0], [1, 1]]
        rows = [{"id": name, "fps": 10, "num_frames": 5, "latent_actions": latents} for name in "ab"]
        info = CorpusInfo(model="m", latent_dim=2, stride=2, codebook=codebook)
        write_latent_action_corpus(tmp_path / "corpus", rows, info=info)
        return tmp_path / "corpus"

    return make


@pytest.mark.parametrize("codes", [False, True])
def test_what_was_written_passes(corpus: Callable[[bool], Path], codes: bool) -> None:
    assert load_corpus(corpus(codes))["id"][:] == ["a", "b"]


@pytest.mark.parametrize(
    ("spoil", "codes", "message"),
    [
        (
            without_column(SHARD, "latent_actions"),
            False,
            "lacks the column latent_actions; its columns are id",
        ),
        (without_column(SHARD, "stride"), False, "lacks the column stride"),
        (null_row(SHARD, "id"), False, "column id: 1 of 2 rows are null"),
        (null_row(SHARD, "latent_actions"), False, "column latent_actions: 1 of 2 rows are null"),
        (widened(SHARD, "latent_actions"), False, "column latent_actions: got .*, expected "),
        (filled(SHARD, "latent_actions", float("nan")), False, "column latent_actions: has NaN or infinite values"),
        (filled(SHARD, "latent_actions", float("inf")), False, "column latent_actions: has NaN or infinite values"),
        (filled(SHARD, "latent_actions", 3), True, "codes reach from 0 to 3, but the codebook has 0 to 2"),
        (filled(SHARD, "latent_actions", -1), True, "codes reach from -1 to 2"),
        (with_values(SHARD, "latent_actions", lambda rows: [[], rows[1]]), False, "latent_actions: row 0 has none"),
        (with_values(SHARD, "frame_indices", lambda rows: [[0], rows[1]]), False, "as many of one as of the other"),
        (with_values(SHARD, "frame_indices", lambda rows: [[0, 1, 5], rows[1]]), False, "from 0 to num_frames - 1"),
    ],
)
def test_what_a_corpus_cannot_hold_is_named(
    corpus: Callable[[bool], Path], spoil: Spoil, codes: bool, message: str
) -> None:
    folder = corpus(codes)
    spoil(folder.parent)
    with pytest.raises(ValueError, match=message):
        load_corpus(folder)


def test_a_corpus_without_rows_is_named(corpus: Callable[[bool], Path]) -> None:
    folder = corpus(False)
    edit_table(SHARD, lambda table: pa.table(table).slice(0, 0))(folder.parent)
    with pytest.raises(ValueError, match=r"corpus, split train: (cannot be read|has no rows)"):
        load_corpus(folder)
