"""A launch that starts fewer processes than it was asked for says so."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.launching import ENVIRONMENT

SCRIPT = """
import logging, sys
from hilam_hf.training.processes import process_state, warn_of_missing_processes
logging.basicConfig()
warn_of_missing_processes()
# In one piece, as both write to the same place.
sys.stdout.write(f"process {process_state().process_index} of {process_state().num_processes}\\n")
"""
ADVICE = "asked for 2 processes, but 1 runs: .* use ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 instead"


def launched(folder: Path, *launcher: str, **variables: str) -> str:
    """What the processes print."""
    (folder / "script.py").write_text(SCRIPT)
    # The launcher chooses the CPU, or `variables` do; accelerate's defaults lie in HF_HOME.
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "ACCELERATE_USE_CPU"}
    environment |= {"HF_HOME": str(folder), **variables}
    command = [sys.executable, "-m", *launcher, str(folder / "script.py")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return ended.stdout + ended.stderr


@pytest.mark.slow
def test_one_process_of_two_is_warned_of(tmp_path: Path) -> None:
    printed = launched(tmp_path, "accelerate.commands.launch", "--cpu", "--num_processes", "2")
    assert "process 0 of 1" in printed
    assert len(re.findall(ADVICE, printed)) == 1, printed


@pytest.mark.slow
def test_two_processes_of_two_are_not(tmp_path: Path) -> None:
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    printed = launched(tmp_path, *launcher, ACCELERATE_USE_CPU="true")
    assert "process 0 of 2" in printed and "process 1 of 2" in printed
    assert "asked for" not in printed
