"""Workers: answers, errors of either kind, death."""

import os
import signal
import subprocess
import sys
import time

import pytest

from hilam_hf.envs.workers import Worker, WorkerDied, WorkerError, WorkerTimeout, ready_workers, resident_memory
from tests.helpers import ROOT


class Counter:
    """What the workers of these tests hold."""

    def __init__(self, start=0):
        if start < 0:
            raise ValueError(f"start must be at least 0, got {start}")
        self.count = start

    def add(self, number):
        self.count += number
        return self.count

    def divide(self, number):
        return self.count // number

    def refuse(self, word):
        raise ValueError(f"not {word}")

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def sleep(self, seconds):
        time.sleep(seconds)

    def grow(self, size):
        before = resident_memory()
        self.block = bytearray(os.urandom(1)) * size
        return resident_memory() - before


TARGET = f"{__name__}:Counter"


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)


def test_worker_keeps_its_object_between_calls():
    with Worker(TARGET, start=2) as worker:
        for number, expected in ((1, 3), (4, 7)):
            worker.send("add", number)
            assert worker.receive() == expected


def test_ready_workers_are_those_that_answered():
    with Worker(TARGET) as first, Worker(TARGET) as second:
        second.send("add", 1)
        assert ready_workers([first, second]) == [second]


def test_user_errors_come_back_as_themselves_and_the_worker_goes_on():
    with Worker(TARGET) as worker:
        worker.send("refuse", "this")
        with pytest.raises(ValueError, match=r"^not this$"):
            worker.receive()
        worker.send("add", 1)
        assert worker.receive() == 1


def test_faults_name_what_was_done_and_where():
    with Worker(TARGET, name="recorder 3") as worker:
        worker.send("divide", 0, doing="drawer-open, seed 7")
        with pytest.raises(
            WorkerError, match=r"(?s)recorder 3 failed at drawer-open, seed 7: ZeroDivisionError.*divide"
        ):
            worker.receive()


def test_error_of_the_constructor_reaches_the_first_call():
    with Worker(TARGET, start=-1) as worker, pytest.raises(ValueError, match="start must be at least 0, got -1"):
        worker.send("add", 1)
        worker.receive()


def test_death_is_told_with_its_signal():
    with Worker(TARGET, name="environment 0") as worker:
        worker.send("die", doing="door-open, seed 5, step 17")
        with pytest.raises(WorkerError, match=r"environment 0 died \(signal SIGKILL\) at door-open, seed 5, step 17"):
            worker.receive()


def test_a_worker_that_hangs_is_told_and_killed():
    worker = Worker(TARGET, name="environment 0")
    worker.send("sleep", 1000, doing="door-open, seed 5, step 17")
    assert ready_workers([worker], timeout=0.05) == []
    with pytest.raises(WorkerTimeout, match=r"environment 0 did not answer within 0\.2 s at door-open, seed 5"):
        worker.receive(timeout=0.2)
    worker.kill()
    assert worker._process.returncode == -signal.SIGKILL
    with pytest.raises(OSError, match="closed"):
        worker.send("add", 1)


def test_an_answer_in_time_is_received():
    with Worker(TARGET) as worker:
        worker.send("add", 1)
        assert worker.receive(timeout=60) == 1


def test_death_is_of_its_own_kind():
    with Worker(TARGET) as worker:
        worker.send("die")
        with pytest.raises(WorkerDied):
            worker.receive(timeout=60)


def test_resident_memory_grows_with_what_is_held():
    with Worker(TARGET) as worker:
        worker.send("grow", 64_000_000)
        assert 50e6 < worker.receive() < 90e6


@pytest.mark.parametrize(
    "module",
    [f"hilam_hf.envs.{simulator}.{part}" for simulator in ("metaworld", "libero") for part in ("host", "demonstrator")],
)
def test_what_workers_import_leaves_torch_out(module):
    pytest.importorskip("gymnasium")
    code = f"import sys, {module}; print({{'torch', 'transformers', 'datasets'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
