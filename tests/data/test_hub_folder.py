"""Data sets of the Hub, from a cache that is full, without a network."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from hilam_hf.data import CorpusInfo, load_corpus, write_latent_action_corpus
from hilam_hf.data.hub_folder import dataset_folder
from tests.data.corpora.test_corpora import INFO, latent_row

COMMITS = {"main": "a" * 40, "v1": "b" * 40}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache with two revisions of org/corpus, of one and of two episodes."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    repository = tmp_path / "hub" / "datasets--org--corpus"
    for count, (reference, commit) in enumerate(COMMITS.items(), start=1):
        rows = [latent_row(number) for number in range(count)]
        write_latent_action_corpus(repository / "snapshots" / commit, rows, info=INFO)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / reference).write_text(commit)
    return repository


def test_a_cached_corpus_is_loaded_offline(cached: Path) -> None:
    assert load_corpus("org/corpus")["id"][:] == ["set/e0"]
    assert load_corpus("org/corpus", revision="v1")["id"][:] == ["set/e0", "set/e1"]
    assert load_corpus("org/corpus", revision=COMMITS["v1"])["id"][:] == ["set/e0", "set/e1"]
    assert CorpusInfo.from_card("org/corpus").num_episodes == 1
    assert CorpusInfo.from_card("org/corpus", revision="v1").num_episodes == 2


def test_a_cached_corpus_is_compared_with_its_card(cached: Path) -> None:
    (shard,) = (cached / "snapshots" / COMMITS["main"] / "data").iterdir()
    shard.rename(shard.with_suffix(".elsewhere"))
    with pytest.raises(FileNotFoundError, match="org/corpus: its split 'train' has no data files: copy or download"):
        load_corpus("org/corpus")
    shard.write_bytes(shard.with_suffix(".elsewhere").read_bytes().replace(b"set/e0", b"set/e9"))
    with pytest.raises(ValueError, match="org/corpus: its data files are not those that its card speaks of"):
        load_corpus("org/corpus")


def test_what_is_neither_a_folder_nor_cached_is_said_in_one_line(cached: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="org/other: there is no such folder, and no such dataset") as caught:
        load_corpus("org/other")
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="from the Hub at 'v2'"):
        dataset_folder("org/corpus", revision="v2")
    for name in ("../corpus", "corpus", "a/b/c", str(tmp_path / "nothing")):
        with pytest.raises(FileNotFoundError, match="no such folder, and it is not a Hub id"):
            dataset_folder(name)
    (tmp_path / "org" / "corpus").mkdir(parents=True)
    assert dataset_folder("org/corpus") == Path("org/corpus")
