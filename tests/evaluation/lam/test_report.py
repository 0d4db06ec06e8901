"""The report from videos to files, on models whose faults are known."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hilam_hf.data import LiberoHdf5Writer, VideoRecordingWriter
from hilam_hf.data.episodes import Episode, scan_videos
from hilam_hf.evaluation.lam import report as module
from hilam_hf.evaluation.lam.pairs import encode_pairs
from hilam_hf.evaluation.lam.report import LamReport, LamReportOptions, lam_report, plain, write_lam_report
from hilam_hf.locks import FolderInUseError, FolderLock
from hilam_hf.training.lam.data import lam_episodes
from tests.evaluation.lam.stand_ins import (
    BothModels,
    BrightnessFDM,
    BrightnessIDM,
    BrokenIDM,
    CodeIDM,
    ConstantIDM,
    LooksIDM,
    NoisyFDM,
    OneCodeIDM,
    grey_video,
    walk,
    walk_videos,
)
from tests.numbered_videos import MakeVideo
from tests.robot_recordings import demonstration, small_demonstration

OPTIONS = LamReportOptions(stride=1, num_examples=2, num_transfers=1, transfer_length=1)


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> list[Episode]:
    folder = walk_videos(tmp_path_factory.mktemp("walks"), [20] * 6)
    return scan_videos(folder, progress=False).episodes


def codes_of(report: LamReport, severity: str = "warning") -> list[str]:
    return [finding.code for finding in report.findings if finding.severity == severity]


def strict_json(path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_an_oracle_has_no_warning(episodes: list[Episode], tmp_path: Path) -> None:
    report = lam_report(BrightnessIDM(), BrightnessFDM(), episodes, OPTIONS, model_name="oracle")
    assert report.warnings == ()
    assert report.errors is not None and report.errors.error_vs_copy is not None
    assert report.errors.error_vs_copy < 0.01
    assert report.errors.shuffled_vs_own is not None and report.errors.shuffled_vs_own > 10
    assert (report.num_videos, report.num_pairs) == (6, 6 * 19)
    page = report.write(tmp_path)
    record = strict_json(tmp_path / "report.json")
    assert record == report.to_dict()
    assert record["decoding"]["error_vs_copy"] == report.errors.error_vs_copy
    assert record["provenance"]["model"]["name"] == "oracle"
    assert record["provenance"]["options"]["stride"] == 1
    assert [e["id"] for e in record["decoding"]["episodes"]] == [episode.id for episode in episodes]
    assert page.read_text().count("data:image/png") == 5


@pytest.mark.parametrize(
    ("idm", "fdm", "warnings"),
    [
        (BrightnessIDM, lambda: BrightnessFDM(0.0), {"decoder_ignores_latents", "worse_than_copy"}),
        (BrightnessIDM, NoisyFDM, {"decoder_ignores_latents", "worse_than_copy"}),
        # The wrong way round, another video's latent action is on average less wrong than the own one.
        (BrightnessIDM, lambda: BrightnessFDM(-1.0), {"decoder_ignores_latents", "worse_than_copy"}),
        (ConstantIDM, BrightnessFDM, {"constant_latents", "decoder_ignores_latents", "worse_than_copy"}),
        (ConstantIDM, None, {"constant_latents"}),
        (OneCodeIDM, None, {"codebook_collapse", "dead_codes"}),
        (BrokenIDM, BrightnessFDM, {"latents_not_finite", "predictions_not_finite"}),
    ],
)
def test_faults_are_found(episodes: list[Episode], idm: Any, fdm: Any, warnings: set[str]) -> None:
    report = lam_report(idm(), None if fdm is None else fdm(), episodes, OPTIONS)
    assert set(codes_of(report)) == warnings
    json.dumps(report.to_dict(), allow_nan=False)
    assert all(finding.reason in report.text() for finding in report.findings)


def test_latents_that_describe_looks_are_noted(episodes: list[Episode]) -> None:
    report = lam_report(LooksIDM(), None, episodes, OPTIONS)
    assert "latents_describe_looks" in codes_of(report, "note")
    assert report.appearance.still_share == pytest.approx(1)
    assert lam_report(BrightnessIDM(), None, episodes, OPTIONS).appearance.still_share == 0


def test_without_a_decoder_everything_else_is_there(episodes: list[Episode], tmp_path: Path) -> None:
    report = lam_report(BrightnessIDM(), None, episodes, OPTIONS)
    assert report.errors is None and report.pictures is None
    page = report.write(tmp_path).read_text()
    assert page.count("this model has no forward dynamics model") == 3
    assert report.to_dict()["decoding"] == {"reason": "this model has no forward dynamics model"}
    assert "no forward dynamics model" in report.text()


def test_discrete_latents_and_one_model_that_is_both(episodes: list[Episode]) -> None:
    model = BothModels()
    model.train()
    report = lam_report(model, model, episodes, OPTIONS)
    assert model.training
    assert report.codes is not None and report.errors is not None
    assert report.codes.used == (2, 1)
    assert report.codes.dead_codes == (2,)
    assert report.errors.error_vs_copy is not None and report.errors.error_vs_copy < 0.5
    assert report.latents.width == 4
    assert "perplexity 1.5 of 4 codes a position" in report.text()


def test_inverse_and_forward_model_may_see_different_sizes(episodes: list[Episode]) -> None:
    report = lam_report(BrightnessIDM(image_size=8), BrightnessFDM(image_size=12), episodes, OPTIONS)
    assert report.warnings == ()
    assert report.pictures is not None
    assert report.pictures.predictions.frames.shape == (2, 3, 12, 12)


def test_the_same_seed_gives_the_same_report(episodes: list[Episode]) -> None:
    first, again = (lam_report(CodeIDM(), NoisyFDM(), episodes, OPTIONS).to_dict() for _ in range(2))
    assert first == again


def test_limits_hold(episodes: list[Episode]) -> None:
    options = LamReportOptions(stride=1, max_pairs=12, max_decoded_pairs=6, num_examples=2, num_transfers=0)
    report = lam_report(BrightnessIDM(), BrightnessFDM(), episodes, options)
    assert report.num_pairs == 12
    assert report.errors is not None and report.errors.num_pairs == 6
    assert report.pictures is not None and report.pictures.transfers == ()


def test_videos_shorter_than_the_stride_are_set_aside(tmp_path: Path) -> None:
    episodes = scan_videos(walk_videos(tmp_path, [3, 12, 4, 12]), progress=False).episodes
    report = lam_report(BrightnessIDM(), BrightnessFDM(), episodes, LamReportOptions(stride=4))
    assert report.num_videos == 2
    assert [(Path(video.path).name, video.reason) for video in report.rejected] == [
        ("00.mp4", "it holds 3 frames; a latent action spans 4: use a smaller stride"),
        ("02.mp4", "it holds 4 frames; a latent action spans 4: use a smaller stride"),
    ]
    with pytest.raises(
        ValueError, match=r"none of the 4 videos has a pair of frames at this stride; the first: .*00.m"
    ):
        lam_report(BrightnessIDM(), None, episodes, LamReportOptions(stride=12))
    with pytest.raises(ValueError, match="the videos have one pair of frames"):
        lam_report(BrightnessIDM(), None, episodes[:1], LamReportOptions(stride=2))


def test_a_stride_in_seconds_follows_each_videos_rate(tmp_path: Path) -> None:
    grey_video(tmp_path / "slow.mp4", walk(20, 0), fps=5)
    grey_video(tmp_path / "fast.mp4", walk(20, 1), fps=20)
    episodes = scan_videos(tmp_path, progress=False).episodes
    report = lam_report(BrightnessIDM(), None, episodes, LamReportOptions(stride_seconds=0.4))
    assert report.provenance["strides_in_frames"] == [2, 8]
    assert report.num_pairs == 12 + 18


def test_still_videos_are_told_and_have_no_ratio(tmp_path: Path) -> None:
    for number in range(3):
        grey_video(tmp_path / f"{number}.mp4", [100 + number] * 10)
    episodes = scan_videos(tmp_path, progress=False).episodes
    report = lam_report(BrightnessIDM(), BrightnessFDM(), episodes, OPTIONS)
    assert "nothing_moves" in codes_of(report) and "constant_latents" in codes_of(report)
    assert "worse_than_copy" not in codes_of(report)
    assert report.to_dict()["decoding"]["error_vs_copy"] is None


def test_one_video_is_enough_for_what_needs_no_other(tmp_path: Path) -> None:
    episodes = scan_videos(walk_videos(tmp_path, [15]), progress=False).episodes
    report = lam_report(BrightnessIDM(), BrightnessFDM(), episodes, OPTIONS)
    assert report.errors is not None
    assert report.errors.shuffled_within_episode == 14
    assert report.errors.error_vs_copy_interval is None
    assert codes_of(report, "note") == ["one_video"]
    assert report.pictures is not None and report.pictures.transfers == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "stride: give it either in frames or in seconds"),
        ({"stride": 1, "stride_seconds": 1.0}, "stride: give it either in frames or in seconds"),
        ({"stride": 0}, "stride: got 0 frames"),
        ({"stride": 1, "max_pairs": 1}, "max_pairs: got 1, expected at least 2"),
        ({"stride": 1, "batch_size": 0}, "batch_size: got 0, expected at least 1"),
        ({"stride": 1, "num_transfers": -1}, "num_transfers: got -1, expected at least 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LamReportOptions(**options)


def test_plain_values_are_json() -> None:
    value = {1: (np.float32(0.5), np.int64(3), math.nan, math.inf), "a": Episode("i", "p", None, None, 1.0, 2, 3, 4)}
    assert plain(value)["1"] == [0.5, 3, None, None]
    assert plain(value)["a"]["num_frames"] == 2
    json.dumps(plain(value), allow_nan=False)


def bright_walk(number: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Frames (15, 16, 16, 3), and positions (15, 3) of an end effector that moves along x as their brightness does."""
    values = np.array(walk(15, number))
    frames = np.broadcast_to(values.astype(np.uint8)[:, None, None, None], (15, 16, 16, 3)).copy()
    return frames, np.stack([values / 255, np.random.default_rng(number).normal(size=15), np.zeros(15)], axis=1)


def record_metaworld(root: Path) -> None:
    with VideoRecordingWriter(root) as writer:
        for number in range(6):
            frames, positions = bright_walk(number)
            name = f"push/episode_{number:05d}"
            writer.add(small_demonstration(name, 15, frames={"front": frames}, ee_positions=positions))


def record_libero(root: Path) -> None:
    with LiberoHdf5Writer(root) as writer:
        for number in range(6):
            frames, positions = bright_walk(number)
            cameras = {"agentview": frames, "robot0_eye_in_hand": np.zeros_like(frames)}
            writer.add(demonstration(15, number, frames=cameras, ee_positions=positions))


@pytest.mark.parametrize("record", [record_metaworld, record_libero])
def test_a_recording_is_probed_for_its_motion(
    record: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_latent_action_model", lambda name, revision: (BrightnessIDM(), None))
    root = tmp_path / "recording"
    record(root)
    report = write_lam_report("org/model", root, tmp_path / "out", OPTIONS, progress=False)
    # A recording without videos of its own gets them beside the report.
    assert (tmp_path / "out" / "videos").is_dir() == (record is record_libero)
    assert report.warnings == ()
    written = strict_json(tmp_path / "out" / "report.json")
    assert written["probe"]["names"] == ["x", "y"] and written["probe"]["constant_dimensions"] == ["z"]
    along, across = written["probe"]["r2_per_dimension"]
    assert along > 0.99 and across < 0.2
    assert written["provenance"]["model"]["name"] == "org/model"
    assert "R² of a linear probe" in report.text()


def test_plain_videos_say_that_there_is_no_probe(
    make_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_latent_action_model", lambda name, revision: (BrightnessIDM(), None))
    make_video("a.mp4")
    make_video("b.mp4")
    (tmp_path / "videos" / "c.mp4").write_bytes(b"no video")
    report = write_lam_report("org/model", tmp_path / "videos", tmp_path / "out", OPTIONS, progress=False)
    assert [Path(video.path).name for video in report.rejected] == ["c.mp4"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Not measured: no actions or positions are known for these videos." in page
    assert "c.mp4" in page


def test_only_the_videos_that_training_held_out_are_looked_at(tmp_path: Path) -> None:
    # One too short for a pair counts in neither place.
    episodes = scan_videos(walk_videos(tmp_path / "videos", [12, 2, 12, 12, 12, 12]), progress=False).episodes
    _, expected = lam_episodes(episodes, stride=2, held_out_fraction=0.5)
    options = dataclasses.replace(OPTIONS, stride=2, held_out_fraction=0.5)
    report = lam_report(BrightnessIDM(), None, episodes, options)
    assert report.num_videos == len(expected) == 2
    kept = encode_pairs(BrightnessIDM(), expected, [2, 2], kept_size=None, max_pairs=100, max_kept=1, batch_size=4)
    assert report.mean_change == pytest.approx(kept.changes.mean())


def test_a_folder_without_usable_videos_or_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        write_lam_report(tmp_path / "lam", tmp_path / "none", tmp_path / "out", OPTIONS)
    (tmp_path / "videos").mkdir()
    with pytest.raises(ValueError, match="no videos here"):
        write_lam_report(tmp_path / "lam", tmp_path / "videos", tmp_path / "out", OPTIONS)
    grey_video(tmp_path / "videos" / "a.mp4", walk(5, 0))
    with pytest.raises(FileNotFoundError, match="lam: there is no such folder"):
        write_lam_report(tmp_path / "lam", tmp_path / "videos", tmp_path / "out", OPTIONS, progress=False)
    assert not (tmp_path / "out").exists()


def test_half_precision_models_are_measured(episodes: list[Episode]) -> None:
    idm, fdm = BrightnessIDM().to(torch.bfloat16), BrightnessFDM().to(torch.bfloat16)
    report = lam_report(idm, fdm, episodes, OPTIONS)
    assert report.errors is not None and report.errors.error_vs_copy is not None
    assert report.errors.error_vs_copy < 0.1
    assert report.provenance["model"]["dtype"] == "bfloat16"


def test_the_report_does_not_say_where_model_and_videos_lay(episodes) -> None:
    report = lam_report(BrightnessIDM(), None, episodes, OPTIONS, model_name="/disk/ada/lam", videos="/disk/ada/videos")
    assert (report.provenance["model"]["name"], report.provenance["videos"]) == ("lam", "videos")


def test_a_second_report_into_the_folder_is_refused(tmp_path: Path) -> None:
    grey_video(tmp_path / "videos" / "a.mp4", walk(5, 0))
    with FolderLock(tmp_path / "out", "hilam lam-report"), pytest.raises(FolderInUseError, match=str(tmp_path / "out")):
        write_lam_report(tmp_path / "lam", tmp_path / "videos", tmp_path / "out", OPTIONS, progress=False)
