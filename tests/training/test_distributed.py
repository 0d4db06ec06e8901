"""Two processes train, and average their weights, as one does with the batches of both."""

import json
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
from hilam_hf.training import TrainingConfig, train
from hilam_hf.training.lam.train import train_lam
from hilam_hf.training.processes import process_state
from tests.training.lam.test_train import bars_for, make_models
from tests.training.test_loop import Points, make_line, options

assert process_state().num_processes == 2  # also before there is an Accelerator
folder = Path(sys.argv[1])
config = options(global_batch_size=4, save_every=6, ema_decay=0.8)
train(make_line(dropout=0), Points(), config, output_dir=folder)
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

# The codebook is refreshed at step 10.
lapa, _ = models = make_models("lapa", {}, seed=PartialState().process_index)
config = TrainingConfig(max_steps=11, global_batch_size=2, warmup_steps=1, ema_decay=0.8, validate_every=4)
train_lam(*models, bars_for(*models), config, output_dir=folder / "lapa", held_out=bars_for(*models))
save_file(lapa.state_dict(), folder / f"lapa-{PartialState().process_index}.safetensors")
"""


def test_two_processes_equal_one_with_twice_the_batch_also_after_resuming(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*command, str(script), str(tmp_path / "run")], env=environment, check=True, timeout=300)
    config = options(global_batch_size=8, save_every=6, ema_decay=0.8)
    alone = train(make_line(dropout=0), Points(), config, output_dir=tmp_path / "alone").model.state_dict()
    last = load_file(tmp_path / "alone" / "checkpoint-12" / "model.safetensors")
    assert not torch.equal(alone["line.weight"], last["line.weight"])
    for path, expected in (("result.safetensors", alone), ("checkpoint-12/model.safetensors", last)):
        for name, value in load_file(tmp_path / "run" / path).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
    first, second, saved = (
        load_file(tmp_path / "run" / path)
        for path in ("lapa-0.safetensors", "lapa-1.safetensors", "lapa/model.safetensors")
    )
    for name, value in first.items():
        assert torch.equal(value, second[name]) and torch.equal(value, saved[name]), name
    history = json.loads((tmp_path / "run" / "lapa" / "history.json").read_text())
    assert [step for step, _ in history["validation/error_vs_copy"]] == [4, 8, 11]
    assert [step for step, _ in history["refreshed_codes"]] == [10]
