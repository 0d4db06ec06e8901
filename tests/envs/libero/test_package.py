"""LIBERO is imported without a prompt, without a trace in the home folder, and closed without complaints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.sim
EPISODE = """
import sys
from hilam_hf.envs.libero import LiberoEnv
env = LiberoEnv("libero_object/2", protocol="libero", assets=sys.argv[1])
env.reset(seed=0, options={"initial_state": 0})
import libero.libero
print("torch" in sys.modules, libero.libero.get_libero_path("bddl_files"))
"""


def _python(code, *arguments, **environment):
    command = [sys.executable, "-c", code, *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_first_use_asks_nothing_and_leaves_no_trace(libero_assets, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    log = Path("/tmp/robosuite.log")
    before = log.stat().st_mtime_ns if log.exists() else None
    done = _python(EPISODE, str(libero_assets), HOME=str(home), NUMBA_CACHE_DIR=str(tmp_path / "numba"))
    assert done.returncode == 0, done.stderr
    # The environment was not closed, and still nothing complains at the interpreter's end.
    assert done.stderr == ""
    with_torch, bddl_files = done.stdout.split()
    assert with_torch == "False"
    assert Path(bddl_files).is_dir()
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert (log.stat().st_mtime_ns if log.exists() else None) == before


def test_a_users_configuration_stays_in_force(tmp_path, libero_assets):
    (tmp_path / "config.yaml").write_text('{"bddl_files": "/somewhere/else"}')
    code = """
import os, sys
from pathlib import Path
from hilam_hf.envs.libero.package import import_libero
import_libero(Path(sys.argv[1]), drawing=False)
import libero.libero
print(libero.libero.get_libero_path("bddl_files"), libero.libero.get_assets_path())
"""
    done = _python(code, str(libero_assets), LIBERO_CONFIG_PATH=str(tmp_path))
    assert done.stdout.split() == ["/somewhere/else", str(libero_assets)], done.stderr
