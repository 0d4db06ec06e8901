"""Worker processes that load samples: the same samples, and faults in one line."""

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hilam_hf.training import Callback, TrainingError, TrainingState, train
from tests.training.runs import Points, make_line, options, weights


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, num_workers: int) -> None:
    alone = train(make_line(), Points(), options()).model
    helped = train(make_line(), Points(), options(num_workers=num_workers)).model
    assert all(map(torch.equal, weights(alone), weights(helped)))


class Dying(Points):
    """A worker that is killed, as one that takes too much memory is."""

    def __init__(self, parent: int):
        super().__init__()
        self.parent = parent

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if os.getpid() != self.parent and index == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_dead_worker_is_told_with_what_to_change(tmp_path: Path) -> None:
    config = options(num_workers=2, save_every=1)
    with pytest.raises(TrainingError, match=r"a process that loads samples is gone .*lower num_workers=2, then resume"):
        train(make_line(), Dying(os.getpid()), config, output_dir=tmp_path)


def test_a_dead_worker_is_told_wherever_the_process_hears_of_it(tmp_path: Path) -> None:
    class Heard(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")

    with pytest.raises(TrainingError, match=r"gone \(DataLoader worker \(pid 12\) is killed by signal: Killed\. \)"):
        train(make_line(), Points(), options(), output_dir=tmp_path, callbacks=[Heard()])


class Undecodable(Points):
    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if index == 7:
            raise OSError("episode 3: frame 12 cannot be decoded")
        return super().__getitem__(index)


def test_a_sample_that_cannot_be_loaded_is_told_in_one_line() -> None:
    told = "^a sample cannot be loaded: OSError: episode 3: frame 12 cannot be decoded$"
    with pytest.raises(TrainingError, match=told):
        train(make_line(), Undecodable(), options(num_workers=1))
    with pytest.raises(OSError, match=r"^episode 3: frame 12 cannot be decoded$"):
        train(make_line(), Undecodable(), options())


def test_a_data_set_smaller_than_a_batch_is_told(caplog: pytest.LogCaptureFixture) -> None:
    result = train(make_line(), Points(3), options(global_batch_size=8))
    assert result.steps == 12
    assert "3 samples are fewer than the 8 of a batch" in caplog.text
