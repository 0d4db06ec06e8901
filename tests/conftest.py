"""Every test: no network, no screen, nothing of the user's caches, the same random numbers, a share of the cores."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import pytest

# Read by the libraries when they are first imported, so set before any test module is. Worker processes of pytest-xdist
# inherit them, the temporary cache included.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}
os.environ.update(_ENVIRONMENT)

pytest_plugins = ["tests.numbered_videos"]
os.environ.pop("HF_TOKEN", None)
_CACHE = None
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="hilam-tests-", ignore_cleanup_errors=True)
    os.environ["HF_HOME"] = _CACHE.name


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker process one thread, as there is a worker for each core."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """See that the machine has what the test's markers ask for."""
    from tests.helpers import require_simulator

    if item.get_closest_marker("sim"):
        require_simulator()
    if item.get_closest_marker("gpu"):
        import torch

        # A GPU is the one thing that CI need not have.
        if not torch.cuda.is_available():
            pytest.skip("there is no CUDA device")


@pytest.fixture(scope="session")
def libero_assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of LIBERO's assets."""
    from tests.helpers import require_libero_assets

    base = tmp_path_factory.getbasetemp()
    # The processes of pytest-xdist have folders of their own in one that they share.
    return require_libero_assets(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start each test from the same random numbers, whatever ran before it."""
    import numpy
    import torch

    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
