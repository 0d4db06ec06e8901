"""The repository as a user gets it: pins that agree with the package, versions that agree, no traces of a machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.helpers import ROOT

# Written in parts, so that this file does not hold what it looks for.
MACHINE_PATHS = re.compile(r"/(?:w[o]rk|f[a]rm|r[o]ot|h[o]me/\w+|Us[e]rs/\w+)/")
REGISTRY_HOSTS = re.compile(r"(?:index-u[r]l|f[i]nd-links)|p[y]pi\.org|pyth[o]nhosted|registry\.n[p]mjs|deb\.d[e]bian")
PYTHON_VERSIONS = ("3.10", "3.11", "3.12", "3.13")


def tracked_text_files() -> list[Path]:
    """Return the repository's text files: git's list, or all that is not ignored where there is no git history yet."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in files if path.is_file() and b"\0" not in path.read_bytes()[:4096]]


def constraints(python: str) -> dict[str, Version]:
    """Return the pinned version of each package on one Python."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        requirement = Requirement(line)
        environment = {"python_version": python, "python_full_version": f"{python}.0"}
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert name not in pins, f"{name} is pinned twice on Python {python}"
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{line} is no pin"
            pins[name] = Version(specifier.version)
    return pins


@pytest.mark.parametrize(("what", "pattern"), [("machine path", MACHINE_PATHS), ("registry host", REGISTRY_HOSTS)])
def test_no_file_names_a_machine_or_a_registry(what: str, pattern: re.Pattern[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for path in tracked_text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if (match := pattern.search(line))
    ]
    assert not found, f"{what} in {found}"


@pytest.mark.parametrize("python", PYTHON_VERSIONS)
def test_constraints_satisfy_the_package(python: str) -> None:
    pins = constraints(python)
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    extras = metadata.metadata("hilam-hf").get_all("Provides-Extra")
    for line in metadata.requires("hilam-hf") or []:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        marker = requirement.marker
        used = marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in ["", *extras])
        if not used or name == "hilam-hf":
            continue
        assert name in pins, f"constraints.txt does not pin {name} on Python {python}"
        assert pins[name] in requirement.specifier, f"{name} {pins[name]} is outside {requirement.specifier}"


def test_nothing_asks_for_torchvision() -> None:
    assert "torchvision" not in constraints("3.11")
    assert not any(Requirement(line).name == "torchvision" for line in metadata.requires("hilam-hf") or [])


def test_version_is_the_changelogs_and_the_citations() -> None:
    version = metadata.version("hilam-hf")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)
    assert newest is not None
    assert newest.group(1) == version
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == version


def test_citation_names_the_paper() -> None:
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Kim", "Pinto", "Kim"]
    assert paper["url"].endswith("2603.05815")


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", readme, re.DOTALL))
    named = set(re.findall(r"(?<![\w-])make ([a-z]+)", code))
    assert named <= targets, f"README names targets that do not exist: {sorted(named - targets)}"


def test_make_alone_lists_every_target() -> None:
    shown = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "lint", "bench", "clean"):
        assert f"make {target} " in shown


def test_the_package_is_marked_as_typed() -> None:
    assert (ROOT / "src" / "hilam_hf" / "py.typed").is_file()


def test_ci_script_is_strict_and_executable() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in text
    assert text.index("make lint") < text.index("make test")


def test_importing_the_package_is_light_and_needs_no_extra() -> None:
    probe = (
        "import sys, hilam_hf\n"
        "heavy = {'torchvision', 'metaworld', 'mujoco', 'libero', 'peft', 'gradio', 'diffusers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert hilam_hf.__version__"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)
