"""Trackers are checked for before anything else is done."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from hilam_hf.training import trackers, train
from tests.cli.test_cli import run
from tests.training.runs import Points, make_line, options


@pytest.fixture(params=["tensorboard", "trackio", "wandb"])
def missing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tracker that is not installed."""
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == request.param else find_spec(name))
    return request.param


def test_one_that_is_not_installed_is_an_error_with_the_line_that_installs_it(missing: str) -> None:
    line = {"wandb": "pip install 'wandb'"}.get(missing, r"pip install 'hilam-hf\[trackers\]'")
    with pytest.raises(ImportError, match=f"^tracker={missing} needs the package {missing}: {line}$"):
        options(tracker=missing)


def test_an_unknown_one_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match="must be one of tensorboard, trackio, wandb, or null for none, got 'pigeon'"):
        options(tracker="pigeon")


@pytest.mark.parametrize(
    "command",
    [
        "train lam {absent} --out {out}",
        "train hilam {absent} --out {out}",
        "train policy {absent} --videos {absent} --out {out}",
        "train finetune --policy {absent} --demonstrations {absent} --out {out}",
    ],
)
def test_commands_say_so_before_they_read_anything(
    missing: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # None of what the command shall read exists, so that reading would be another error.
    arguments = command.format(absent=tmp_path / "absent", out=tmp_path / "out").split()
    assert run(*arguments, f"tracker={missing}") == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"error: tracker={missing} needs the package {missing}: pip install")
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_needs_a_folder() -> None:
    with pytest.raises(ValueError, match="tracker=tensorboard need an output_dir"):
        train(make_line(), Points(), options(tracker="tensorboard"))
