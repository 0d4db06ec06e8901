"""From videos to the two corpora, with the real models at a tiny size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_dataset

from hilam_hf import HiLAMConfig, HiLAMModel
from hilam_hf.data import load_corpus, load_episode_frames, scan_videos, unfold_skills, unpack_boundaries
from hilam_hf.data.extraction import extract_latent_actions, extract_skill_corpus
from tests.models.test_uniskill import LATENT, SIZE, tiny_idm
from tests.numbered_videos import MakeVideo


@pytest.fixture
def videos(make_video: MakeVideo) -> Path:
    """Three usable clips of mixed size and rate."""
    make_video("a.mp4", num_frames=12)
    make_video("b/c.mp4", num_frames=9, fps=20, height=32, width=32)
    return make_video("d.mp4", num_frames=7).parent


def test_the_corpus_holds_what_the_model_says_of_every_pair(videos: Path, tmp_path: Path) -> None:
    idm, folder = tiny_idm(), scan_videos(videos, progress=False)
    options = {"root": videos, "model_name": "org/idm", "stride": 3, "chunk_size": 4, "progress": False}
    result = extract_latent_actions(idm, folder.episodes, tmp_path / "corpus", validation_ids={"d"}, **options)
    train, validation = (load_dataset(str(tmp_path / "corpus"), split=split) for split in ("train", "validation"))
    assert (train["id"][:], validation["id"][:]) == (["a", "b/c"], ["d"])
    for row, episode in zip([*train, *validation], folder.episodes, strict=True):
        frames = load_episode_frames(episode, SIZE).float() / 255
        with torch.no_grad():
            expected = idm.encode(frames[:-3], frames[3:])
        np.testing.assert_allclose(row["latent_actions"], expected, atol=1e-5)
        assert row["frame_indices"] == list(range(episode.num_frames - 3))
        assert (videos / row["video"]).is_file()
    latents = np.concatenate([np.asarray(row["latent_actions"]) for row in train])
    np.testing.assert_allclose(result.info.mean, latents.mean(0), atol=1e-5)
    assert (result.info.stride, result.info.model, result.info.latent_dim) == (3, "org/idm", LATENT)


def test_a_stride_in_seconds_follows_each_rate(videos: Path, tmp_path: Path) -> None:
    folder = scan_videos(videos, progress=False)
    options = {"root": videos, "model_name": "m", "stride_seconds": 0.2, "progress": False}
    extract_latent_actions(tiny_idm(), folder.episodes, tmp_path / "corpus", **options)
    strides = {row["id"]: row["stride"] for row in load_corpus(tmp_path / "corpus")}
    assert strides == {"a": 2, "b/c": 4, "d": 2}


def test_bad_videos_are_set_aside_and_the_run_goes_on(videos: Path, tmp_path: Path) -> None:
    episodes = scan_videos(videos, progress=False).episodes
    (videos / "a.mp4").write_bytes(b"overwritten after the scan")
    options = {"root": videos, "model_name": "m", "stride": 7, "progress": False}
    result = extract_latent_actions(tiny_idm(), episodes, tmp_path / "corpus", **options)
    assert {Path(video.path).name: video.reason.split(";")[0] for video in result.rejected}.keys() == {"a.mp4", "d.mp4"}
    assert "a latent action spans 7" in next(v.reason for v in result.rejected if v.path.endswith("d.mp4"))
    assert load_corpus(tmp_path / "corpus")["id"][:] == ["b/c"]


def test_an_interrupted_extraction_goes_on(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idm, episodes = tiny_idm(), scan_videos(videos, progress=False).episodes
    options = {"root": videos, "model_name": "m", "stride": 2, "progress": False}
    extract_latent_actions(idm, episodes, tmp_path / "whole", **options)
    encode, calls = idm.encode_chunks, []

    def fail_at_second(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(*arguments)

    monkeypatch.setattr(idm, "encode_chunks", fail_at_second)
    with pytest.raises(KeyboardInterrupt):
        extract_latent_actions(idm, episodes, tmp_path / "parts", **options)
    extract_latent_actions(idm, episodes, tmp_path / "parts", resume=True, **options)
    assert len(calls) == 4  # the first episode was not computed again
    assert list(load_corpus(tmp_path / "parts")) == list(load_corpus(tmp_path / "whole"))


def test_skills_are_those_of_the_model_and_keep_the_splits(videos: Path, tmp_path: Path) -> None:
    folder = scan_videos(videos, progress=False)
    options = {"root": videos, "model_name": "m", "stride": 2, "progress": False}
    source = tmp_path / "latent-actions"
    info = extract_latent_actions(tiny_idm(), folder.episodes, source, validation_ids={"a"}, **options).info
    torch.manual_seed(0)
    model = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=LATENT, stride=2)).eval()
    model.set_latent_statistics(torch.tensor(info.mean), torch.tensor(info.std))
    splits = {split: load_corpus(source, split) for split in ("train", "validation")}
    result = extract_skill_corpus(model, splits, info, tmp_path / "skills", model_name="org/hilam", progress=False)
    assert result.info.splits == {"train": 2, "validation": 1}
    for split, corpus in splits.items():
        for row, latent_row in zip(load_corpus(tmp_path / "skills", split), corpus, strict=True):
            extraction = model.extract_skills(torch.tensor(latent_row["latent_actions"]))
            assert row["id"] == latent_row["id"]
            for stage in (1, 2):
                expected = extraction.stages[stage]
                np.testing.assert_array_equal(unpack_boundaries(row, stage), expected.boundaries)
                np.testing.assert_allclose(unfold_skills(row, stage), expected.unfold(), atol=1e-5)
