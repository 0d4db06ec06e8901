"""Corpora that were damaged or changed after they were written: each is refused, none gives other numbers."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from hilam_hf.data import CorpusInfo, CorpusWriter, load_corpus, write_latent_action_corpus
from tests.data.corpora.test_corpora import INFO, latent_row


def write(folder: Path, *numbers: int) -> Path:
    """A corpus, and its one shard."""
    write_latent_action_corpus(folder, [latent_row(number) for number in numbers], info=INFO, overwrite=True)
    (shard,) = (folder / "data").iterdir()
    return shard


def change_card(folder: Path, change: Callable[[dict], None]) -> None:
    card = folder / "README.md"
    _, front, body = card.read_text().split("---\n", 2)
    fields = yaml.safe_load(front)
    change(fields["hilam"])
    card.write_text(f"---\n{yaml.safe_dump(fields)}---\n{body}")


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    shard = write(tmp_path, 0, 1, 2)
    whole, random_numbers = shard.read_bytes(), random.Random(0)
    load_corpus(tmp_path)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[random_numbers.randrange(len(whole))] ^= 1 << random_numbers.randrange(8)
        # Under a new name, as a copy to a disk would be: two changes can fall into one tick of the file system's clock.
        shard.unlink()
        shard.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"not those that its card speaks of|whole Parquet file"):
            load_corpus(tmp_path)
    shard.unlink()
    shard.write_bytes(whole)
    assert load_corpus(tmp_path)["id"][:] == ["set/e0", "set/e1", "set/e2"]


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"PAR1 and then cut off"])
def test_shards_that_are_no_parquet_are_named(tmp_path: Path, content: bytes) -> None:
    shard = write(tmp_path, 0)
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"train-00000-of-00001\.parquet: it is not a whole .*git lfs pull"):
        load_corpus(tmp_path)


def test_a_corpus_rewritten_in_place_is_never_answered_from_the_cache(tmp_path: Path) -> None:
    """Same names, same size, same time of change; only the contents and their fingerprint differ."""
    shard = write(tmp_path, 0)
    times = shard.stat()
    assert load_corpus(tmp_path)["id"][:] == ["set/e0"]
    write(tmp_path, 1)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load_corpus(tmp_path)["id"][:] == ["set/e1"]
    # Without the card.
    pq.write_table(pq.read_table(shard).slice(0, 1).replace_schema_metadata(None), shard)
    with pytest.raises(ValueError, match="changed without the card"):
        load_corpus(tmp_path)


def test_missing_shards_are_named(tmp_path: Path) -> None:
    with CorpusWriter(tmp_path, INFO, rows_per_group=1, shard_bytes=1) as writer:
        for number in range(3):
            writer.add(latent_row(number))
    assert load_corpus(tmp_path)["id"][:] == ["set/e0", "set/e1", "set/e2"]
    (tmp_path / "data" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="its split 'train' has 2 of 3 data files"):
        load_corpus(tmp_path)


def test_pages_have_checksums_and_a_damaged_part_of_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), CorpusWriter(tmp_path, INFO) as writer:
        writer.add(latent_row(0))
        raise KeyboardInterrupt
    (part,) = (tmp_path / ".incomplete").glob("*.parquet")
    whole = part.read_bytes()
    offset = pq.ParquetFile(part).metadata.row_group(0).column(7).data_page_offset
    damaged = bytearray(whole)
    # Beyond the header of the page, inside its compressed numbers.
    damaged[offset + 60] ^= 1
    part.write_bytes(damaged)
    with pytest.raises((OSError, pa.ArrowException), match=r"CRC|checksum"):
        pq.read_table(part, page_checksum_verification=True)
    with pytest.raises(ValueError, match="delete this file"), CorpusWriter(tmp_path, INFO, resume=True):
        pass
    part.unlink()
    write_latent_action_corpus(tmp_path, [latent_row(0)], info=INFO, resume=True)
    (shard,) = (tmp_path / "data").iterdir()
    assert pq.read_table(shard, page_checksum_verification=True).num_rows == 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("stride", 0, r"stride: got 0, expected a whole number, at least 1"),
        ("stride", 2.5, r"says stride: 2.5, expected int"),
        ("stride_seconds", float("nan"), r"stride_seconds: got nan, expected seconds, above 0"),
        ("stride_seconds", float("inf"), r"stride_seconds: got inf"),
        ("latent_dim", "four", r"says latent_dim: 'four', expected"),
        ("num_latents", -1, r"num_latents: got -1, expected a whole number, at least 0"),
        ("num_episodes", 7, r"num_episodes: got 7, expected 1, the sum of splits"),
        ("splits", {"train": None}, r"splits\[train\]: got None"),
        ("std", [1.0, 1.0, float("nan"), 1.0], r"std: got nan among its values, expected finite numbers"),
        ("std", [1.0, 1.0, -1.0, 1.0], r"std: got -1.0, expected numbers from 0"),
        ("mean", [0.0], r"mean: got \[0.0\], expected a list of 4 numbers"),
        ("kind", "latents", r"kind: got 'latents'"),
    ],
)
def test_fields_of_a_card_are_checked_when_it_is_read(tmp_path: Path, field: str, value: object, message: str) -> None:
    write(tmp_path, 0)
    change_card(tmp_path, lambda fields: fields.update({field: value}))
    with pytest.raises(ValueError, match=f"{tmp_path}: its card .*{message}"):
        CorpusInfo.from_card(tmp_path)
    with pytest.raises(ValueError, match="its card "):
        load_corpus(tmp_path)


def test_a_count_that_is_not_that_of_the_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 0)
    change_card(tmp_path, lambda fields: fields.update(splits={"train": 2}, num_episodes=2))
    with pytest.raises(ValueError, match="split train: has 1 episodes, its card says 2"):
        load_corpus(tmp_path)


def test_a_rate_of_zero_is_refused_in_files_and_in_rows(tmp_path: Path) -> None:
    shard = write(tmp_path, 0)
    table = pq.read_table(shard)
    column = table.column_names.index("fps")
    pq.write_table(table.set_column(column, table.schema.field("fps"), pa.array([0.0])), shard)
    change_card(tmp_path, lambda fields: fields.pop("fingerprint"))
    with pytest.raises(ValueError, match=r"episode 'set/e0': fps: got 0\.0, expected a number above 0"):
        load_corpus(tmp_path)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="fps: got"):
            write_latent_action_corpus(tmp_path / "new", [latent_row(0) | {"fps": fps}], info=INFO, overwrite=True)


def test_folders_with_characters_of_patterns_are_loaded_themselves(tmp_path: Path) -> None:
    for number, name in enumerate(["run[lr=1e-3]", "a*", "ab", "what?"]):
        write(tmp_path / name, number)
    for number, name in enumerate(["run[lr=1e-3]", "a*", "ab", "what?"]):
        assert load_corpus(tmp_path / name)["id"][:] == [f"set/e{number}"]
