"""The examples, run small."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hilam_hf.data import DemonstrationWriter
from tests.helpers import ROOT

SIZE = 32


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight episodes in which a square first moves right, then down."""
    root = tmp_path_factory.mktemp("recordings")
    generator = np.random.default_rng(0)
    with DemonstrationWriter(root) as writer:
        for number in range(8):
            right, down = generator.integers(8, 12, 2)
            x = np.concatenate((np.arange(right), np.full(down, right)))
            y = np.concatenate((np.zeros(right, dtype=int), np.arange(down)))
            frames = np.zeros((len(x), 3, SIZE, SIZE), dtype=np.uint8)
            for step in range(len(x)):
                frames[step, :, y[step] : y[step] + 8, x[step] : x[step] + 8] = 255
            positions = np.stack((x, y, np.zeros_like(x)), axis=1).astype(np.float32)
            writer.add(
                f"slide/episode_{number:05d}",
                task="slide",
                language="slide the square",
                fps=10,
                frames=frames,
                actions=positions,
                agent_pos=positions,
                ee_position=positions,
                success=True,
                phases=["right"] * int(right) + ["down"] * int(down),
            )
    return root


def test_segmentation_study_writes_its_results_and_reuses_its_latents(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["max_steps=2", "batch_size=4", "warmup_steps=1", "log_every=1"]
    arguments = ["--demonstrations", demonstrations, "--out", tmp_path, "--stride", 2, "--image-size", SIZE]
    arguments += ["--training", *few, "--lam-training", *few, "--hilam-option", "target_ratios=[3.0,2.0]"]
    study = load("segmentation_study")
    assert study.main(list(map(str, arguments))) == 0
    printed = capsys.readouterr().out
    assert "2 held-out episodes" in printed and "HiLAM stage 2" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["conclusion"] in printed
    assert results["episodes"] == {"training": 6, "held_out": 2}
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
