"""A run has a folder of its own."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hilam_hf.training import train
from hilam_hf.training.run_folder import RunFolder, open_run_folder
from tests.helpers import ROOT
from tests.training.runs import Points, StopAfter, make_line, options, weights


def start(folder: Path, **arguments: Any) -> Any:
    return train(make_line(), Points(), options(save_every=4), output_dir=folder, **arguments)


def test_a_folder_with_another_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    start(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        ValueError, match=r"holds another run \(training, finished, at checkpoint-12\); pass resume=True"
    ):
        start(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_overwrite_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    start(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "policy").mkdir()
    train(make_line(), Points(), options(), output_dir=tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.json", "notes.txt", "policy", "run.json"]


def test_a_run_that_ended_before_its_first_checkpoint_makes_room_and_a_finished_one_does_not(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, callbacks=[StopAfter(2)])
    train(make_line(), Points(24), options(), output_dir=tmp_path)
    with pytest.raises(ValueError, match=r"holds another run \(training, finished\)"):
        train(make_line(), Points(24), options(), output_dir=tmp_path)


@pytest.mark.parametrize("left", ["checkpoint-3", "history.json", "model.safetensors", "policy"])
def test_what_a_run_without_a_record_left_is_not_written_over(tmp_path: Path, left: str) -> None:
    (tmp_path / left).mkdir()
    with (
        pytest.raises(ValueError, match=f"holds {left} of another run"),
        open_run_folder(tmp_path, writes=["policy"]),
    ):
        pytest.fail("opened")


def test_other_files_and_folders_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "slurm-12.out").write_text("log")
    (tmp_path / "videos").mkdir()
    start(tmp_path)


@pytest.mark.parametrize("above", [".", "policy", "policy/.."])
def test_a_run_does_not_write_over_what_it_reads(tmp_path: Path, above: str) -> None:
    (tmp_path / "policy").mkdir()
    out = tmp_path / above
    for choice in ({}, {"resume": True}, {"overwrite": True}):
        with (
            pytest.raises(ValueError, match=r"is, or contains, .*policy, which this run reads"),
            open_run_folder(out, inputs=["org/model", None, tmp_path / "policy"], **choice),
        ):
            pytest.fail("opened")
    with open_run_folder(tmp_path / "policy" / "next", inputs=[tmp_path / "policy"]) as folder:
        assert isinstance(folder, RunFolder)


def test_nothing_to_resume_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no run to go on with; leave out resume=True"):
        start(tmp_path / "absent", resume=True)
    assert not (tmp_path / "absent").exists()


def test_contradicting_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resume and overwrite contradict each other"):
        start(tmp_path, resume=True, overwrite=True)


def test_a_file_or_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        start(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        start(tmp_path / "file" / "below")


def test_a_run_says_how_it_stands(tmp_path: Path) -> None:
    def status() -> str:
        return json.loads((tmp_path / "run.json").read_text())["status"]

    class Look(StopAfter):
        def on_step_end(self, state: Any) -> None:
            assert status() == "running"
            super().on_step_end(state)

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, callbacks=[Look(6)])
    assert status() == "running"  # as after a kill
    with pytest.raises(ValueError, match="belongs to another run"):
        train(make_line(), Points(24), options(save_every=4), output_dir=tmp_path, resume=True)
    # What goes wrong before a run goes on is not its own failure.
    assert status() == "running"
    start(tmp_path, resume=True)
    assert status() == "finished"


SLOW = """
import sys, time
from tests.training.runs import Points, make_line, options
from hilam_hf.training import Callback, train

class Slow(Callback):
    def on_step_end(self, state):
        print(state.step, flush=True)
        time.sleep(0.2)

train(make_line(), Points(), options(save_every=1), output_dir=sys.argv[1], callbacks=[Slow()])
"""


def test_two_runs_into_one_folder_at_once(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "PATH": "", "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    try:
        assert first.stdout.readline() == "1\n"
        for arguments in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(OSError, match=rf"{tmp_path}.*{first.pid}"):
                start(tmp_path, **arguments)
    finally:
        first.kill()
        first.wait()
    # Its lock ended with it.
    time.sleep(0.1)
    resumed = train(make_line(), Points(), options(save_every=1), output_dir=tmp_path, resume=True)
    whole = train(make_line(), Points(), options())
    assert all(map(torch.equal, weights(whole.model), weights(resumed.model)))
