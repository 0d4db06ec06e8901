"""The benchmarks' environment: it sees the packages under it, renews itself when it must, and pins what it adds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers import ROOT


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import bench_environment

    return bench_environment


@pytest.fixture
def project(tmp_path: Path, environment: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder in which nothing is really installed."""
    for name in environment.INPUTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1, 1))
    monkeypatch.setattr(environment.set_up, "ROOT", tmp_path)
    check = environment.is_complete
    monkeypatch.setattr(environment, "is_complete", lambda venv: check(venv, tmp_path))
    return tmp_path


def pretend_to_create(environment: ModuleType, venv: Path) -> None:
    environment.set_up.python_of(venv).parent.mkdir(parents=True, exist_ok=True)
    environment.set_up.python_of(venv).touch()


def test_made_again_only_for_a_change_below_or_in_the_list(
    project: Path, environment: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv, installs = project / ".venv-bench", []
    monkeypatch.setattr(environment.set_up, "create_venv", lambda venv: pretend_to_create(environment, venv))
    monkeypatch.setattr(environment, "lay_over", lambda venv: None)
    monkeypatch.setattr(environment, "install", installs.append)
    environment.make(venv)
    environment.make(venv)
    assert len(installs) == 1
    assert (venv / ".gitignore").read_text() == "*\n"
    later = environment.set_up.stamp_file(venv).stat().st_mtime + 1
    os.utime(project / "benchmarks/peers.txt", (later, later))
    environment.make(venv)
    assert len(installs) == 2
    os.utime(project / "benchmarks/peers.txt", (1, 1))
    monkeypatch.setattr(sys, "prefix", "/another/environment")
    environment.make(venv)
    assert len(installs) == 3


def test_a_set_up_that_fails_is_taken_up_again(
    project: Path, environment: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(venv: Path) -> None:
        raise environment.set_up.SetUpError("no network")

    venv = project / ".venv-bench"
    monkeypatch.setattr(environment.set_up, "create_venv", lambda venv: pretend_to_create(environment, venv))
    monkeypatch.setattr(environment, "lay_over", lambda venv: None)
    monkeypatch.setattr(environment, "install", fail)
    with pytest.raises(environment.set_up.SetUpError):
        environment.make(venv)
    assert not environment.is_complete(venv)


def test_own_packages_come_first_and_those_below_are_seen(tmp_path: Path, environment: ModuleType) -> None:
    venv, below, linked = tmp_path / "venv", tmp_path / "below", tmp_path / "linked"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    own = next((venv / "lib").iterdir()) / "site-packages"
    for folder, name in ((own, "both"), (below, "both"), (below, "only_below"), (linked, "editable")):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text("")
    # An editable install is a .pth file of the environment below.
    (below / "editable.pth").write_text(f"{linked}\n")
    (own / environment.OVERLAY).write_text(environment.overlay_line([str(below)]))
    code = "import both, only_below, editable; print(both.__file__, only_below.__file__, editable.__file__)"
    python = environment.set_up.python_of(venv)
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found == [str(own / "both.py"), str(below / "only_below.py"), str(linked / "editable.py")]


def test_peers_are_pinned_and_leave_torch_alone() -> None:
    lines = (ROOT / "benchmarks" / "peers.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert all(line.count("==") == 1 for line in packages)
    names = {line.split("==")[0].lower() for line in packages}
    assert {"hilam", "h-net-dynamic-chunking"} <= names
    assert not names & {"torch", "torchvision", "rectified-flow-pytorch", "numpy", "transformers"}
