"""The examples, run small."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from hilam_hf.data import CorpusInfo, LiberoHdf5Writer, VideoRecordingWriter, scan_videos, write_skill_corpus
from hilam_hf.locks import FolderInUseError, FolderLock
from hilam_hf.models.hierarchical import HierarchicalPolicy
from hilam_hf.models.hilam import HiLAMModel
from hilam_hf.models.latent_actions.auto import AutoForwardDynamicsModel, AutoInverseDynamicsModel
from hilam_hf.models.uniskill import UniSkillFDM
from hilam_hf.training.lam import runs as lam_runs
from hilam_hf.video import VideoReader
from hilam_hf.video.video_file import write_video
from tests.cli.test_cli import run
from tests.helpers import ROOT
from tests.robot_recordings import demonstration, small_demonstration
from tests.training.hilam.test_train import make_code_corpus

SIZE = 32


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run_example(name: str, arguments: list[str]) -> int:
    """Runs a script in this process and returns its exit code."""
    argv = sys.argv
    sys.argv = [f"{name}.py", *arguments]
    try:
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = argv
    return 0


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight episodes in which a square first moves right, then down."""
    root = tmp_path_factory.mktemp("recordings")
    generator = np.random.default_rng(0)
    with VideoRecordingWriter(root) as writer:
        for number in range(8):
            right, down = generator.integers(8, 12, 2)
            x = np.concatenate((np.arange(right), np.full(down, right)))
            y = np.concatenate((np.zeros(right, dtype=int), np.arange(down)))
            frames = np.zeros((len(x), SIZE, SIZE, 3), dtype=np.uint8)
            for step in range(len(x)):
                frames[step, y[step] : y[step] + 8, x[step] : x[step] + 8] = 255
            positions = np.stack((x, y, np.zeros_like(x)), axis=1).astype(np.float32)
            writer.add(
                small_demonstration(
                    f"slide/episode_{number:05d}",
                    len(x),
                    fps=10,
                    frames={"front": frames},
                    ee_positions=positions,
                    phases=["right"] * int(right) + ["down"] * int(down),
                )
            )
    return root


def test_segmentation_study_writes_its_results_and_reuses_its_latents(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["max_steps=2", "global_batch_size=4", "warmup_steps=1", "log_every=1"]
    arguments = ["--demonstrations", demonstrations, "--out", tmp_path, "--stride", 2, "--image-size", SIZE]
    arguments += ["--training", *few, "--lam-training", *few, "--hilam-option", "target_ratios=[3.0,2.0]"]
    study = load("segmentation_study")
    assert study.main(list(map(str, arguments))) == 0
    printed = capsys.readouterr().out
    assert "3 held-out episodes" in printed and "HiLAM stage 2" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["conclusion"] in printed
    assert results["episodes"] == {"training": 5, "held_out": 3}
    methods = [row["method"] for row in results["methods"]]
    assert {"fixed windows", "change points, rbf", "HiLAM stage 1", "HiLAM stage 2"} <= set(methods)
    assert all(0 <= row["f1_interval"][0] <= row["f1"] <= row["f1_interval"][1] <= 1 for row in results["methods"])
    for figure in ("f1.png", "timelines.png"):
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")

    made = {name: (tmp_path / name).stat().st_mtime_ns for name in ("lam", "latent-actions")}
    hilam = str(tmp_path / "hilam" / "hilam")
    assert study.main([*map(str, arguments), "--hilam", hilam]) == 0
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in made} == made
    again = json.loads((tmp_path / "results.json").read_text())
    assert again["methods"] == results["methods"]


def test_segmentation_study_needs_recordings(tmp_path: Path) -> None:
    study = load("segmentation_study")
    with pytest.raises(FileNotFoundError, match="there are no demonstrations"):
        study.main(["--demonstrations", str(tmp_path), "--out", str(tmp_path / "out")])


def test_segmentation_study_takes_liberos_recordings(tmp_path: Path) -> None:
    study = load("segmentation_study")
    with LiberoHdf5Writer(tmp_path / "recording") as writer:
        writer.add(demonstration(6, seed=3))
    out = tmp_path / "out"
    options = study.parse_arguments(
        ["--demonstrations", str(tmp_path / "recording"), "--out", str(out), "--min-phase", "1"]
    )
    videos, phases = study.prepare_recording(options)
    (episode,) = scan_videos(videos, progress=False).episodes
    assert phases == {episode.id: ["approach"] * 4 + ["grasp"] * 2} and episode.num_frames == 6
    written = Path(episode.path).stat().st_mtime_ns
    assert study.prepare_recording(options)[0] == videos
    assert Path(episode.path).stat().st_mtime_ns == written


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of 20 frames at 10 frames a second, in which a square moves right at different heights."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(4):
        frames = torch.zeros(20, 3, SIZE, SIZE, dtype=torch.uint8)
        for step in range(20):
            frames[step, :, 4 * number : 4 * number + 8, step : step + 8] = 255
        write_video(root / f"{number}.mp4", frames, 10)
    return root


def lam_arguments(videos: Path, out: Path, *more: str, steps: int = 4) -> list[str]:
    tiny = ["idm.hidden_size=16", "idm.num_hidden_layers=1", "fdm.hidden_size=8", "fdm.num_blocks=1"]
    options = [part for option in tiny for part in ("--model-option", option)]
    # Training options stand between the others, as they may.
    training = [
        f"max_steps={steps}",
        "global_batch_size=4",
        "warmup_steps=1",
        "log_every=1",
        "ema_decay=0.5",
        "save_every=2",
    ]
    return [str(videos), *training, "--out", str(out), "--image-size", str(SIZE), *options, *more]


def test_train_lam_trains_validates_and_resumes(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "training.yaml"
    config.write_text("learning_rate: 3e-4\nvalidate_every: 2\n")
    # By its id, "3" of the four videos is held out.
    validating = ["--config", str(config), "--held-out", "0.31"]
    assert run_example("train_lam", lam_arguments(videos, tmp_path / "lam", *validating)) == 0
    assert f"uniskill-light model in {tmp_path / 'lam'}" in capsys.readouterr().out
    idm = AutoInverseDynamicsModel.from_pretrained(tmp_path / "lam" / "idm")
    fdm = AutoForwardDynamicsModel.from_pretrained(tmp_path / "lam" / "fdm")
    assert (idm.config.image_size, idm.config.hidden_size, fdm.config.hidden_size) == (SIZE, 16, 8)
    history = json.loads((tmp_path / "lam" / "history.json").read_text())
    assert [step for step, _ in history["loss"]] == [1, 2, 3, 4]
    assert [step for step, _ in history["validation/error_vs_copy"]] == [2, 4]
    assert len(list((tmp_path / "lam" / "validation").glob("step_*.png"))) == 2
    state = json.loads((tmp_path / "lam" / "checkpoint-4" / "training_state.json").read_text())
    assert (state["config"]["learning_rate"], state["config"]["ema_decay"]) == (3e-4, 0.5)

    shutil.rmtree(tmp_path / "lam" / "checkpoint-4")
    shutil.rmtree(tmp_path / "lam" / "idm")
    assert run_example("train_lam", lam_arguments(videos, tmp_path / "lam", "--resume", *validating)) == 0
    again = AutoInverseDynamicsModel.from_pretrained(tmp_path / "lam" / "idm")
    for left, right in zip(idm.parameters(), again.parameters(), strict=True):
        assert torch.equal(left, right)
    assert json.loads((tmp_path / "lam" / "history.json").read_text()) == history


def test_train_lam_draws_strides_and_resumes(videos: Path, tmp_path: Path) -> None:
    spacing = ["--stride-range", "2", "5", "--skip-front", "0.25", "--held-out", "0.31", "validate_every=2"]
    for folder in ("whole", "parts"):
        assert run_example("train_lam", lam_arguments(videos, tmp_path / folder, *spacing)) == 0
    shutil.rmtree(tmp_path / "parts" / "checkpoint-4")
    assert run_example("train_lam", lam_arguments(videos, tmp_path / "parts", "--resume", *spacing)) == 0
    whole, parts = (AutoInverseDynamicsModel.from_pretrained(tmp_path / name / "idm") for name in ("whole", "parts"))
    for left, right in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(left, right)
    for auto_class, name in ((AutoInverseDynamicsModel, "idm"), (AutoForwardDynamicsModel, "fdm")):
        assert auto_class.from_pretrained(tmp_path / "whole" / name).config.training_data == {
            "stride": None,
            "stride_seconds": None,
            "stride_range": [2, 5],
            "stride_seconds_range": None,
            "skip_front": 0.25,
            "held_out_fraction": 0.31,
            "episodes": 3,
        }


def test_train_lam_starts_from_the_options_of_the_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(lam_runs, "train_lam_on_videos", lambda videos, config, **options: taken.append(config))
    file = tmp_path / "training.yaml"
    file.write_text("weight_decay: 0.2\n")
    arguments = ["clips", "--kind", "lapa", "--out", str(tmp_path), "--config", str(file), "max_grad_norm=0.7"]
    assert run_example("train_lam", arguments) == 0
    (config,) = taken
    # LAPA's rate and no decay, but for what the file and the command say.
    assert (config.learning_rate, config.weight_decay, config.max_grad_norm) == (1e-4, 0.2, 0.7)


def test_pretrain_hilam_trains_validates_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_code_corpus(tmp_path / "corpus")
    out = tmp_path / "run"
    arguments = [str(tmp_path / "corpus"), "max_steps=4", "global_batch_size=2", "warmup_steps=1", "log_every=1"]
    arguments += ["--out", str(out), "--held-out", "0.3", "save_every=2", "validate_every=2", "seed=5"]
    assert run_example("pretrain_hilam", arguments) == 0
    assert f"model in {out / 'hilam'}" in capsys.readouterr().out
    model = HiLAMModel.from_pretrained(out / "hilam")
    assert (model.config.latent_type, model.config.num_codes, model.config.codebook_size) == ("discrete", 4, 8)
    history = json.loads((out / "history.json").read_text())
    assert [step for step, _ in history["loss"]] == [1, 2, 3, 4]
    assert [step for step, _ in history["validation/loss"]] == [2, 4]

    shutil.rmtree(out / "checkpoint-4")
    shutil.rmtree(out / "hilam")
    assert run_example("pretrain_hilam", [*arguments, "--resume"]) == 0
    torch.testing.assert_close(
        HiLAMModel.from_pretrained(out / "hilam").state_dict(), model.state_dict(), rtol=0, atol=0
    )
    assert json.loads((out / "history.json").read_text()) == history
    # Without --resume the run that is there stays as it is, unless it shall go.
    assert run_example("pretrain_hilam", arguments) == 1
    assert "pass --resume to go on with it, --overwrite to replace it" in capsys.readouterr().err
    assert run_example("pretrain_hilam", [*arguments, "--overwrite", "max_steps=2"]) == 0
    assert [step for step, _ in json.loads((out / "history.json").read_text())["loss"]] == [1, 2]


def test_pretrain_policy_trains_on_skills_and_videos(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    rows = [
        {
            "id": str(number),
            "fps": 10,
            "num_frames": 20,
            "video": f"{number}.mp4",
            "latent_actions": generator.normal(size=(18, 3)).astype(np.float32),
            "stage1_boundaries": np.arange(18) % 6 == 0,
            "stage1_skills": generator.normal(size=(3, 5)).astype(np.float32),
            "language": "slide right",
        }
        for number in range(4)
    ]
    info = CorpusInfo(model="lam", latent_dim=3, stride=2, kind="latent-skills", skill_dims={1: 5})
    write_skill_corpus(tmp_path / "corpus", rows, info=info)
    out = tmp_path / "run"
    arguments = [str(tmp_path / "corpus"), "--videos", str(videos), "--stage", "1", "--image-size", str(SIZE)]
    arguments += ["--out", str(out), "--held-out", "0.31", "max_steps=2", "global_batch_size=2", "validate_every=1"]
    assert run_example("pretrain_policy", [*arguments, "log_every=1"]) == 0
    assert f"policy in {out / 'policy'}" in capsys.readouterr().out
    config = HierarchicalPolicy.from_pretrained(out / "policy").config
    assert (config.skill_dim, config.latent_dim, config.stage) == (5, 3, 1)
    assert config.high_config.image_size == SIZE
    history = json.loads((out / "history.json").read_text())
    assert [step for step, _ in history["loss"]] == [step for step, _ in history["validation/loss"]] == [1, 2]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--kind", "uniskil-light"], "unknown kind .* did you mean 'uniskill-light'"),
        (["--stride-seconds", "3"], "none of the 4 episodes has a pair of frames 30 frames apart"),
        (["validate_every=1"], "validate_every=1 needs held-out episodes; give --held-out 0.1"),
        (["ema_decay=1.5"], "ema_decay must be above 0 and below 1"),
        (["max_step=3"], "did you mean 'max_steps'"),
        (["--held-out", "1"], r"held_out: got 1.0, expected a fraction in \[0, 1\)"),
        (["--stride-range", "5", "2"], r"stride range: got \(5, 2\), expected the smallest and the largest"),
        (["--stride-range", "2", "5", "--stride", "3"], r"got frames=3, frames_range=\(2, 5\)"),
        (["--seconds-range", "0", "1"], "stride: got 0.0 seconds"),
        (["--skip-front", "1"], "skip_front: got 1.0, expected a fraction in"),
    ],
)
def test_train_lam_names_what_is_wrong(
    videos: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_example("train_lam", lam_arguments(videos, tmp_path, *more)) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "history.json").exists()


def test_an_image_editor_made_from_videos_is_one_that_uniskill_starts_from(videos: Path, tmp_path: Path) -> None:
    steps = ["max_steps=2", "global_batch_size=2", "log_every=1"]
    size = ["--image-size", str(SIZE), "--widths", "32,32"]
    load("make_image_editor").main(["--videos", str(videos), "--out", str(tmp_path / "editor"), *size, *steps])
    editor = AutoencoderKL.from_pretrained(tmp_path / "editor", subfolder="vae")
    frames = torch.stack([frame for path in sorted(videos.iterdir()) for frame in VideoReader(path).read([0, 9])])
    with torch.no_grad():
        latents = editor.encode(frames / 127.5 - 1).latent_dist.mean * editor.config.scaling_factor
    assert latents.std().item() == pytest.approx(1, rel=0.2)

    options = ["idm.preset=light", "idm.hidden_size=16", "idm.num_hidden_layers=1"]
    options.append(f"fdm.image_editor={tmp_path / 'editor'}")
    chosen = [part for option in options for part in ("--model-option", option)]
    out, kind = ["--out", str(tmp_path / "lam")], ["--kind", "uniskill", "--image-size", str(SIZE)]
    assert run_example("train_lam", [str(videos), *kind, *chosen, *out, *steps]) == 0
    fdm = UniSkillFDM.from_pretrained(tmp_path / "lam" / "fdm")
    torch.testing.assert_close(dict(fdm.vae.named_parameters()), dict(editor.named_parameters()))
    assert fdm.config.image_size == SIZE


@pytest.mark.parametrize(
    ("example", "command"),
    [
        ("train_lam", "lam"),
        ("pretrain_hilam", "hilam"),
        ("pretrain_policy", "policy"),
        ("finetune_libero", "finetune"),
    ],
)
def test_an_example_has_the_options_of_its_command(
    example: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def options(shown: str) -> set[str]:
        return set(re.findall(r"--[a-z][a-z-]+", shown)) - {"--install-completion", "--show-completion"}

    assert run_example(example, ["--help"]) == 0
    of_example = options(capsys.readouterr().out)
    assert run("train", command, "--help") == 0
    assert of_example == options(capsys.readouterr().out) and "--out" in of_example


def test_a_second_segmentation_study_in_the_folder_is_refused(tmp_path: Path) -> None:
    arguments = ["--demonstrations", str(tmp_path), "--out", str(tmp_path / "out")]
    with (
        FolderLock(tmp_path / "out", "a segmentation study"),
        pytest.raises(FolderInUseError, match="segmentation"),
    ):
        load("segmentation_study").main(arguments)
