"""Writers in processes of their own, which tests may kill."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import ROOT

_START = """
import os, pathlib, signal, sys, time
sys.path[:0] = {paths}
from hilam_hf.locks import FolderInUseError, FolderLock
"""
_WAIT = """
print("writing", flush=True)
time.sleep(600)
"""


def command(program: str, folder: Path, *, wait: bool = False) -> list[str]:
    """The command line of a program, which is told the folder as `sys.argv[1]`."""
    start = _START.format(paths=[str(ROOT), str(ROOT / "src")])
    return [sys.executable, "-c", start + textwrap.dedent(program) + _WAIT * wait, str(folder)]


def run_python(program: str, folder: Path, *, code: int = 0) -> None:
    """Runs a program to its end, and sees that it ends with this code."""
    result = subprocess.run(command(program, folder), capture_output=True, text=True)
    assert result.returncode == code, result.stderr


@contextmanager
def writing(program: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has run the program, keeps what it made, and is killed at the end of the block."""
    process = subprocess.Popen(command(program, folder, wait=True), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
