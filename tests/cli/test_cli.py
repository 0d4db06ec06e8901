"""The command line: help, the way from videos to skills, and one clear line for every mistake."""

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hilam_hf import cli
from hilam_hf.cli import latents
from hilam_hf.cli.simulation import parse_numbers
from hilam_hf.data import CorpusInfo, load_corpus
from hilam_hf.models.hilam.modeling_hilam import HiLAMModel
from tests.models.uniskill.test_uniskill import tiny_fdm, tiny_idm
from tests.numbered_videos import MakeVideo

EVAL_LIBERO = ["eval", "--policy", "random"]
COMMANDS = ["demo", "doctor", "record", "extract", "lam-report", "skills", "view", "eval"]
STAGES = ["lam", "hilam", "policy", "finetune"]


def run(*arguments: str | Path) -> int:
    """Runs `hilam` in this process and returns its exit code."""
    argv = sys.argv
    sys.argv = ["hilam", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = argv
    return 0


@pytest.mark.parametrize("command", [*([name] for name in COMMANDS), *(["train", name] for name in STAGES)])
def test_every_command_has_help_with_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--help") == 0
    text = capsys.readouterr().out
    assert "Example:" in text
    assert f"hilam {' '.join(command)}" in " ".join(text.split())


def test_the_way_from_videos_to_a_page_of_skills(
    tmp_path: Path,
    make_video: MakeVideo,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("a", "b"):
        videos = make_video(f"{name}.mp4", num_frames=14).parent
    (videos / "broken.mp4").write_bytes(b"no video")
    steps = ("max_steps=2", "global_batch_size=2")
    assert run("train", "lam", videos, "--stride", "2", "--image-size", "32", "--out", tmp_path / "lam", *steps) == 0
    assert "broken.mp4" in caplog.text
    latents = tmp_path / "latents"
    assert run("extract", videos, "--model", tmp_path / "lam", "--stride", "2", "--out", latents) == 0
    assert load_corpus(latents)["id"][:] == ["a", "b"]
    assert run("train", "hilam", latents, "--out", tmp_path / "hilam", *steps) == 0
    skills = tmp_path / "skills"
    assert run("skills", latents, "--model", tmp_path / "hilam" / "hilam", "--out", skills) == 0
    assert sorted(CorpusInfo.from_card(skills).skill_dims) == [1, 2]
    assert run("view", skills, "--videos", videos, "--out", tmp_path / "page.html") == 0
    assert (tmp_path / "page.html").read_text().count("data:image/png") >= 2


def test_codes_from_videos_to_skills(tmp_path: Path, make_video: MakeVideo, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        videos = make_video(f"{name}.mp4", num_frames=14).parent
    lam, latents, steps = tmp_path / "lam", tmp_path / "latents", ("max_steps=2", "global_batch_size=2")
    options = [f"--model-option={option}" for option in ("preset=tiny", "image_size=32", "hidden_size=32")]
    assert run("train", "lam", videos, "--kind", "lapa", "--stride", "2", "--out", lam, *options, *steps) == 0
    report = tmp_path / "report"
    assert run("lam-report", videos, "--model", lam, "--stride", "2", "--out", report, "--max-pairs", "8") == 0
    assert json.loads((report / "report.json").read_text())["codes"] is not None
    assert "<h1" in (report / "report.html").read_text()
    assert run("extract", videos, "--model", lam, "--stride", "2", "--out", latents) == 0
    info = CorpusInfo.from_card(latents)
    assert (info.latent_dim, len(info.codebook)) == (4, 8)
    assert set(np.unique(load_corpus(latents)["latent_actions"][0])) <= set(range(8))
    assert run("train", "hilam", latents, "--idm", lam, "--out", tmp_path / "hilam", *steps) == 0
    model = HiLAMModel.from_pretrained(tmp_path / "hilam" / "hilam")
    torch.testing.assert_close(model.codebook, model.idm.codebook.detach())
    assert len(model.extract_skills(videos / "a.mp4")) == 12
    assert run("skills", latents, "--model", tmp_path / "hilam" / "hilam", "--out", tmp_path / "skills") == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract", "{missing}", "--model", "{idm}", "--stride", "2", "--out", "{out}"], "there is no such folder"),
        (["extract", "{empty}", "--model", "{idm}", "--stride", "2", "--out", "{out}"], "no videos here"),
        (["extract", "{videos}", "--model", "{fdm}", "--stride", "2", "--out", "{out}"], "AutoInverseDynamicsModel"),
        (["extract", "{videos}", "--model", "{missing}", "--stride", "2", "--out", "{out}"], "missing"),
        (["extract", "{videos}", "--model", "{idm}", "--out", "{out}"], "stride"),
        (["extract", "{videos}", "--model", "{idm}", "--stride", "99", "--out", "{out}"], "use a smaller stride"),
        (["skills", "{missing}", "--model", "{idm}", "--out", "{out}"], "missing"),
        (["train", "lam", "{videos}", "--stride", "2", "--out", "{out}", "max_step=1"], "did you mean 'max_steps'"),
        (["train", "hilam", "{videos}", "--out", "{out}"], "card"),
        (["eval", "--policy", "random", "--tasks", "drawer-opne", "--out", "{out}"], "drawer-open"),
        (["eval", "--policy", "{idm}", "--out", "{out}"], "kind 'uniskill_idm', but HierarchicalPolicy"),
        ([*EVAL_LIBERO, "--suite", "kitchen", "--out", "{out}"], "unknown LIBERO suite 'kitchen'; there are"),
        ([*EVAL_LIBERO, "--suite", "goal", "--tasks", "12", "--out", "{out}"], "tasks are numbered 0 to 9, got 12"),
        (
            [*EVAL_LIBERO, "--suite", "goal", "--tasks", "a", "--out", "{out}"],
            "--tasks: got 'a', expected",
        ),
        ([*EVAL_LIBERO, "--suite", "goal", "--init-states", "0-x", "--out", "{out}"], "--init-states: got '0-x'"),
        ([*EVAL_LIBERO, "--suite", "goal", "--init-states", "50", "--out", "{out}"], "initial states 0 to 49, got 50"),
        ([*EVAL_LIBERO, "--suite", "goal", "--protocol", "octo", "--out", "{out}"], "unknown protocol 'octo'"),
        ([*EVAL_LIBERO, "--suite", "goal", "--assets", "{empty}", "--out", "{out}"], "wall.xml missing; install them"),
        ([*EVAL_LIBERO], "needs --policy and --out"),
        (["eval", "--compare", "{missing}", "{empty}"], "no such file; expected the results of `hilam eval --out`"),
        (["eval", "--compare", "{missing}", "{empty}", "--out", "{out}"], "leave out --policy and --out"),
        (["record", "--suite", "goal", "--format", "zarr", "--out", "{out}"], "formats: got ['zarr']"),
        (["record", "--protocol", "openvla", "--out", "{out}"], "expected at least one task, or a suite"),
        (["record", "--init-states", "0-3", "--out", "{out}"], "Meta-World draws initial states by seeds"),
        (["record", "--simulator", "mars", "--out", "{out}"], "unknown simulator 'mars'; known: libero, metaworld"),
        (["record", "--simulator", "metaworld", "--suite", "goal", "--out", "{out}"], "Meta-World has tasks alone"),
        (["record", "--camera", "corner9", "--out", "{out}"], "expected one or several different of corner, corner2"),
        (["demo", "--tasks", "no-such-task", "--out", "{out}"], "no-such-task"),
        (["demo", "--videos", "{missing}", "--out", "{out}"], "there is no such folder"),
        (["demo", "--smallest", "--out", "{videos}"], "is not empty and holds no demo"),
    ],
)
def test_a_mistake_ends_in_one_line_and_a_non_zero_code(
    tmp_path: Path,
    make_video: MakeVideo,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    places = {"missing": tmp_path / "missing", "out": tmp_path / "out", "videos": make_video().parent}
    for name in ("empty", "idm", "fdm"):
        places[name] = tmp_path / name
    places["empty"].mkdir()
    tiny_idm().save_pretrained(places["idm"])
    tiny_fdm().save_pretrained(places["fdm"])
    assert run(*(argument.format(**places) for argument in arguments)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


def test_numbers_and_ranges() -> None:
    assert parse_numbers("0-3, 7,9-9", "--tasks") == [0, 1, 2, 3, 7, 9]
    for text in ("", "-1", "3-", "a"):
        with pytest.raises(ValueError, match="--tasks: got"):
            parse_numbers(text, "--tasks")


def test_debugging_shows_where_an_error_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILAM_DEBUG", "1")
    with pytest.raises(OSError):
        run("extract", tmp_path / "missing", "--model", "x", "--stride", "2", "--out", tmp_path / "out")


def test_an_interruption_is_told_and_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hilam_hf.cli.doctor.run_checks", lambda: signal.raise_signal(signal.SIGINT))
    assert run("doctor") == 130
    assert capsys.readouterr().err == "interrupted; what was written is kept\n"
    monkeypatch.setattr(sys, "argv", ["doctor"])
    with pytest.raises(SystemExit) as end:
        cli.run(latents.doctor)
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted; what was written is kept\n"
