"""Launches of several processes on the CPU, as torchrun makes them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers import ROOT

ENVIRONMENT = {
    **os.environ,
    "ACCELERATE_USE_CPU": "true",
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
    "OMP_NUM_THREADS": "1",
}


def start(script: str, *arguments: str | Path, processes: int = 2, folder: Path) -> "subprocess.Popen[str]":
    """Starts a script in so many processes; its text is kept in `folder`."""
    file = folder / "script.py"
    file.write_text(script)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(file), *map(str, arguments)]
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
    )


def run(script: str, *arguments: str | Path, processes: int = 2, folder: Path) -> str:
    """Runs it to its end; returns what it printed."""
    started = start(script, *arguments, processes=processes, folder=folder)
    printed, _ = started.communicate(timeout=100)
    assert started.returncode == 0, printed
    return printed
