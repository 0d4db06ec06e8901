"""A step's gradient is that of one batch, however it is shared out: by accumulation, over processes, or both."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hilam_hf.training.checkpoints import latest_checkpoint
from tests.training.launching import run
from tests.training.stages import STAGES

SCRIPT = """
import json, sys
from pathlib import Path
from hilam_hf.training.processes import process_state
from tests.training.stages import STAGES

for name, changes in json.loads(sys.argv[2]):
    folder = Path(sys.argv[1]) / name / json.dumps(changes)
    if process_state().is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
    process_state().wait_for_everyone()
    STAGES[name](folder, **changes)
"""


def gradient(folder: Path) -> dict[str, Tensor]:
    """A tenth of it, as AdamW's first moment after one step."""
    checkpoint = latest_checkpoint(folder / "run")
    assert checkpoint is not None
    state = load_file(checkpoint / "optimizer.safetensors")
    return {name: value for name, value in state.items() if name.endswith(".exp_avg")}


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    scale = max(float(value.abs().max()) for value in right.values())
    for name, value in left.items():
        torch.testing.assert_close(
            value, right[name], rtol=1e-4, atol=1e-5 * scale, msg=lambda told, n=name: f"{n}: {told}"
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    gradients = {}
    for name, train in STAGES.items():
        folder = tmp_path_factory.mktemp("whole")
        train(folder)
        gradients[name] = gradient(folder)
    return gradients


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("accumulation", [2, 4, 8])
def test_accumulated_batches_have_the_gradient_of_one(
    tmp_path: Path, whole: dict[str, dict[str, Tensor]], name: str, accumulation: int
) -> None:
    STAGES[name](tmp_path, gradient_accumulation_steps=accumulation)
    assert_equal(gradient(tmp_path), whole[name])


def test_processes_have_the_gradient_of_one(tmp_path: Path, whole: dict[str, dict[str, Tensor]]) -> None:
    runs = [(name, changes) for name in STAGES for changes in ({}, {"gradient_accumulation_steps": 2})]
    run(SCRIPT, tmp_path, json.dumps(runs), folder=tmp_path)
    for name, changes in runs:
        assert_equal(gradient(tmp_path / name / json.dumps(changes)), whole[name])


@pytest.mark.parametrize("name", ["hilam", "fine-tuning"])
def test_without_counts_of_the_whole_batch_the_gradient_is_another(
    tmp_path: Path, whole: dict[str, dict[str, Tensor]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the tests above have something to find."""
    monkeypatch.setattr("hilam_hf.training.parts.PartMeans.of_step", lambda self, parts, seed: [{} for _ in parts])
    STAGES[name](tmp_path, gradient_accumulation_steps=4)
    with pytest.raises(AssertionError):
        assert_equal(gradient(tmp_path), whole[name])


def test_both_levels_learn_where_the_high_one_is_not_frozen(tmp_path: Path) -> None:
    STAGES["fine-tuning both levels"](tmp_path)
    moved = {name for name, value in gradient(tmp_path).items() if value.abs().max() > 0}
    assert any(name.startswith("high_level.") for name in moved)
    assert all(value.abs().max() > 0 for name, value in gradient(tmp_path).items() if "high_level.trunk" in name)
