"""Commands that many processes of a launch run: one of them speaks for all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hilam_hf.envs.registry import register_simulator, unregister_simulator
from hilam_hf.video import write_video
from tests.cli.bad_inputs import make_artifacts
from tests.numbered_videos import numbered_frames
from tests.training.launching import run

pytestmark = pytest.mark.slow

# What the second process says goes into a file of its own, from the first import on and also from C++.
SCRIPT = """
import json, os, sys, warnings

# Other tests hide the bars of the Hub's client and of transformers.
os.environ.pop("HF_HUB_DISABLE_PROGRESS_BARS", None)
if os.environ["RANK"] == "1":
    for stream in (1, 2):
        os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)

from tests.cli.test_cli import run

for command in json.loads(sys.argv[2]):
    assert run(*command) == 0, command
warnings.warn("a warning of a library")
"""
STEPS = ["max_steps=2", "global_batch_size=2"]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What training reads, with causes for warnings: a video that is too short, one that is none, and an old card."""
    from tests.envs.toy_simulator import TOY

    root = tmp_path_factory.mktemp("artifacts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.getcwd(), prepend=os.pathsep)
        register_simulator(TOY)
        make_artifacts(root)
        unregister_simulator("toy")
    write_video(root / "videos" / "short.mp4", numbered_frames(2), 10)
    (root / "videos" / "broken.mp4").write_bytes(b"no video")
    card = root / "latents" / "README.md"
    kept = [line for line in card.read_text().splitlines() if not line.startswith("  fingerprint: ")]
    card.write_text("\n".join(kept) + "\n")
    return root


def test_one_process_speaks_for_all(artifacts: Path, tmp_path: Path) -> None:
    places = {name: str(artifacts / name) for name in ("videos", "latents", "skills", "policy", "recordings", "lam")}
    commands = [
        "train lam {videos} --stride 2 --image-size 32 --out {out}/lam",
        "train hilam {latents} --fdm {lam}/fdm --videos {videos} --out {out}/hilam",
        "train policy {skills} --videos {videos} --image-size 32 --out {out}/policy",
        "train finetune --policy {policy} --demonstrations {recordings} --out {out}/finetuned method=lora",
    ]
    lines = [[*command.format(**places, out=tmp_path).split(), *STEPS] for command in commands]
    said = run(SCRIPT, tmp_path / "other", json.dumps(lines), folder=tmp_path)
    assert (tmp_path / "other").read_text() == ""
    for once in ("broken.mp4: ", "left out: short", "no fingerprint", "starting fresh", ": a warning of a library"):
        assert said.count(once) == 1, said
    assert "Reading frames" in said and "Loading weights" in said
