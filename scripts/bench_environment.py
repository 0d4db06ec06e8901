"""Make `.venv-bench`: the peers of benchmarks/peers.txt, laid over the environment that runs this script.

Run by `make bench` with `.venv`'s Python; any Python that has hilam-hf installed will do, so that ours and the peers
run on one and the same torch. Only the peers take room of their own (some 40 MB).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
from pathlib import Path

import set_up

INPUTS = ("benchmarks/peers.txt", "scripts/bench_environment.py")
OVERLAY = "underlying_environment.pth"


def is_complete(venv: Path, root: Path = set_up.ROOT) -> bool:
    """Say whether the environment was finished after the last change to its inputs, and over this Python's packages."""
    stamp = set_up.stamp_file(venv)
    if not stamp.is_file() or not set_up.python_of(venv).exists() or stamp.read_text() != sys.prefix:
        return False
    return all((root / name).stat().st_mtime <= stamp.stat().st_mtime for name in INPUTS)


def overlay_line(folders: list[str]) -> str:
    """Return the line of a .pth file that adds site folders, with their own .pth files, after the environment's."""
    return "import site; " + "; ".join(f"site.addsitedir({folder!r})" for folder in folders) + "\n"


def site_folders() -> list[str]:
    """Return the folders in which this Python's packages lie."""
    return sorted({sysconfig.get_path(name) for name in ("purelib", "platlib")})


def lay_over(venv: Path) -> None:
    """Let the environment see the packages of the Python that runs this script."""
    command = [set_up.python_of(venv), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    folder = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    (Path(folder) / OVERLAY).write_text(overlay_line(site_folders()))


def install(venv: Path, root: Path = set_up.ROOT) -> None:
    """Install the peers, and nothing that they ask for beyond the list."""
    print("Installing the packages to compare with (some 40 MB).", flush=True)
    pip = (set_up.python_of(venv), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps")
    set_up.run(*pip, "-r", root / "benchmarks" / "peers.txt")


def make(venv: Path) -> None:
    """Bring the environment up to date."""
    with set_up.locked(set_up.ROOT):
        if is_complete(venv):
            return
        set_up.stamp_file(venv).unlink(missing_ok=True)
        set_up.create_venv(venv)
        # Newer versions of venv write this themselves.
        (venv / ".gitignore").write_text("*\n")
        lay_over(venv)
        install(venv)
        set_up.stamp_file(venv).write_text(sys.prefix)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=set_up.ROOT / ".venv-bench", help="default: .venv-bench")
    try:
        make(parser.parse_args().venv.absolute())
    except set_up.SetUpError as error:
        print(f"bench environment: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
