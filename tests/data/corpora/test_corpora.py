import dataclasses
import errno
import json
import os
import re
import signal
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hilam_hf.data import (
    CorpusInfo,
    CorpusWriter,
    corpus_statistics,
    latent_actions_array,
    load_corpus,
    unfold_skills,
    unpack_boundaries,
    vectors_array,
    write_latent_action_corpus,
    write_skill_corpus,
)
from hilam_hf.data.corpora.rows import pack_boundaries
from hilam_hf.locks import LOCK_FILE, FolderInUseError
from tests.numbered_videos import MakeVideo, frame_numbers
from tests.other_writers import writing

INFO = CorpusInfo(model="org/idm", revision="abc123", latent_dim=4, stride=3)


@pytest.fixture(autouse=True)
def arrow_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("arrow")))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True, raising=False)


def latent_row(number: int, num_frames: int = 10, stride: int = 3, dim: int = 4) -> dict:
    rng = np.random.default_rng(number)
    latents = rng.normal(loc=2.0, size=(num_frames - stride, dim)).astype(np.float32)
    return {"id": f"set/e{number}", "fps": 30, "num_frames": num_frames, "latent_actions": latents}


def skill_row(number: int, num_latents: int = 17) -> dict:
    rng = np.random.default_rng(number)
    first = rng.random(num_latents) < 0.5
    second = first & (rng.random(num_latents) < 0.5)
    first[0] = second[0] = True
    return {
        **latent_row(number, num_frames=num_latents + 3),
        "stage1_boundaries": first,
        "stage1_skills": rng.normal(size=(first.sum(), 5)).astype(np.float32),
        "stage2_boundaries": second,
        "stage2_skills": rng.normal(size=(second.sum(), 6)).astype(np.float32),
    }


def test_latent_actions_round_trip_without_custom_code(tmp_path: Path) -> None:
    rows = [latent_row(0) | {"language": "open it", "source": "toy", "video": "set/e0.mp4"}, latent_row(1, 6)]
    held_out = [latent_row(2) | {"source": "toy"}]
    info = write_latent_action_corpus(tmp_path / "c", {"train": iter(rows), "validation": held_out}, info=INFO)

    loaded = datasets.load_dataset(str(tmp_path / "c"))
    assert {split: len(data) for split, data in loaded.items()} == {"train": 2, "validation": 1}
    first, second = loaded["train"]
    assert first["id"] == "set/e0" and first["language"] == "open it" and first["video"] == "set/e0.mp4"
    assert (first["source"], first["fps"], first["num_frames"], first["stride"]) == ("toy", 30.0, 10, 3)
    assert first["frame_indices"] == list(range(7)) and second["frame_indices"] == [0, 1, 2]
    assert second["language"] is None
    np.testing.assert_array_equal(np.float32(first["latent_actions"]), rows[0]["latent_actions"])
    float32 = datasets.Value("float32")
    assert loaded["train"].features["latent_actions"] == datasets.List(datasets.List(float32, length=4))

    assert info.splits == {"train": 2, "validation": 1} and info.sources == {"toy": 2}
    assert (info.num_episodes, info.num_frames, info.num_latents) == (3, 26, 17)
    train = np.concatenate([row["latent_actions"] for row in rows]).astype(np.float64)
    np.testing.assert_allclose(info.mean, train.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(info.std, train.std(axis=0), rtol=1e-12)


def test_card_says_where_the_corpus_comes_from(tmp_path: Path) -> None:
    asked = dataclasses.replace(INFO, license="cc-by-4.0", title="Bridge actions", stride_seconds=0.1)
    info = write_latent_action_corpus(tmp_path / "c", [latent_row(0)], info=asked)
    assert CorpusInfo.from_card(tmp_path / "c") == info
    text = (tmp_path / "c" / "README.md").read_text()
    for part in ("# Bridge actions", "`org/idm` at `abc123`", "3 frames (0.1 s)", "license: cc-by-4.0", "robotics"):
        assert part in text


def test_load_dataset_never_returns_an_older_corpus_of_the_same_name(tmp_path: Path) -> None:
    """`load_dataset` caches local folders by their last name and their card, not by their files."""
    for number, parent in enumerate(("a", "b", "b")):
        folder = tmp_path / parent / "corpus"
        write_latent_action_corpus(folder, [latent_row(number)], info=INFO, overwrite=True)
        assert datasets.load_dataset(str(folder), split="train")["id"][:] == [f"set/e{number}"]
    same = write_latent_action_corpus(tmp_path / "c", [latent_row(2)], info=INFO)
    assert same.fingerprint == CorpusInfo.from_card(folder).fingerprint


def test_skill_info_survives_the_card(tmp_path: Path) -> None:
    asked = dataclasses.replace(INFO, skill_model="org/hilam", skill_revision="v2")
    info = write_skill_corpus(tmp_path / "c", [skill_row(0)], info=asked)
    again = CorpusInfo.from_card(tmp_path / "c")
    assert again == info and again.skill_dims == {1: 5, 2: 6} and again.kind == "latent-skills"
    assert again.segments == {s: len(skill_row(0)[f"stage{s}_skills"]) for s in (1, 2)}


def test_a_card_says_how_long_segments_are_and_warns_of_one_step_ones(tmp_path: Path) -> None:
    """Two episodes of eight latent actions: stage 1 cut into 1, 1, 1, 5 and 1, 7; stage 2 into 3, 5 and 8."""
    starts = [({1: [0, 1, 2, 3], 2: [0, 3]}), ({1: [0, 1], 2: [0]})]
    rows = []
    for number, by_stage in enumerate(starts):
        row = latent_row(number) | {"num_frames": 11, "latent_actions": np.zeros((8, INFO.latent_dim))}
        for stage, each in by_stage.items():
            boundaries = np.isin(np.arange(8), each)
            row |= {f"stage{stage}_boundaries": boundaries, f"stage{stage}_skills": np.ones((len(each), 2))}
        rows.append(row)
    info = write_skill_corpus(tmp_path / "c", rows, info=INFO)
    assert info == CorpusInfo.from_card(tmp_path / "c")
    assert info.segment_lengths == {
        1: {"one_step_share": 4 / 6, "median_length": 1, "length_90": 7, "segments_per_episode": 3.0},
        2: {"one_step_share": 0.0, "median_length": 5, "length_90": 8, "segments_per_episode": 1.5},
    }
    text = (tmp_path / "c" / "README.md").read_text()
    assert "67% of the segments are one step long, half at most 1, 90 % at most 7; 3.0 segments an episode" in text
    assert text.count("**Warning:** stage 1: 67% of the segments are one step long (more than 50%)") == 1
    assert "stage 2: " not in text


def test_card_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"README\.md"):
        CorpusInfo.from_card(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Other\n")
    with pytest.raises(ValueError, match="not a corpus written by hilam-hf"):
        CorpusInfo.from_card(tmp_path)
    (tmp_path / "README.md").write_text("---\nhilam:\n  model: a\n  latent_dim: 2\n  flavour: 3\n---\n")
    with pytest.raises(ValueError, match="unknown fields flavour"):
        CorpusInfo.from_card(tmp_path)


def test_boundaries_are_packed_least_significant_bit_first(tmp_path: Path) -> None:
    boundaries = np.array([1, 0, 1, 1, 0, 0, 0, 0, 0, 1], dtype=bool)
    assert pack_boundaries(boundaries) == bytes([0b00001101, 0b00000010])
    row = latent_row(0, num_frames=13) | {"stage1_boundaries": boundaries, "stage1_skills": np.zeros((4, 2))}
    write_skill_corpus(tmp_path / "c", [row], info=INFO)
    loaded = load_corpus(tmp_path / "c")[0]
    assert loaded["stage1_boundaries"] == bytes([13, 2]) and loaded["num_latents"] == 10
    assert unpack_boundaries(loaded, 1).tolist() == boundaries.tolist()


def test_unfolding_by_hand() -> None:
    """Equation 5: k_t = cumsum(b)_t, and latent action t has the skill z_{k_t}."""
    row = {
        "id": "a",
        "num_latents": 6,
        "stage2_boundaries": bytes([0b011001]),
        "stage2_skills": [[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]],
    }
    expected = [[1, 10], [1, 10], [1, 10], [2, 20], [3, 30], [3, 30]]
    assert unfold_skills(row, 2).tolist() == expected and unfold_skills(row, 2).dtype == np.float32
    with pytest.raises(ValueError, match="stage 1: the row has stages 2"):
        unfold_skills(row, 1)
    with pytest.raises(ValueError, match="3 segments but 2 skills"):
        unfold_skills(row | {"stage2_skills": row["stage2_skills"][:2]}, 2)
    with pytest.raises(ValueError, match="does not start a segment"):
        unpack_boundaries(row | {"stage2_boundaries": bytes([0b011000])}, 2)
    with pytest.raises(ValueError, match="not from a skill corpus"):
        unpack_boundaries(latent_row(0), 1)


@pytest.mark.parametrize("form", [None, "numpy", "torch"])
def test_skills_round_trip_in_every_format(tmp_path: Path, form: str | None) -> None:
    rows = [skill_row(number, num_latents=n) for number, n in enumerate((17, 1, 8, 33))]
    # A last byte of zeros, which the numpy format drops.
    rows[3]["stage1_boundaries"][1:] = False
    rows[3]["stage1_skills"] = rows[3]["stage1_skills"][:1]
    rows[3] = {key: value for key, value in rows[3].items()}
    write_skill_corpus(tmp_path / "c", (dict(row) for row in rows), info=INFO)
    corpus = load_corpus(tmp_path / "c").with_format(form)
    for row, expected in zip(corpus, rows, strict=True):
        for stage in (1, 2):
            boundaries = expected[f"stage{stage}_boundaries"]
            assert unpack_boundaries(row, stage).tolist() == boundaries.tolist()
            current, unfolded = -1, []
            for starts in boundaries:
                current += int(starts)
                unfolded.append(expected[f"stage{stage}_skills"][current])
            np.testing.assert_array_equal(unfold_skills(row, stage), np.stack(unfolded))


CODEBOOK = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]


def test_codes_are_whole_numbers_and_their_vectors_in_the_card(tmp_path: Path) -> None:
    codes = torch.tensor([[0, 2], [1, 1], [2, 0]])
    row = {"id": "a", "fps": 10.0, "num_frames": 4, "latent_actions": codes}
    info = CorpusInfo(model="org/lapa", latent_dim=2, stride=1, codebook=CODEBOOK)
    write_latent_action_corpus(tmp_path / "corpus", [row], info=info)
    corpus, read = load_corpus(tmp_path / "corpus"), CorpusInfo.from_card(tmp_path / "corpus")
    assert corpus[0]["latent_actions"] == codes.tolist()
    assert corpus.features["latent_actions"].feature.feature.dtype == "int32"
    assert (read.codebook, read.vector_dim, read.mean, read.std) == (CODEBOOK, 4, None, None)
    vectors = read.latent_vectors(latent_actions_array(corpus, 0))
    np.testing.assert_array_equal(vectors, [[0, 1, 4, 5], [2, 3, 2, 3], [4, 5, 0, 1]])
    assert "2 codes from 0 to 2" in (tmp_path / "corpus" / "README.md").read_text()


@pytest.mark.parametrize("wrong", [3.0, -1.0, 0.5])
def test_what_is_no_code_is_refused(tmp_path: Path, wrong: float) -> None:
    row = {"id": "a", "fps": 10.0, "num_frames": 2, "latent_actions": [[0.0, wrong]]}
    info = CorpusInfo(model="org/lapa", latent_dim=2, stride=1, codebook=CODEBOOK)
    with pytest.raises(ValueError, match=r"episode 'a': latent_actions: .* expected codes from 0 to 2"):
        write_latent_action_corpus(tmp_path / "corpus", [row], info=info)


def test_torch_rows_are_taken(tmp_path: Path) -> None:
    row = skill_row(0)
    as_torch = {key: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for key, v in row.items()}
    as_torch["latent_actions"] = as_torch["latent_actions"].to(torch.bfloat16).requires_grad_()
    write_skill_corpus(tmp_path / "c", [as_torch], info=INFO)
    loaded = load_corpus(tmp_path / "c")
    np.testing.assert_allclose(latent_actions_array(loaded, 0), row["latent_actions"], rtol=1e-2)
    np.testing.assert_array_equal(vectors_array(loaded, "stage2_skills", 0), row["stage2_skills"])


def test_fast_access_is_a_view_and_follows_selection(tmp_path: Path) -> None:
    rows = [latent_row(number, num_frames=5 + number) for number in range(20)]
    write_latent_action_corpus(tmp_path / "c", rows, info=INFO)
    corpus = load_corpus(tmp_path / "c")
    for data in (corpus, corpus.shuffle(seed=0), corpus.select([7, 3]), corpus.filter(lambda row: row["fps"] == 30)):
        for index, name in enumerate(data["id"]):
            expected = rows[int(name.removeprefix("set/e"))]["latent_actions"]
            np.testing.assert_array_equal(latent_actions_array(data, index), expected)
    array = latent_actions_array(corpus, 3)
    assert array.dtype == np.float32 and not array.flags.owndata and not array.flags.writeable
    with pytest.raises(IndexError):
        latent_actions_array(corpus, 20)
    for column in ("fps", "nothing", "frame_indices"):
        with pytest.raises(ValueError, match=f"column '{column}'"):
            vectors_array(corpus, column, 0)


def test_statistics_of_a_selection(tmp_path: Path) -> None:
    rows = [latent_row(number) for number in range(5)]
    write_latent_action_corpus(tmp_path / "c", rows, info=INFO)
    found = corpus_statistics(load_corpus(tmp_path / "c").select([4, 1]))
    values = np.concatenate([rows[4]["latent_actions"], rows[1]["latent_actions"]]).astype(np.float64)
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.std, values.std(axis=0), rtol=1e-12)
    assert (found.num_episodes, found.num_frames, found.num_latents) == (2, 20, 14)
    with pytest.raises(ValueError, match="no vectors"):
        corpus_statistics(load_corpus(tmp_path / "c").select([]))


def test_shards_and_row_groups(tmp_path: Path) -> None:
    rows = [latent_row(number, num_frames=50) for number in range(10)]
    with CorpusWriter(tmp_path / "c", INFO, rows_per_group=2, shard_bytes=6000) as writer:
        for row in rows:
            writer.add(row)
            assert len(writer._buffers["train"]) < 2
    files = sorted(file.name for file in (tmp_path / "c" / "data").iterdir())
    assert len(files) > 1 and files == [f"train-{i:05d}-of-{len(files):05d}.parquet" for i in range(len(files))]
    groups = [pq.ParquetFile(tmp_path / "c" / "data" / file).metadata for file in files]
    assert all(group.row_group(i).num_rows == 2 for group in groups for i in range(group.num_row_groups))
    assert load_corpus(tmp_path / "c")["id"][:] == [row["id"] for row in rows]
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["README.md", "data"]


def test_explicit_frame_indices(tmp_path: Path) -> None:
    row = latent_row(0) | {"latent_actions": np.ones((3, 4)), "frame_indices": [0, 2, 6]}
    write_latent_action_corpus(tmp_path / "c", [row], info=INFO)
    assert load_corpus(tmp_path / "c")[0]["frame_indices"] == [0, 2, 6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_actions": np.ones((7, 5))}, r"'set/e0': latent_actions: got shape \(7, 5\)"),
        ({"latent_actions": np.ones((0, 4))}, "latent_actions: got shape"),
        ({"latent_actions": np.full((7, 4), np.nan)}, "NaN"),
        ({"latent_actions": np.ones((6, 4))}, "got 6 latent actions for 7 frames"),
        ({"frame_indices": [0, 1, 2, 3, 4, 5, 7]}, r"increasing indices in \[0, 7\)"),
        ({"frame_indices": [0, 1, 1, 2, 3, 4, 5]}, "increasing"),
        ({"frame_indices": [0, 1]}, "frame_indices: got shape"),
        ({"stride": 10}, "stride: got 10"),
        ({"latent_actions": None}, "lacks latent_actions"),
        ({"fps": None}, "lacks fps"),
        ({"lenguage": "x"}, "unknown columns lenguage"),
        ({"language": "wave \ud83d"}, r"language: holds \\ud83d, which is half of a character"),
    ],
)
def test_bad_latent_rows(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_latent_action_corpus(tmp_path / "c", [latent_row(0) | change], info=INFO)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage1_boundaries": np.zeros(17, dtype=bool)}, "must start a segment"),
        ({"stage1_boundaries": np.ones(16, dtype=bool)}, r"stage1_boundaries: got shape \(16,\)"),
        ({"stage1_boundaries": np.full(17, 0.5)}, "booleans"),
        ({"stage2_skills": np.ones((17, 6))}, "17 skills: expected one skill a segment"),
        ({"stage2_skills": None}, "lacks stage2_skills"),
    ],
)
def test_bad_skill_rows(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_skill_corpus(
            tmp_path / "c",
            [skill_row(0) | change],
            info=dataclasses.replace(INFO, kind="latent-skills", skill_dims={1: 5, 2: 6}),
        )


def test_empty_and_repeated_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no rows in its train split"):
        write_latent_action_corpus(tmp_path / "a", [], info=INFO)
    with pytest.raises(ValueError, match="at least one episode"):
        write_skill_corpus(tmp_path / "b", [], info=INFO)
    with pytest.raises(ValueError, match="needs stage1_boundaries"):
        write_skill_corpus(tmp_path / "b", [latent_row(0)], info=INFO)
    with pytest.raises(ValueError, match="'set/e0' was already added"):
        write_latent_action_corpus(tmp_path / "c", [latent_row(0), latent_row(0)], info=INFO)
    with pytest.raises(ValueError, match="splits: got test"):
        write_latent_action_corpus(tmp_path / "d", {"test": [latent_row(0)]}, info=INFO)


def test_existing_folders_are_safe(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"holds other files \(thesis\.txt\)"):
            write_latent_action_corpus(other, [latent_row(0)], info=INFO, overwrite=overwrite)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]

    folder = tmp_path / "c"
    write_latent_action_corpus(folder, [latent_row(0)], info=INFO)
    (folder / ".git").mkdir()
    with pytest.raises(ValueError, match="already holds a corpus: pass overwrite=True"):
        write_latent_action_corpus(folder, [latent_row(1)], info=INFO)
    write_latent_action_corpus(folder, [latent_row(1), latent_row(2)], info=INFO, overwrite=True)
    assert load_corpus(folder)["id"][:] == ["set/e1", "set/e2"]
    assert sorted(path.name for path in folder.iterdir()) == [".git", "README.md", "data"]


def test_interrupted_run_keeps_rows_and_resumes(tmp_path: Path) -> None:
    folder = tmp_path / "c"

    def failing_rows():
        yield from (latent_row(number) for number in range(3))
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_latent_action_corpus(folder, failing_rows(), info=INFO)
    with pytest.raises(ValueError, match="writing was interrupted"):
        load_corpus(folder)
    with pytest.raises(ValueError, match="interrupted run left 3 episodes"):
        write_latent_action_corpus(folder, [latent_row(0)], info=INFO)
    with pytest.raises(ValueError, match="of another corpus"):
        write_latent_action_corpus(folder, [latent_row(0)], info=dataclasses.replace(INFO, revision="x"), resume=True)
    with CorpusWriter(folder, INFO, resume=True) as writer:
        assert writer.has("set/e2") and not writer.has("set/e3")
        writer.add(latent_row(3))
    assert load_corpus(folder)["id"][:] == [f"set/e{number}" for number in range(4)]
    assert writer.info.num_episodes == 4 and not (folder / ".incomplete").exists()


def test_resume_passes_over_written_rows_and_overwrite_drops_them(tmp_path: Path) -> None:
    for options, expected in (({"resume": True}, ["set/e0", "set/e1"]), ({"overwrite": True}, ["set/e1"])):
        folder = tmp_path / "-".join(options)
        with pytest.raises(RuntimeError), CorpusWriter(folder, INFO) as writer:
            writer.add(latent_row(0))
            raise RuntimeError
        rows = [latent_row(0), latent_row(1)] if "resume" in options else [latent_row(1)]
        write_latent_action_corpus(folder, rows, info=INFO, **options)
        assert load_corpus(folder)["id"][:] == expected


@pytest.mark.parametrize("fail_at", ["train-part", "train-00000", "README.md"])
def test_full_disk_keeps_the_old_corpus_and_the_new_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: str
) -> None:
    folder = tmp_path / "c"
    write_latent_action_corpus(folder, [latent_row(0)], info=INFO)
    card = (folder / "README.md").read_text()
    replace = os.replace

    def full(source, target):
        if fail_at in Path(target).name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk is full") as caught:
        write_latent_action_corpus(folder, [latent_row(1), latent_row(2)], info=INFO, overwrite=True)
    assert caught.value.errno == errno.ENOSPC and str(folder) in str(caught.value)
    monkeypatch.undo()
    assert load_corpus(folder)["id"][:] == ["set/e0"] and (folder / "README.md").read_text() == card
    with CorpusWriter(folder, INFO, overwrite=True, resume=True) as writer:
        assert writer.has("set/e1") == (fail_at != "train-part")
        if not writer.has("set/e1"):
            writer.add(latent_row(1))
            writer.add(latent_row(2))
    assert load_corpus(folder)["id"][:] == ["set/e1", "set/e2"]


def test_run_killed_while_shards_change_places(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    write_latent_action_corpus(folder, [latent_row(0)], info=INFO)
    (folder / ".incomplete").mkdir()
    (folder / "data").rename(folder / ".incomplete" / "former-data")
    CorpusWriter(folder, INFO, overwrite=True)
    assert load_corpus(folder)["id"][:] == ["set/e0"]


def test_embedded_videos(tmp_path: Path, make_video: MakeVideo) -> None:
    row = latent_row(0) | {"video": make_video(num_frames=10)}
    write_latent_action_corpus(tmp_path / "c", [row, latent_row(1)], info=INFO, video="embed")
    make_video(num_frames=2)
    corpus = load_corpus(tmp_path / "c")
    assert isinstance(corpus.features["video"], datasets.Video)
    decoder = corpus[0]["video"]
    assert frame_numbers(decoder.get_frames_at([9, 4]).data) == [9, 4]
    assert corpus[1]["video"] is None
    assert latent_actions_array(corpus, 0).shape == (7, 4)
    with pytest.raises(FileNotFoundError):
        write_latent_action_corpus(tmp_path / "d", [latent_row(0) | {"video": "no.mp4"}], info=INFO, video="embed")


def test_load_errors(tmp_path: Path) -> None:
    write_latent_action_corpus(tmp_path / "c", [latent_row(0)], info=INFO)
    with pytest.raises(ValueError, match="has no split 'validation'; its splits are train"):
        load_corpus(tmp_path / "c", "validation")
    with pytest.raises(FileNotFoundError, match="no such folder, and it is not a Hub id"):
        load_corpus(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"has no README\.md"):
        load_corpus(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"latent_dim": 0}, {"stride": 0}, {"model": ""}, {"skill_dims": {1: 2}}, {"codebook": [[1.0], [2.0, 3.0]]}],
)
def test_info_is_checked_when_made(change: dict) -> None:
    with pytest.raises(ValueError, match=f"CorpusInfo.{next(iter(change))}"):
        dataclasses.replace(INFO, **change)


def test_features_are_recorded_in_the_files(tmp_path: Path) -> None:
    """Streaming and the Hub's viewer read the features from the Parquet schema."""
    write_skill_corpus(tmp_path / "c", [skill_row(0)], info=INFO)
    (file,) = (tmp_path / "c" / "data").iterdir()
    features = json.loads(pq.read_schema(file).metadata[b"huggingface"])["info"]["features"]
    assert features["stage1_boundaries"]["dtype"] == "binary"
    streamed = next(iter(datasets.load_dataset(str(tmp_path / "c"), split="train", streaming=True)))
    assert unfold_skills(streamed, 2).shape == (17, 6)


def test_a_card_tells_no_place_on_a_machine_and_holds_no_html_of_rows(tmp_path: Path) -> None:
    info = dataclasses.replace(INFO, model="/disk/ada/runs/idm", skill_model="../ada/`<b>`/hilam", revision=None)
    rows = [{**skill_row(0), "source": "<img src=x onerror=alert(1)>|\n# Title"}]
    write_skill_corpus(tmp_path / "c", rows, info=info)
    text = (tmp_path / "c" / "README.md").read_text()
    body = text.split("---\n", 2)[2]
    assert "ada" not in text
    assert "| Latent action model | `idm` |" in body and "| Skill model | `hilam` |" in body
    assert "| Sources | &lt;img src=x onerror=alert(1)&gt;\\| # Title: 1 |" in body and "<" not in body
    told = CorpusInfo.from_card(tmp_path / "c")
    assert (told.model, told.skill_model) == ("idm", "hilam")


def test_a_second_writer_is_refused_and_the_first_ones_corpus_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with CorpusWriter(folder, INFO, resume=True, rows_per_group=1) as first:
        first.add(latent_row(0))
        for options in ({}, {"resume": True}, {"overwrite": True}):
            told = rf"{re.escape(str(folder))} is in use by .* \(a writer of a corpus, process {os.getpid()} "
            with pytest.raises(FolderInUseError, match=told):
                CorpusWriter(folder, INFO, **options)
        for number in range(1, 6):
            first.add(latent_row(number))
    assert first.info.num_episodes == 6
    assert load_corpus(folder)["id"][:] == [f"set/e{number}" for number in range(6)]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "data"]
    for closed in (lambda: first.add(latent_row(6)), first.close):
        with pytest.raises(ValueError, match="a writer of a corpus was closed: open another one to go on"):
            closed()


def test_after_a_writer_that_was_killed_another_resumes(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    program = """
        from tests.data.corpora.test_corpora import INFO, CorpusWriter, latent_row
        writer = CorpusWriter(sys.argv[1], INFO, rows_per_group=1)
        writer.add(latent_row(0))
    """
    with writing(program, folder) as process:
        with pytest.raises(FolderInUseError, match=rf"process {process.pid} on .* wait until it has ended"):
            CorpusWriter(folder, INFO, resume=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pytest.raises(ValueError, match="an interrupted run left 1 episodes here: pass resume=True"):
        CorpusWriter(folder, INFO)
    with CorpusWriter(folder, INFO, resume=True) as writer:
        assert writer.ids == {"set/e0"}
        writer.add(latent_row(1))
    assert load_corpus(folder)["id"][:] == ["set/e0", "set/e1"]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "data"]


def test_a_lock_that_was_left_in_a_corpus_disturbs_nobody(tmp_path: Path) -> None:
    for folder in (tmp_path / "empty", tmp_path / "c"):
        folder.mkdir()
        (folder / LOCK_FILE).write_text("{}")
        write_latent_action_corpus(folder, [latent_row(0)], info=INFO)
    (folder / LOCK_FILE).write_text("{}")
    assert load_corpus(folder)["id"][:] == ["set/e0"]
    assert datasets.load_dataset(str(folder))["train"]["id"][:] == ["set/e0"]
    write_latent_action_corpus(folder, [latent_row(1)], info=INFO, overwrite=True)
    assert load_corpus(folder)["id"][:] == ["set/e1"]
