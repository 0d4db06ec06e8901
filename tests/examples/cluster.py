"""SLURM as far as the scripts of `examples/slurm` see of it, on this machine: stand-ins for `srun` and `scontrol`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.helpers import ROOT

SRUN = f"""#!{sys.executable}
import os, subprocess, sys
command = sys.argv[1:]
while command[0].startswith("--"):
    del command[0]
nodes = range(int(os.environ.get("SLURM_NNODES", "1")))
tasks = [subprocess.Popen(command, env=os.environ | {{"SLURM_NODEID": str(node)}}) for node in nodes]
statuses = [task.wait() for task in tasks]
sys.exit(max(128 - status if status < 0 else status for status in statuses))
"""
SCONTROL = """#!/bin/sh
case "$1" in
    show) echo 127.0.0.1 ;;
    requeue) echo "$2" >>"$REQUEUED" ;;
esac
"""


class Cluster:
    """Runs one job at a time, with the variables that it gets besides SLURM's own, and starts it again when it asks.

    Args:
        folder: For the stand-ins and the jobs' output.
        **variables: What is in the environment of `sbatch`.
    """

    def __init__(self, folder: Path, **variables: str | Path):
        self.folder = folder
        self._requeued = folder / "requeued"
        self._programs = folder / "bin"
        self._programs.mkdir(parents=True)
        self.stand_in("srun", SRUN)
        self.stand_in("scontrol", SCONTROL)
        self._environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(self._programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT / "src"),
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true",
            "REQUEUED": str(self._requeued),
            "SLURM_JOB_ID": "71",
            "SLURM_JOB_NODELIST": "node-[1-2]",
            **{name: str(value) for name, value in variables.items()},
        }

    def stand_in(self, name: str, text: str) -> None:
        """Puts a program in the place of the one of that name."""
        program = self._programs / name
        program.write_text(text)
        program.chmod(0o755)

    @property
    def requeued(self) -> list[str]:
        """The jobs that were queued again, one entry each time."""
        return self._requeued.read_text().split() if self._requeued.exists() else []

    def start(self, script: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Starts a script of `examples/slurm` as a job."""
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                ["bash", str(ROOT / "examples" / "slurm" / script), *map(str, arguments)],
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    def run(self, script: str, *arguments: str | Path) -> int:
        """Runs it to its end; returns its exit status."""
        return self.start(script, *arguments).wait(timeout=120)

    def run_and_end_the_time(self, script: str, *arguments: str | Path, when: Callable[[], bool]) -> int:
        """The same, and sends SIGTERM to every process of the step, as SLURM does, when it is time."""
        job = self.start(script, *arguments)
        until = time.monotonic() + 120
        while not when():
            assert job.poll() is None and time.monotonic() < until, self.output()
            time.sleep(0.02)
        (srun,) = psutil.Process(job.pid).children()
        for process in srun.children(recursive=True):
            process.send_signal(signal.SIGTERM)
        return job.wait(timeout=120)

    def output(self) -> str:
        """What the jobs have printed."""
        return (self.folder / "output").read_text()
