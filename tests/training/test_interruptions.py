"""Signals end a run after the step in hand, with a checkpoint from which it goes on to the same bytes."""

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hilam_hf.training import Callback, TrainingInterrupted, TrainingState, train
from hilam_hf.training.checkpoints import checkpoints_in
from tests.training.launching import run, start
from tests.training.runs import Points, files_of, make_line, options, weights


class Signal(Callback):
    """Gets a signal in the middle of a step."""

    def __init__(self, step: int, number: int):
        self.step, self.number = step, number

    def on_step_end(self, state: TrainingState) -> None:
        if state.step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("changes", [{}, {"save_every": 5}, {"async_checkpoints": True, "save_every": 2}])
def test_a_signal_saves_the_step_in_hand(tmp_path: Path, number: signal.Signals, changes: dict[str, Any]) -> None:
    config = options(ema_decay=0.9, **changes)
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    told = rf"{number.name} ended the run after step 7 of 12; .*checkpoint-7 is saved: go on with resume=True"
    with pytest.raises(TrainingInterrupted, match=told) as interruption:
        train(make_line(), Points(), config, output_dir=tmp_path, callbacks=[Signal(7, number)])
    assert interruption.value.checkpoint == checkpoints_in(tmp_path)[-1] == tmp_path / "checkpoint-7"
    assert '"interrupted"' in (tmp_path / "run.json").read_text()
    assert handlers == [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    resumed = train(make_line(), Points(), config, output_dir=tmp_path, resume=True)
    whole = train(make_line(), Points(), options(ema_decay=0.9))
    assert all(map(torch.equal, weights(whole.model), weights(resumed.model)))
    assert resumed.history == whole.history


def test_a_run_without_a_folder_says_that_nothing_is_kept() -> None:
    with pytest.raises(TrainingInterrupted, match="after step 7 of 12; nothing of it is kept") as interruption:
        train(make_line(), Points(), options(), callbacks=[Signal(7, signal.SIGTERM)])
    assert interruption.value.checkpoint is None


def test_an_impatient_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    class Impatient(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.1)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(make_line(), Points(), options(), output_dir=tmp_path, callbacks=[Impatient()])
    assert not checkpoints_in(tmp_path)


GROUP = """
import os, signal, sys
from hilam_hf.training import Callback, TrainingInterrupted, train
from tests.training.runs import Points, make_line, options

class All(Callback):
    def on_step_end(self, state):
        if state.step == 7:
            os.killpg(0, signal.SIGINT if sys.argv[2] == "group" else 0)
            if sys.argv[2] == "each":
                import multiprocessing
                for child in multiprocessing.active_children():
                    os.kill(child.pid, signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)

os.setpgrp()
try:
    train(make_line(), Points(), options(num_workers=2), output_dir=sys.argv[1], callbacks=[All()])
except TrainingInterrupted as interruption:
    print("told:", interruption)
"""


@pytest.mark.parametrize("whom", ["group", "each"])
def test_a_signal_to_all_processes_leaves_time_for_the_checkpoint(tmp_path: Path, whom: str) -> None:
    printed = run(GROUP, tmp_path / "run", whom, processes=1, folder=tmp_path)
    assert re.search(r"told: SIG(INT|TERM) ended the run after step 7 of 12; \S*checkpoint-7 is saved", printed), (
        printed
    )
    resumed = train(make_line(), Points(), options(num_workers=2), output_dir=tmp_path / "run", resume=True).model
    assert all(map(torch.equal, weights(resumed), weights(train(make_line(), Points(), options()).model)))


SCRIPT = """
import json, sys, time
from hilam_hf.training import Callback, TrainingInterrupted, train
from tests.training.runs import Points, make_line, options

class Slow(Callback):
    def on_step_end(self, state):
        print("step", state.step, flush=True)
        time.sleep(0.3)

config = options(global_batch_size=4, max_steps=12, ema_decay=0.9)
try:
    train(make_line(), Points(), config, output_dir=sys.argv[1], callbacks=[Slow()], resume=sys.argv[2] == "resume")
except TrainingInterrupted as interruption:
    print("told:", interruption, flush=True)
    sys.exit(75)
"""


def test_the_processes_of_a_launch_stop_at_the_same_step(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(SCRIPT, whole, "start", folder=tmp_path)
    launch = start(SCRIPT, cut, "start", folder=tmp_path)
    assert launch.stdout is not None
    printed = ""
    while "step 4" not in printed:
        printed += launch.stdout.readline()
    # The launcher forwards it to both, some time apart.
    launch.send_signal(signal.SIGTERM)
    printed += launch.communicate(timeout=60)[0]
    assert launch.returncode != 0
    stopped = re.findall(r"told: \S.* ended the run after step (\d+) of 12; \S*checkpoint-(\d+) is saved", printed)
    assert len(stopped) == 2 and len({number for pair in stopped for number in pair}) == 1, printed
    assert [path.name for path in checkpoints_in(cut)] == [f"checkpoint-{stopped[0][0]}"]
    run(SCRIPT, cut, "resume", folder=tmp_path)
    kept, expected = files_of(cut), files_of(whole)
    for name in list(kept):
        if name.startswith("checkpoint-"):
            del kept[name]
    assert kept == expected
