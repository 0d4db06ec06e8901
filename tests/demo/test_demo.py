"""The main job in miniature, end to end, on the real simulator and through the command line."""

import json
from pathlib import Path

import pytest
from datasets import load_dataset
from transformers import AutoModel

from hilam_hf.demo import DemoConfig, run_demo
from hilam_hf.demo.schema import check_report
from hilam_hf.models.hierarchical.modeling_hierarchical import HierarchicalPolicy
from hilam_hf.models.hilam.modeling_hilam import HiLAMModel
from hilam_hf.models.latent_actions.auto import AutoForwardDynamicsModel, AutoInverseDynamicsModel
from tests.cli.test_cli import run
from tests.numbered_videos import MakeVideo


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished miniature demo."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    assert run("demo", "--smallest", "--out", folder) == 0
    return folder


@pytest.mark.sim
def test_the_report_says_what_came_out(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    check_report(report)
    assert {"lam", "hilam", "skills", "policies", "provenance"} <= set(report)
    assert report["lam"]["error_vs_copy"] == pytest.approx(
        report["lam"]["next_frame_error"] / report["lam"]["copy_error"]
    )
    assert -5 < report["lam"]["probe_r2"] <= 1
    assert [stage["stage"] for stage in report["hilam"]["stages"]] == [1, 2]
    assert report["skills"]["num_episodes"] == 3
    for arm in ("with_pretraining", "without_pretraining"):
        assert report["policies"][arm]["overall"]["trials"] == 1
    page = (finished / "report.html").read_text()
    assert "<video" in page
    assert page.count("data:image/png") >= 8


@pytest.mark.sim
def test_every_artifact_loads_as_the_report_says(finished: Path) -> None:
    loaders = {
        "AutoInverseDynamicsModel": AutoInverseDynamicsModel,
        "AutoForwardDynamicsModel": AutoForwardDynamicsModel,
        "HiLAMModel": HiLAMModel,
        "HierarchicalPolicy": HierarchicalPolicy,
    }
    artifacts = json.loads((finished / "report.json").read_text())["artifacts"]
    assert len(artifacts) == 8
    for artifact in artifacts:
        kind = artifact["load"].partition(".")[0].partition("(")[0]
        path = finished / artifact["path"]
        if kind == "load_dataset":
            assert len(load_dataset(str(path), split="train")) == 2
        else:
            assert type(loaders[kind].from_pretrained(path)) is type(AutoModel.from_pretrained(path))


@pytest.mark.sim
def test_pretraining_videos_carry_no_actions(finished: Path) -> None:
    columns = load_dataset(str(finished / "corpora" / "latent-skills"), split="train").column_names
    assert [column for column in columns if "action" in column] == ["latent_actions"]
    metadata = (finished / "recordings" / "videos" / "metadata.jsonl").read_text()
    assert "action" not in metadata


@pytest.mark.sim
def test_a_finished_demo_is_not_done_again_and_another_one_is_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((finished / "demo.json").read_text())["steps"]
    assert run("demo", "--smallest", "--out", finished) == 0
    assert "Going on with the run" in capsys.readouterr().out
    assert json.loads((finished / "demo.json").read_text())["steps"] == before
    assert run("demo", "--smallest", "--seed", "1", "--out", finished) == 1
    assert "holds a demo with other options" in capsys.readouterr().err


def test_any_folder_of_videos_goes_through_the_video_half(
    tmp_path: Path,
    make_video: MakeVideo,
) -> None:
    for name, frames in (("a.mp4", 20), ("b.webm", 12), ("c.mp4", 16), ("short.mp4", 3)):
        videos = make_video(name, num_frames=frames).parent
    (videos / "bad.avi").write_bytes(b"")
    config = DemoConfig.smallest()
    config.videos = str(videos)
    report = run_demo(config, tmp_path / "out").record
    assert "policies" not in report
    assert report["lam"]["probe_r2"] is None
    assert {Path(video["path"]).name for video in report["lam"]["rejected"]} == {"short.mp4", "bad.avi"}
    assert report["skills"]["num_episodes"] == 3
    assert (tmp_path / "out" / "report.html").is_file()
