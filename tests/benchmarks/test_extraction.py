"""The extraction benchmark: both ways give the same latent actions, and its arithmetic."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from hilam_hf.models.latent_actions.dynamics import InverseDynamicsModel
from tests.benchmarks.scripts import import_script

NAMES = ("dinov2", "light", "uniskill")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return import_script("extraction")


@pytest.fixture(scope="module")
def run(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> object:
    options = script.parse(["--quick", "--clips", "2", "--weights", *NAMES])
    return script.run_of(options, tmp_path_factory.mktemp("benchmark"))


def test_every_kind_of_weights_gives_the_same_both_ways(script: ModuleType, run: object) -> None:
    claims = script.compare_speed(run)
    assert [claim.name for claim in claims] == [f"extraction-{name}" for name in NAMES]
    assert all(claim.ratio > 0 and claim.aim == 1.9 for claim in claims)


def test_the_plain_loop_computes_both_frames_of_every_pair_and_ours_each_frame_once(
    script: ModuleType, run: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dataclasses.replace(run, strides=[1, 3])
    idm, counts = run.idm("light"), []
    extract = idm.extract_features
    monkeypatch.setattr(idm, "extract_features", lambda frames: counts.append(len(frames)) or extract(frames))
    for task, expected in ((script.ours, 24), (script.plain, 2 * (11 + 9))):
        counts.clear()
        task(run, idm, 8)
        assert sum(counts) == expected
    assert run.num_frames == 24
    assert run.best_ratio == pytest.approx(40 / 24)


def test_other_outputs_are_refused(script: ModuleType) -> None:
    zeros = [torch.zeros(3, 2)]
    assert script.largest_difference(zeros, zeros) == 0
    for other in (torch.full((3, 2), 2e-5), torch.full((3, 2), torch.nan)):
        with pytest.raises(RuntimeError, match="latent actions differ by"):
            script.largest_difference(zeros, [other])
    with pytest.raises(RuntimeError, match="different numbers"):
        script.largest_difference(zeros, [torch.zeros(2, 2)])


def test_what_is_hidden_of_the_shorter_task(script: ModuleType) -> None:
    assert script.hidden_share(reading=2, computing=10, both=12) == 0
    assert script.hidden_share(reading=2, computing=10, both=10) == 1
    assert script.hidden_share(reading=8, computing=4, both=10) == 0.5


def test_decoding_is_measured(script: ModuleType, run: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "HIDDEN_SIZE", (64, 64))
    threads = torch.get_num_threads()
    (claim,) = script.measure_decoding(run)
    assert (claim.name, claim.peer) == ("extraction-hidden", 0.8)
    assert torch.get_num_threads() == threads


def test_the_peak_of_a_long_video(script: ModuleType, tmp_path: Path) -> None:
    path = script.write_long_video(tmp_path / "long" / "long.mp4", seconds=120)
    assert script.VideoReader(path).info.num_frames == 1200
    assert script.peak_of(path, torch.device("cpu")) > 0


def test_the_networks_have_the_published_sizes(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    models, made = sys.modules["_extraction_models"], {}
    monkeypatch.setattr(models.DepthAnythingForDepthEstimation, "save_pretrained", lambda self, _: made.update(it=self))
    monkeypatch.setattr(models.DPTImageProcessorPil, "save_pretrained", lambda self, _: None)
    models.save_depth_network(Path("depth"), tiny=False)
    # Depth Anything V2 Small: 24.8 million parameters.
    assert sum(weight.numel() for weight in made["it"].parameters()) == 24_785_089


def test_command_line(script: ModuleType, run: object, tmp_path: Path) -> None:
    folder = str(Path(run.clips[0].path).parent)
    asked = script.parse(["--videos", folder, "--stride-seconds", "0.3", "--clips", "9", "--repetitions", "5"])
    found = script.run_of(asked, tmp_path)
    assert (len(found.clips), found.strides, found.repetitions) == (2, [3, 3], 5)
    assert (found.weights, run.strides) == (("dinov2",), [1, 1])
    assert isinstance(run.idm("light"), InverseDynamicsModel)
