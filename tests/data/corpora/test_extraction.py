"""From videos to the two corpora, with the real models at a tiny size."""

import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from torch import Tensor

from hilam_hf.data import (
    CorpusInfo,
    CorpusWriter,
    load_corpus,
    load_episode_frames,
    scan_videos,
    unfold_skills,
    unpack_boundaries,
)
from hilam_hf.data.corpora import extraction
from hilam_hf.data.corpora.extraction import encode_episodes, extract_latent_actions, extract_skill_corpus
from hilam_hf.data.episodes import RejectedVideo
from hilam_hf.fingerprint import weights_fingerprint
from hilam_hf.locks import FolderInUseError
from hilam_hf.models.hilam.configuration_hilam import HiLAMConfig
from hilam_hf.models.hilam.modeling_hilam import HiLAMModel
from hilam_hf.models.uniskill import UniSkillIDM
from hilam_hf.video import VideoError, VideoReader
from tests.models.latent_actions.test_dynamics import LATENT, SIZE, PairIDM, light_idm
from tests.numbered_videos import MakeVideo


@pytest.fixture
def videos(make_video: MakeVideo) -> Path:
    """Three usable clips of mixed size and rate."""
    make_video("a.mp4", num_frames=12)
    make_video("b/c.mp4", num_frames=9, fps=20, height=32, width=32)
    return make_video("d.mp4", num_frames=7).parent


def test_the_corpus_holds_what_the_model_says_of_every_pair(videos: Path, tmp_path: Path) -> None:
    idm, folder = light_idm(), scan_videos(videos, progress=False)
    options = {"root": videos, "model_name": "org/idm", "stride": 3, "batch_size": 4, "progress": False}
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
    extract_latent_actions(light_idm(), folder.episodes, tmp_path / "corpus", **options)
    strides = {row["id"]: row["stride"] for row in load_corpus(tmp_path / "corpus")}
    assert strides == {"a": 2, "b/c": 4, "d": 2}


def test_bad_videos_are_set_aside_and_the_run_goes_on(videos: Path, tmp_path: Path) -> None:
    episodes = scan_videos(videos, progress=False).episodes
    (videos / "a.mp4").write_bytes(b"overwritten after the scan")
    options = {"root": videos, "model_name": "m", "stride": 7, "progress": False}
    result = extract_latent_actions(light_idm(), episodes, tmp_path / "corpus", **options)
    assert {Path(video.path).name: video.reason.split(";")[0] for video in result.rejected}.keys() == {"a.mp4", "d.mp4"}
    assert "a latent action spans 7" in next(v.reason for v in result.rejected if v.path.endswith("d.mp4"))
    assert load_corpus(tmp_path / "corpus")["id"][:] == ["b/c"]


def test_an_interrupted_extraction_goes_on(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idm, episodes = light_idm(), scan_videos(videos, progress=False).episodes
    options = {"root": videos, "model_name": "m", "stride": 2, "batch_size": 4, "progress": False}
    extract_latent_actions(idm, episodes, tmp_path / "whole", **options)
    extract, calls = idm.extract_features, []

    def fail_at_fifth(frames: Tensor) -> Tensor:
        calls.append(len(frames))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return extract(frames)

    monkeypatch.setattr(idm, "extract_features", fail_at_fifth)
    # Batches of 12, 9 and 7 frames: the fifth holds no more of the first video.
    with pytest.raises(KeyboardInterrupt):
        extract_latent_actions(idm, episodes, tmp_path / "parts", **options)
    assert [thread for thread in threading.enumerate() if thread.name == "prefetch"] == []
    calls.clear()
    extract_latent_actions(idm, episodes, tmp_path / "parts", resume=True, **options | {"batch_size": 16})
    assert calls == [16]  # the other two; the first was not computed again
    parts, whole = (load_corpus(tmp_path / name) for name in ("parts", "whole"))
    for row, expected in zip(parts, whole, strict=True):
        # Frames that are batched otherwise are rounded otherwise.
        np.testing.assert_allclose(row.pop("latent_actions"), expected.pop("latent_actions"), atol=1e-5)
        assert row == expected


def interrupt(videos: Path, folder: Path, idm: UniSkillIDM, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """An extraction that stops after the second of three videos."""
    rows, make_row = [], extraction._row

    def fail_at_third(*arguments: Any) -> dict[str, Any]:
        rows.append(arguments)
        if len(rows) == 3:
            raise KeyboardInterrupt
        return make_row(*arguments)

    monkeypatch.setattr(extraction, "_row", fail_at_third)
    with pytest.raises(KeyboardInterrupt):
        extract_latent_actions(idm, scan_videos(videos, progress=False).episodes, folder, **options)
    monkeypatch.undo()


def test_rows_of_a_model_that_was_trained_again_are_not_mixed_with_its_own(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"root": videos, "model_name": "lam", "stride": 2, "progress": False}
    idm, again, folder = light_idm(), light_idm(), tmp_path / "corpus"
    interrupt(videos, folder, idm, monkeypatch, **options)
    with torch.no_grad():
        next(again.parameters()).mul_(1.01)
    old, new = weights_fingerprint(idm), weights_fingerprint(again)
    episodes = scan_videos(videos, progress=False).episodes
    with pytest.raises(ValueError, match=f"of another corpus .model_fingerprint '{old}' -> '{new}'"):
        extract_latent_actions(again, episodes, folder, resume=True, **options)
    info = extract_latent_actions(idm, episodes, folder, resume=True, **options).info
    assert CorpusInfo.from_card(folder).model_fingerprint == info.model_fingerprint == old


def test_a_run_begun_before_fingerprints_goes_on_with_a_warning(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"root": videos, "model_name": "lam", "stride": 2, "progress": False}
    folder = tmp_path / "corpus"
    interrupt(videos, folder, light_idm(), monkeypatch, **options)
    state = folder / ".incomplete" / "info.json"
    told = json.loads(state.read_text())
    for name in ("model_fingerprint", "skill_fingerprint"):
        del told["info"][name]
    state.write_text(json.dumps(told))
    for part in (folder / ".incomplete").glob("*.parquet"):
        pq.write_table(pq.read_table(part).drop_columns("made_from"), part)
    extract_latent_actions(light_idm(), scan_videos(videos, progress=False).episodes, folder, resume=True, **options)
    assert "does not say its model_fingerprint" in caplog.text and "whether their videos changed" in caplog.text
    assert load_corpus(folder)["id"][:] == ["a", "b/c", "d"]


def test_videos_that_were_replaced_deleted_or_described_again_lose_their_rows(
    videos: Path, tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"root": videos, "model_name": "lam", "stride": 2, "progress": False}
    interrupt(videos, tmp_path / "replaced", light_idm(), monkeypatch, **options)
    interrupt(videos, tmp_path / "described", light_idm(), monkeypatch, **options)
    (videos / "metadata.jsonl").write_text('{"file_name": "a.mp4", "language": "open it"}\n')
    episodes = scan_videos(videos, progress=False).episodes
    extract_latent_actions(light_idm(), episodes, tmp_path / "described", resume=True, **options)
    assert sorted(load_corpus(tmp_path / "described")["language"], key=str) == [None, None, "open it"]
    (videos / "metadata.jsonl").unlink()

    make_video("a.mp4", num_frames=9)
    (videos / "b" / "c.mp4").unlink()
    episodes = scan_videos(videos, progress=False).episodes
    extract_latent_actions(light_idm(), episodes, tmp_path / "replaced", resume=True, **options)
    rows = load_corpus(tmp_path / "replaced")
    assert dict(zip(rows["id"], rows["num_frames"], strict=True)) == {"a": 9, "d": 7}


@pytest.mark.parametrize("batch_size", [1, 5, 16, 64, "auto"])
def test_short_videos_that_share_batches_give_what_each_gives_alone(videos: Path, batch_size: int | str) -> None:
    idm, episodes = light_idm(), scan_videos(videos, progress=False).episodes
    strides = [3, 8, 2]
    found = list(encode_episodes(idm, episodes, strides, batch_size))
    for latents, episode, stride in zip(found, episodes, strides, strict=True):
        frames = load_episode_frames(episode, SIZE).float() / 255
        with torch.no_grad():
            expected = idm.encode(frames[:-stride], frames[stride:])
        torch.testing.assert_close(latents, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch_size", [4, 64])
def test_only_the_video_that_is_damaged_is_set_aside(
    videos: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    """The second of three videos fails at its ninth frame, when some of its latent actions are computed."""
    idm, episodes = light_idm(), scan_videos(videos, progress=False).episodes
    expected = list(encode_episodes(idm, episodes, [2, 2, 2], batch_size))
    read = VideoReader.read

    def fail_late(self: VideoReader, indices: range) -> Tensor:
        if self.path.name == "c.mp4" and indices[-1] == 8:
            raise VideoError.about(self.path, "frame 8 cannot be decoded")
        return read(self, indices)

    monkeypatch.setattr(VideoReader, "read", fail_late)
    first, second, third = encode_episodes(idm, episodes, [2, 2, 2], batch_size)
    assert second == RejectedVideo(episodes[1].path, "frame 8 cannot be decoded")
    for latents, whole in ((first, expected[0]), (third, expected[2])):
        torch.testing.assert_close(latents, whole, atol=1e-5, rtol=0)


def test_a_video_with_latents_that_are_not_finite_is_set_aside(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idm, episodes = light_idm(), scan_videos(videos, progress=False).episodes
    encode, pair = idm.encode_features, 12 - 3 + 2  # of the second video

    def spoil(features: Tensor, next_features: Tensor) -> Tensor:
        latents = encode(features, next_features)
        latents[pair, 0] = float("inf")
        return latents

    monkeypatch.setattr(idm, "encode_features", spoil)
    options = {"root": videos, "model_name": "m", "stride": 3, "batch_size": 64, "progress": False}
    result = extract_latent_actions(idm, episodes, tmp_path / "corpus", **options)
    assert [Path(video.path).name for video in result.rejected] == ["c.mp4"]
    assert "NaN or infinite" in result.rejected[0].reason
    assert load_corpus(tmp_path / "corpus")["id"][:] == ["a", "d"]
    torch.nn.init.constant_(idm.latent_proj.bias, float("nan"))
    with pytest.raises(ValueError, match="none of the 3 videos can be used; the first: its latent actions have NaN"):
        extract_latent_actions(idm, episodes, tmp_path / "other", **options)


def test_a_video_that_is_gone_ends_the_run(videos: Path, tmp_path: Path) -> None:
    episodes = scan_videos(videos, progress=False).episodes
    (videos / "b/c.mp4").unlink()
    options = {"root": videos, "model_name": "m", "stride": 2, "progress": False}
    with pytest.raises(FileNotFoundError, match=r"c\.mp4: there is no such video file"):
        extract_latent_actions(light_idm(), episodes, tmp_path / "corpus", **options)


class DiscreteIDM(PairIDM):
    """The codes of two frames are the eighths of the range in which their first pixels lie."""

    @property
    def codebook(self) -> Tensor:
        return torch.linspace(0, 1, 8)[:, None]

    def encode_features(self, features: Tensor, next_features: Tensor) -> Tensor:
        return (super().encode_features(features, next_features) * 7.999).long()


def test_rows_hold_codes_as_whole_numbers(videos: Path, tmp_path: Path) -> None:
    idm, episodes = DiscreteIDM(), scan_videos(videos, progress=False).episodes
    latents = next(iter(encode_episodes(idm, episodes[:1], [2])))
    assert latents.dtype == torch.int64
    options = {"root": videos, "model_name": "m", "stride": 2, "progress": False}
    extract_latent_actions(idm, episodes, tmp_path / "corpus", **options)
    row = load_corpus(tmp_path / "corpus")[0]
    # Frame t is plain grey of value 10 + 6 t.
    codes = [int((10 + 6 * t) / 255 * 7.999) for t in range(12)]
    assert row["latent_actions"] == [[float(codes[t]), float(codes[t + 2])] for t in range(10)]
    assert latents.tolist() == row["latent_actions"]


def test_skills_are_those_of_the_model_and_keep_the_splits(videos: Path, tmp_path: Path) -> None:
    folder = scan_videos(videos, progress=False)
    options = {"root": videos, "model_name": "m", "stride": 2, "progress": False}
    source = tmp_path / "latent-actions"
    info = extract_latent_actions(light_idm(), folder.episodes, source, validation_ids={"a"}, **options).info
    torch.manual_seed(0)
    model = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=LATENT, stride=2)).eval()
    model.set_latent_statistics(torch.tensor(info.mean), torch.tensor(info.std))
    splits = {split: load_corpus(source, split) for split in ("train", "validation")}
    result = extract_skill_corpus(model, splits, info, tmp_path / "skills", model_name="org/hilam", progress=False)
    assert result.info.splits == {"train": 2, "validation": 1}
    fingerprints = (result.info.model_fingerprint, result.info.skill_fingerprint)
    assert fingerprints == (weights_fingerprint(light_idm()), weights_fingerprint(model))
    for split, corpus in splits.items():
        for row, latent_row in zip(load_corpus(tmp_path / "skills", split), corpus, strict=True):
            extraction = model.extract_skills(torch.tensor(latent_row["latent_actions"]))
            assert row["id"] == latent_row["id"]
            for stage in (1, 2):
                expected = extraction.stages[stage]
                np.testing.assert_array_equal(unpack_boundaries(row, stage), expected.boundaries)
                np.testing.assert_allclose(unfold_skills(row, stage), expected.unfold(), atol=1e-5)


def test_skills_of_a_hilam_of_another_latent_action_model_are_refused(videos: Path, tmp_path: Path) -> None:
    options = {"root": videos, "model_name": "m", "stride": 2, "progress": False}
    episodes, source = scan_videos(videos, progress=False).episodes, tmp_path / "latent-actions"
    info = extract_latent_actions(light_idm(), episodes, source, **options).info
    config = HiLAMConfig.preset("tiny", latent_dim=LATENT, stride=2, idm_fingerprint="b" * 16)
    with pytest.raises(ValueError, match=f"fingerprint {info.model_fingerprint}, the HiLAM model of b"):
        extract_skill_corpus(HiLAMModel(config), {}, info, tmp_path / "skills", model_name="m", progress=False)
    assert not (tmp_path / "skills").exists()


def test_skills_that_were_interrupted_go_on(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scan_videos(videos, progress=False)
    source = tmp_path / "latent-actions"
    options = {"root": videos, "model_name": "m", "stride": 2, "progress": False}
    info = extract_latent_actions(light_idm(), folder.episodes, source, **options).info
    torch.manual_seed(0)
    model = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=LATENT, stride=2)).eval()
    model.set_latent_statistics(torch.tensor(info.mean), torch.tensor(info.std))
    splits, options = {"train": load_corpus(source)}, {"model_name": "m", "batch_size": 1, "progress": False}
    extract_skill_corpus(model, splits, info, tmp_path / "whole", **options)
    extract, sizes = model.extract_skills, []

    def fail_at_second(sequences: list[Tensor]) -> Any:
        sizes.append(len(sequences))
        if len(sizes) == 2:
            raise KeyboardInterrupt
        return extract(sequences)

    monkeypatch.setattr(model, "extract_skills", fail_at_second)
    with pytest.raises(KeyboardInterrupt):
        extract_skill_corpus(model, splits, info, tmp_path / "parts", **options)
    with pytest.raises(ValueError, match="an interrupted run left 1 episodes here: pass resume=True"):
        extract_skill_corpus(model, splits, info, tmp_path / "parts", **options)
    extract_skill_corpus(model, splits, info, tmp_path / "parts", resume=True, **options)
    assert len(sizes) == 4  # the second again and the third, but not the first
    assert load_corpus(tmp_path / "parts")[:] == load_corpus(tmp_path / "whole")[:]


def test_skills_of_a_corpus_that_was_made_again_are_not_mixed(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row is written, then the same model gives the corpus another stride for the same ids."""
    episodes, source = scan_videos(videos, progress=False).episodes, tmp_path / "latent-actions"
    options = {"root": videos, "model_name": "m", "stride_seconds": 0.2, "progress": False}
    info = extract_latent_actions(light_idm(), episodes, source, **options).info
    model = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=LATENT, stride=None, stride_seconds=0.2)).eval()
    model.set_latent_statistics(torch.tensor(info.mean), torch.tensor(info.std))
    add = CorpusWriter.add

    def fail_at_second(writer: CorpusWriter, *arguments: Any, **told: Any) -> None:
        if writer.ids:
            raise KeyboardInterrupt
        add(writer, *arguments, **told)

    skills = {"model_name": "m", "progress": False}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CorpusWriter, "add", fail_at_second)
        extract_skill_corpus(model, {"train": load_corpus(source)}, info, tmp_path / "skills", **skills)
    (videos / "metadata.jsonl").write_text('{"file_name": "a.mp4", "fps": 20}\n')
    episodes = scan_videos(videos, progress=False).episodes
    again = extract_latent_actions(light_idm(), episodes, source, overwrite=True, **options).info
    splits = {"train": load_corpus(source)}
    extract_skill_corpus(model, splits, again, tmp_path / "skills", resume=True, **skills)
    rows = load_corpus(tmp_path / "skills")
    assert dict(zip(rows["id"], rows["stride"], strict=True)) == {"a": 4, "b/c": 4, "d": 2}


@pytest.mark.parametrize("which", ["latent actions", "skills"])
def test_a_second_extraction_into_the_folder_is_refused(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """It comes while the first one adds a row, and must change nothing of it."""
    episodes, source, out = scan_videos(videos, progress=False).episodes, tmp_path / "latent-actions", tmp_path / "out"
    options = {"root": videos, "model_name": "m", "stride": 2, "progress": False}
    info = extract_latent_actions(light_idm(), episodes, source, **options).info
    model = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=LATENT, stride=2)).eval()
    model.set_latent_statistics(torch.tensor(info.mean), torch.tensor(info.std))

    def extract(**more: bool) -> None:
        if which == "skills":
            splits = {"train": load_corpus(source)}
            extract_skill_corpus(model, splits, info, out, model_name="m", progress=False, **more)
        else:
            extract_latent_actions(light_idm(), episodes, out, **options, **more)

    add, refused = CorpusWriter.add, []

    def add_meanwhile(writer: CorpusWriter, *arguments: Any, **told: Any) -> None:
        for more in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(FolderInUseError, match=re.escape(str(out))):
                extract(**more)
            refused.append(more)
        add(writer, *arguments, **told)

    monkeypatch.setattr(CorpusWriter, "add", add_meanwhile)
    extract()
    assert len(refused) == 6 and load_corpus(out)["id"][:] == ["a", "b/c", "d"]
