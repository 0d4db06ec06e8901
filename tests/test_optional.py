"""One line that names what to install."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hilam_hf.optional import require


def test_returns_the_module_itself() -> None:
    assert require("json", extra="dev") is json
    assert require("json.decoder", extra="dev") is json.decoder


@pytest.mark.parametrize("module", ["no_such_simulator", "no_such_simulator.envs"])
def test_missing_module_names_the_install_command_in_one_line(module: str) -> None:
    with pytest.raises(ImportError) as caught:
        require(module, extra="metaworld")
    message = str(caught.value)
    assert message == f"{module} is not installed; install it with: pip install 'hilam-hf[metaworld]'"


def test_broken_module_is_told_from_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_simulator.py").write_text("import no_such_part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"broken_simulator is installed but .*no_such_part.*'hilam-hf\[libero\]'"):
        require("broken_simulator", extra="libero")
    assert "broken_simulator" not in sys.modules
