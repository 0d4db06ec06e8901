"""The rendering benchmark: seconds of pictures alone, and the script from end to end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.benchmarks.scripts import import_script
from tests.helpers import ROOT


def test_pictures_take_what_is_beyond_a_step_without() -> None:
    script, timing = import_script("rendering"), import_script("_measure").Timing
    found = script.less_undrawn(
        {"fast": timing((3.0, 5.0)), "exact": timing((9.0,)), "undrawn": timing((1.0, 2.0, 3.0))}
    )
    assert found == {"fast": timing((1.0, 3.0)), "exact": timing((7.0,))}


@pytest.mark.sim
def test_the_claim_has_its_spread() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "rendering.py"), "--frames", "2", "--rounds", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    claim = json.loads(done.stdout.splitlines()[-1])
    assert claim["ratio"] == pytest.approx(claim["peer"] / claim["ours"]) and claim["spread"] >= 0
    assert isinstance(claim["unsteady"], bool)
