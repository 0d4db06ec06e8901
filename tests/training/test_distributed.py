"""Two processes train as one does with the batches of both."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from hilam_hf.training import train
from tests.helpers import ROOT
from tests.training.test_loop import Points, make_line, options

SCRIPT = """
import sys
from pathlib import Path
from accelerate import PartialState
from safetensors.torch import save_file
from hilam_hf.training import train
from tests.training.test_loop import Points, make_line, options

folder = Path(sys.argv[1])
config = options(batch_size=4, save_every=6)
train(make_line(dropout=0), Points(), options(batch_size=4, save_every=6, max_steps=12), output_dir=folder)
for path in sorted((folder / "checkpoint-12").rglob("*"), reverse=True):
    if PartialState().is_main_process:
        path.unlink()
PartialState().wait_for_everyone()
if PartialState().is_main_process:
    (folder / "checkpoint-12").rmdir()
PartialState().wait_for_everyone()
result = train(make_line(dropout=0), Points(), config, output_dir=folder, resume=True)
assert PartialState().num_processes == 2
if PartialState().is_main_process:
    save_file(result.model.state_dict(), folder / "result.safetensors")
"""


def test_two_processes_equal_one_with_twice_the_batch_also_after_resuming(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*command, str(script), str(tmp_path / "run")], env=environment, check=True, timeout=300)
    alone = train(make_line(dropout=0), Points(), options(batch_size=8)).model.state_dict()
    for name, value in load_file(tmp_path / "run" / "result.safetensors").items():
        torch.testing.assert_close(value, alone[name], rtol=1e-5, atol=1e-6)
