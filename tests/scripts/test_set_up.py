"""The set-up scripts: what is missing is seen and named, and a set-up that was cut off is not taken for a whole one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers import ROOT


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


libraries = load("system_libraries")
set_up = load("set_up")

# The libraries of FFmpeg 5, as Debian 12 has them.
FFMPEG_5 = {f"lib{stem}" for stem in ("avutil.so.57", "avcodec.so.59", "avformat.so.59", "avdevice.so.59")} | {
    "libavfilter.so.8",
    "libswscale.so.6",
    "libswresample.so.4",
}


def test_ffmpeg_needs_every_library_of_one_version() -> None:
    assert libraries.ffmpeg_loads("Linux", FFMPEG_5.__contains__)
    for library in FFMPEG_5:
        assert not libraries.ffmpeg_loads("Linux", (FFMPEG_5 - {library}).__contains__), library


def test_ffmpeg_of_homebrew_is_found() -> None:
    versions = {stem: numbers[3] for stem, numbers in libraries.FFMPEG_VERSIONS.items()}
    brewed = {f"/opt/homebrew/lib/lib{stem}.{number}.dylib" for stem, number in versions.items()}
    assert libraries.ffmpeg_loads("Darwin", brewed.__contains__)
    assert not libraries.ffmpeg_loads("Linux", brewed.__contains__)


@pytest.mark.parametrize(
    ("there", "egl_starts", "draws"),
    [
        ({"libEGL.so.1", "libGL.so.1"}, True, True),
        ({"libEGL.so.1", "libGL.so.1"}, False, False),
        ({"libEGL.so.1"}, True, False),
        ({"libEGL.so.1", "libGL.so.1", "libOSMesa.so.8"}, False, True),
        ({"libOSMesa.so.8"}, False, True),
    ],
)
def test_drawing_needs_egl_that_starts_or_osmesa(there: set[str], egl_starts: bool, draws: bool) -> None:
    assert libraries.headless_renderer_loads(there.__contains__, lambda: egl_starts) is draws


def pretend(monkeypatch: pytest.MonkeyPatch, *, root: bool, apt: bool, cured: bool = True) -> list[list[str]]:
    """Set up a machine without FFmpeg; returns the list that fills with the packages that get installed."""
    installed: list[list[str]] = []
    needed = [
        libraries.Requirement("FFmpeg", lambda: cured and bool(installed), ("ffmpeg",), ("ffmpeg",)),
        libraries.Requirement("EGL", lambda: True, ("libegl1",)),
    ]
    monkeypatch.setattr(libraries, "requirements", lambda system: needed)
    monkeypatch.setattr(libraries.shutil, "which", lambda name: "apt-get" if apt else None)
    monkeypatch.setattr(libraries.os, "geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr(libraries, "apt_install", lambda packages: installed.append(list(packages)))
    return installed


def test_root_gets_what_is_missing_and_no_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = pretend(monkeypatch, root=True, apt=True)
    assert libraries.ensure("Linux") == 0
    assert installed == [["ffmpeg"]]
    assert "lacks FFmpeg: installing ffmpeg" in capsys.readouterr().out


def test_an_install_that_does_not_help_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, root=True, apt=True, cured=False)
    assert libraries.ensure("Linux") == 1


@pytest.mark.parametrize(
    ("system", "apt", "line"),
    [
        ("Linux", True, "sudo apt-get update && sudo apt-get install -y ffmpeg"),
        ("Linux", False, "what Debian calls: ffmpeg"),
        ("Darwin", False, "brew install ffmpeg"),
    ],
)
def test_others_get_the_line_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], system: str, apt: bool, line: str
) -> None:
    installed = pretend(monkeypatch, root=False, apt=apt)
    assert libraries.ensure(system) == 1
    assert installed == []
    assert line in capsys.readouterr().err


def test_pythons_without_pinned_packages_are_refused() -> None:
    for minor in (10, 11, 12, 13):
        set_up.check_python((3, minor))
    for minor in (9, 14):
        with pytest.raises(set_up.SetUpError, match=rf"Python 3\.{minor} is not supported"):
            set_up.check_python((3, minor))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder in which nothing is really installed."""
    for name in set_up.INPUTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1, 1))
    monkeypatch.setattr(set_up, "ROOT", tmp_path)
    monkeypatch.setattr(set_up, "is_complete", lambda venv, check=set_up.is_complete: check(venv, tmp_path))
    return tmp_path


def pretend_to_create(venv: Path) -> None:
    set_up.python_of(venv).parent.mkdir(parents=True, exist_ok=True)
    set_up.python_of(venv).touch()


def test_second_call_does_nothing_until_an_input_changes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv, installs = project / ".venv", []
    monkeypatch.setattr(set_up, "create_venv", pretend_to_create)
    monkeypatch.setattr(set_up, "install", installs.append)
    set_up.set_up(venv)
    set_up.set_up(venv)
    assert len(installs) == 1
    later = set_up.stamp_file(venv).stat().st_mtime + 1
    os.utime(project / "constraints.txt", (later, later))
    set_up.set_up(venv)
    assert len(installs) == 2


def test_a_set_up_that_fails_is_taken_up_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(venv: Path) -> None:
        raise set_up.SetUpError("no space left")

    venv = project / ".venv"
    monkeypatch.setattr(set_up, "create_venv", pretend_to_create)
    # A stamp of an older set-up must not outlive a failed renewal.
    pretend_to_create(venv)
    set_up.stamp_file(venv).touch()
    os.utime(set_up.stamp_file(venv), (0, 0))
    monkeypatch.setattr(set_up, "install", fail)
    with pytest.raises(set_up.SetUpError):
        set_up.set_up(venv)
    assert not set_up.is_complete(venv)
    assert not set_up.stamp_file(venv).exists()


def test_a_failing_command_is_named() -> None:
    with pytest.raises(set_up.SetUpError, match=r"-c raise SystemExit\(3\) failed \(exit status 3\)"):
        set_up.run(sys.executable, "-c", "raise SystemExit(3)")


def test_two_calls_at_the_same_time_take_turns(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pathlib, set_up, time\n"
        "with set_up.locked(pathlib.Path(sys.argv[2])):\n"
        "    print('in', flush=True); time.sleep(0.5); print('out', flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(ROOT / "scripts"), str(tmp_path)]
    log = tmp_path / "log"
    with log.open("w") as out:
        processes = [subprocess.Popen(command, stdout=out) for _ in range(2)]
        assert [process.wait(30) for process in processes] == [0, 0]
    steps = [line for line in log.read_text().splitlines() if line in ("in", "out")]
    assert steps == ["in", "out", "in", "out"]
