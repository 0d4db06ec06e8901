"""Evaluations without a simulator: `fake_host` puts `FakeHost` in its place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hilam_hf.envs.registry import get_simulator
from tests.helpers import ROOT

HOST = "tests.evaluation.rollouts.fake_hosts:FakeHost"


@pytest.fixture
def fake_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Evaluate with `FakeHost`; called with the settings that the host's module describes."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    for name in ("metaworld", "libero"):
        monkeypatch.setattr(get_simulator(name), "host", HOST)
        monkeypatch.setattr(get_simulator(name), "prepare", lambda drawing: None)

    def configure(**settings: Any) -> None:
        attempts = tmp_path / f"attempts-{len(list(tmp_path.iterdir()))}"
        attempts.mkdir()
        monkeypatch.setenv("FAKE_HOST", json.dumps({"attempts": str(attempts), **settings}))

    configure()
    return configure
