"""Many processes, other numbers of them, and what happens when one of them ends."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hilam_hf.training import train
from tests.training.launching import run, start
from tests.training.runs import Points, StopAfter, make_line, options

SCRIPT = """
import sys
from safetensors.torch import save_file
from hilam_hf.training import train
from hilam_hf.training.processes import process_state
from tests.training.runs import Points, StopAfter, make_line, options

folder, last, dropout, resume = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "resume"
assert process_state().num_processes == 2  # also before there is an Accelerator
config = options(save_every=4, ema_decay=0.8)
try:
    stop = [StopAfter(last)]
    model = train(make_line(dropout), Points(), config, output_dir=folder, callbacks=stop, resume=resume).model
    if process_state().is_main_process:
        save_file(model.state_dict(), f"{folder}/result.safetensors")
except KeyboardInterrupt:
    pass
"""


def test_a_run_goes_on_with_other_numbers_of_processes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = options(save_every=4, ema_decay=0.8)
    alone = train(make_line(0), Points(), config, output_dir=tmp_path / "alone")
    changing = tmp_path / "changing"
    # Two processes to step 4, one to step 8, two to step 12.
    run(SCRIPT, changing, 5, 0, "start", folder=tmp_path)
    assert '"processes": 2' in (changing / "checkpoint-4" / "training_state.json").read_text()
    with pytest.raises(KeyboardInterrupt):
        train(make_line(0), Points(), config, output_dir=changing, callbacks=[StopAfter(9)], resume=True)
    assert "a step now has 1 parts instead of 2: the samples are the same" in caplog.text
    printed = run(SCRIPT, changing, 99, 0, "resume", folder=tmp_path)
    assert printed.count("a step now has 2 parts instead of 1") == 1  # one process tells it
    for name, value in load_file(changing / "result.safetensors").items():
        torch.testing.assert_close(value, alone.model.state_dict()[name], rtol=1e-5, atol=1e-6)
    history = json.loads((changing / "history.json").read_text())
    for step, value in history["loss"]:
        assert value == pytest.approx(dict(alone.history["loss"])[step], rel=1e-5)


def test_with_dropout_two_processes_are_one_with_two_parts_and_go_on_bit_for_bit(tmp_path: Path) -> None:
    config = options(save_every=4, ema_decay=0.8, gradient_accumulation_steps=2)
    parts = train(make_line(), Points(), config, output_dir=tmp_path / "parts").model.state_dict()
    run(SCRIPT, tmp_path / "whole", 99, 0.2, "start", folder=tmp_path)
    whole = load_file(tmp_path / "whole" / "result.safetensors")
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], rtol=1e-5, atol=1e-6)
    shutil.rmtree(tmp_path / "whole" / "checkpoint-12")
    run(SCRIPT, tmp_path / "whole", 99, 0.2, "resume", folder=tmp_path)
    again = load_file(tmp_path / "whole" / "result.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


LAPA = """
import sys
from safetensors.torch import save_file
from hilam_hf.training import TrainingConfig
from hilam_hf.training.lam.train import train_lam
from hilam_hf.training.processes import process_state
from tests.training.lam.test_train import bars_for, make_models

folder, process = sys.argv[1], process_state().process_index
lapa, _ = models = make_models("lapa", {}, seed=process)
# The codebook is refreshed at step 10.
config = TrainingConfig(max_steps=11, global_batch_size=4, warmup_steps=1, ema_decay=0.8, validate_every=4)
train_lam(*models, bars_for(*models), config, output_dir=f"{folder}/lapa", held_out=bars_for(*models))
save_file(lapa.state_dict(), f"{folder}/lapa-{process}.safetensors")
"""


def test_a_codebook_is_refreshed_in_all_processes_alike(tmp_path: Path) -> None:
    run(LAPA, tmp_path, folder=tmp_path)
    first, second, saved = (
        load_file(tmp_path / path) for path in ("lapa-0.safetensors", "lapa-1.safetensors", "lapa/model.safetensors")
    )
    for name, value in first.items():
        assert torch.equal(value, second[name]) and torch.equal(value, saved[name]), name
    history = json.loads((tmp_path / "lapa" / "history.json").read_text())
    assert [step for step, _ in history["validation/error_vs_copy"]] == [4, 8, 11]
    assert [step for step, _ in history["refreshed_codes"]] == [10]


FAILING = """
import os, signal, sys, time
from hilam_hf.training import train
from hilam_hf.training.processes import is_told_by_another, process_state
from tests.training.runs import Points, make_line, options

class Bad(Points):
    def __getitem__(self, index):
        if process_state().process_index == 1 and time.monotonic() > self.until:
            if sys.argv[2] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("frame 7 of episode 3 cannot be decoded")
        return super().__getitem__(index)

Bad.until = time.monotonic() + 1
try:
    train(make_line(), Bad(), options(max_steps=10**6, save_every=50), output_dir=sys.argv[1])
except Exception as error:
    if not is_told_by_another(error):
        print(f"process {process_state().process_index} says: {type(error).__name__}: {error}", flush=True)
    sys.exit(1)
"""


@pytest.mark.parametrize("how", ["raises", "killed"])
def test_the_others_end_with_the_reason_of_one_that_fails(tmp_path: Path, how: str) -> None:
    launch = start(FAILING, tmp_path / "run", how, folder=tmp_path)
    # Far below the half hour for which processes wait for each other.
    printed, _ = launch.communicate(timeout=60)
    told = dict(re.findall(r"process (\d) says: (.*)", printed))
    if how == "raises":
        assert told["1"] == "ValueError: frame 7 of episode 3 cannot be decoded", printed
        assert told["0"] == "TrainingError: process 1 of this launch failed: frame 7 of episode 3 cannot be decoded"
    else:
        assert told["0"].startswith("TrainingError: another process of this launch ended without a word"), printed


SAME_FAULT = """
import sys
from hilam_hf.training import train
from hilam_hf.training.processes import is_told_by_another
from tests.training.runs import Points, make_line, options

try:
    train(make_line(), Points(), options(global_batch_size=5), output_dir=sys.argv[1])
except ValueError as error:
    if not is_told_by_another(error):
        print("told:", error, flush=True)
"""


def test_a_fault_of_all_processes_is_told_once(tmp_path: Path) -> None:
    printed = run(SAME_FAULT, tmp_path / "run", folder=tmp_path)
    told = re.findall("told: (.*)", printed)
    expected = (
        "global_batch_size=5 cannot be shared evenly by 2 processes with 1 accumulated batches each; choose 4 or 6"
    )
    assert told == [expected]
