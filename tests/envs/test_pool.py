"""The workers of an evaluation or a recording: which GPU draws, replacement."""

import os

import pytest

from hilam_hf.envs.pool import WorkerPool
from tests.helpers import ROOT

VARIABLES = "tests.evaluation.rollouts.fake_hosts:Variables"


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID", raising=False)


def test_workers_take_gpus_in_turns_and_keep_them_when_replaced():
    with WorkerPool(VARIABLES, {}, 3, gpus=(2, 5)) as pool:
        assert [pool.ask(row, "gpu", 30) for row in range(3)] == ["2", "5", "2"]
        before = pool.ask(1, "process", 30)
        pool.replace(1)
        assert pool.ask(1, "process", 30) != before and pool.ask(1, "gpu", 30) == "5"
    with WorkerPool(VARIABLES, {}, 1) as pool:
        assert pool.ask(0, "gpu", 30) is None
