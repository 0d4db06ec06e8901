"""The one place where errors become lines: bad input in its own words, bugs by their name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import yaml
from safetensors import SafetensorError

from hilam_hf.cli.errors import describe, errors_in_one_line
from hilam_hf.cli.options import choose_device
from hilam_hf.envs.workers import WorkerDied
from hilam_hf.training.errors import NonFiniteError, TrainingError, TrainingInterrupted
from tests.helpers import ROOT


def _deep_json() -> Exception:
    try:
        json.loads("[" * 200_000)
    except RecursionError as error:
        return error
    raise AssertionError("this JSON is not deep enough")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("stride: got 0\n  expected 1"), "stride: got 0 expected 1"),
        (SafetensorError("header too large"), "header too large"),
        (pa.ArrowNotImplementedError("no such codec"), "no such codec"),
        (pa.ArrowKeyError("id"), "id"),
        (yaml.YAMLError("no such tag"), "no such tag"),
        (WorkerDied("recorder 0 died"), "recorder 0 died"),
        (torch.OutOfMemoryError("tried to allocate 9 GiB"), "tried to allocate 9 GiB"),
        (TrainingError("process 1 of this launch failed: disk full"), "process 1 of this launch failed: disk full"),
        (NonFiniteError("step 3: the loss is nan"), "step 3: the loss is nan"),
        (MemoryError(), "memory ran out; choose smaller sizes"),
        (_deep_json(), "what was read is nested too deeply; give a file that is not"),
        (ValueError(), "ValueError"),
    ],
)
def test_what_bad_input_causes_is_said_as_it_is(error: Exception, line: str) -> None:
    assert describe(error) == line


def test_advice_is_in_the_words_of_the_command_line() -> None:
    advice = "pass resume=True to continue it or overwrite=True to drop it"
    assert describe(ValueError(advice)) == "pass --resume to continue it or --overwrite to drop it"


def test_a_library_that_hides_the_reason_is_asked_for_it() -> None:
    from datasets.exceptions import DatasetGenerationError

    error = DatasetGenerationError("An error occurred while generating the dataset")
    error.__cause__ = pa.ArrowInvalid("Parquet magic bytes not found")
    assert describe(error) == "Parquet magic bytes not found"


@pytest.mark.parametrize("error", [KeyError("id"), TypeError("no"), AssertionError(), RuntimeError("size mismatch")])
def test_any_other_error_is_called_a_bug(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HILAM_DEBUG", raising=False)
    with pytest.raises(SystemExit) as end, errors_in_one_line():
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 1
    assert line.startswith(f"error: hilam-hf has a bug ({type(error).__name__}: ")
    assert line.endswith("the traceback that HILAM_DEBUG=1 shows")


@pytest.mark.parametrize("debug", ["", "1"])
def test_an_interrupted_run_asks_to_be_resumed(
    debug: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HILAM_DEBUG", debug)
    with pytest.raises(SystemExit) as end, errors_in_one_line():
        raise TrainingInterrupted(
            "SIGTERM ended the run after step 3 of 9: go on with resume=True", Path("checkpoint-3")
        )
    assert end.value.code == os.EX_TEMPFAIL == 75
    shown = capsys.readouterr()
    assert shown.err == "interrupted: SIGTERM ended the run after step 3 of 9: go on with --resume\n"
    assert shown.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [(TrainingError("disk full"), 1), (KeyError("id"), 1), (TrainingInterrupted("SIGTERM", None), 75)],
)
def test_what_another_process_of_the_launch_says_is_not_said_twice(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    error.told_by_another = True  # type: ignore[attr-defined]
    with pytest.raises(SystemExit) as end, errors_in_one_line():
        raise error
    assert (end.value.code, capsys.readouterr().err) == (code, "")


def test_errors_are_known_without_pytorch() -> None:
    loaded = "import sys, hilam_hf.cli; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run([sys.executable, "-c", loaded], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


def test_debugging_lets_every_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILAM_DEBUG", "1")
    with pytest.raises(KeyError), errors_in_one_line():
        raise KeyError("id")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", r"--device cuda: PyTorch .* finds 0 cuda devices on this machine; use --device cpu or auto"),
        ("cuda:7", r"--device cuda:7: .* finds 0"),
        ("cpu:1", "finds 1 cpu devices"),
        ("gpu", "--device: got 'gpu', expected cpu, cuda, mps, auto"),
        ("cuda:-1", "--device: got 'cuda:-1'"),
        ("", "--device: got ''"),
    ],
)
def test_a_device_that_is_not_there_is_named(device: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(ValueError, match=message):
        choose_device(device)
