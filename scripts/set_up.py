"""Make `.venv`: this package, editable, with all that its main job, tests and checks need, pinned by constraints.txt.

Run by `make`; uses the standard library only. A stamp file in `.venv` is written last, so that a set-up that was cut
off is taken up again by the next call; a lock keeps two calls at the same time from writing into one `.venv`.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What decides the contents of .venv: a change to one of these makes the next call install again.
INPUTS = ("pyproject.toml", "constraints.txt", "scripts/set_up.py")
EXTRAS = "metaworld,libero-runtime,peft,segmentation,trackers,web,dev"
# Its own requirements bring torchvision and a CUDA build of torch for training scripts that are never imported here.
WITHOUT_DEPENDENCIES = "hf-libero"
# The simulator metaworld pins has no wheels outside these.
OLDEST, NEWEST = (3, 10), (3, 13)


class SetUpError(Exception):
    """The set-up cannot go on; the message says what to do."""


def check_python(version: tuple[int, int]) -> None:
    """Refuse a Python for which the pinned packages do not exist."""
    if not OLDEST <= version <= NEWEST:
        raise SetUpError(
            f"Python {version[0]}.{version[1]} is not supported, 3.10 to 3.13 are; "
            "name one that is, such as: make PYTHON=python3.13"
        )


def is_complete(venv: Path, root: Path = ROOT) -> bool:
    """Say whether `.venv` was finished after the last change to what it is made from."""
    stamp = stamp_file(venv)
    if not stamp.is_file() or not python_of(venv).exists():
        return False
    return all((root / name).stat().st_mtime <= stamp.stat().st_mtime for name in INPUTS)


def stamp_file(venv: Path) -> Path:
    """Return the file whose presence says that the set-up ended well."""
    return venv / ".complete"


def python_of(venv: Path) -> Path:
    """Return the interpreter inside a virtual environment."""
    return venv / "bin" / "python"


def create_venv(venv: Path) -> None:
    """Make a virtual environment with pip in it, or keep the one that works."""
    if works(venv):
        return
    print(f"Making {venv.name} with Python {sys.version.split()[0]}.", flush=True)
    # Debian keeps ensurepip in a package of its own (python3-venv); the pip that is already there does as well.
    if importlib.util.find_spec("ensurepip"):
        run(sys.executable, "-m", "venv", "--clear", venv)
        return
    run(sys.executable, "-m", "venv", "--clear", "--without-pip", venv)
    try:
        run(sys.executable, "-m", "pip", "--python", python_of(venv), "install", "--quiet", "pip")
    except SetUpError as error:
        shutil.rmtree(venv)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SetUpError(
            "This Python has neither ensurepip nor a pip of version 22.3 or later. Run this, then the same make "
            f"command again:\n  sudo apt-get install -y python{version}-venv"
        ) from error


def works(venv: Path) -> bool:
    """Say whether the environment's interpreter starts and has pip."""
    if not python_of(venv).exists():
        return False
    return subprocess.run([python_of(venv), "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0


def install(venv: Path) -> None:
    """Install the package with its extras, and LIBERO beside it."""
    print("Installing the pinned packages (about 3 GB; some minutes the first time).", flush=True)
    pip = (python_of(venv), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "-c", "constraints.txt")
    run(*pip, "-e", f".[{EXTRAS}]")
    run(*pip, "--no-deps", WITHOUT_DEPENDENCIES)


def run(*command: str | Path) -> None:
    """Run a command in the repository root and show its output."""
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status != 0:
        raise SetUpError(f"{' '.join(map(str, command))} failed (exit status {status}); see the lines above.")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder until the block ends; it goes away with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another set-up in this folder.", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def set_up(venv: Path) -> None:
    """Bring `.venv` up to date."""
    with locked(ROOT):
        if is_complete(venv):
            return
        check_python(sys.version_info[:2])
        stamp_file(venv).unlink(missing_ok=True)
        create_venv(venv)
        install(venv)
        stamp_file(venv).touch()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where the environment goes (default: .venv)")
    try:
        set_up(parser.parse_args().venv.absolute())
    except SetUpError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
