"""What trackers get of a run, read back from what they wrote."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from hilam_hf.fingerprint import weights_fingerprint
from hilam_hf.training import train
from tests.training.launching import run
from tests.training.runs import Points, StopAfter, make_line, options

TRACKIO = """
import os, sys
os.environ["TRACKIO_DIR"] = sys.argv[1]
from hilam_hf.training import train
from tests.training.runs import Points, make_line, options

train(make_line(), Points(), options(tracker="trackio", validate_every=6), held_out=Points(5))
"""
# `options` logs every third of twelve steps, and these runs validate after every sixth.
STEPS = {
    **{name: [3, 6, 9, 12] for name in ("loss", "parts/0", "parts/1", "grad_norm")},
    **{f"validation/{name}": [6, 12] for name in ("loss", "parts/0", "parts/1")},
}


class NamedPoints(Points):
    """Points that know themselves again."""

    def fingerprint(self) -> str:
        return "feedc0de"


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every metric as TensorBoard shows it."""
    shown = EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in shown.Scalars(name)] for name in shown.Tags()["scalars"]}


def hyperparameters(folder: Path) -> dict[str, Any]:
    """What TensorBoard knows of the only run in a folder besides its metrics."""
    (events,) = folder.glob("*/events.out.*")
    kept = EventAccumulator(str(events)).Reload().SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    told = HParamsPluginData.FromString(kept).session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in told.items()}


def test_tensorboard_gets_every_metric_with_its_steps(tmp_path: Path) -> None:
    config = options(tracker="tensorboard", validate_every=6)
    result = train(make_line(), Points(), config, held_out=Points(5), output_dir=tmp_path)
    found = scalars(tmp_path / "tracking" / "hilam")
    assert {name: [step for step, _ in entries] for name, entries in found.items()} == STEPS
    for name, entries in result.history.items():
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in entries], rel=1e-6)


def test_tensorboard_gets_the_options_and_what_the_run_is_of(tmp_path: Path) -> None:
    model, config = make_line(), options(tracker="tensorboard", validate_every=6)
    start = weights_fingerprint(model)
    train(model, NamedPoints(), config, held_out=Points(5), output_dir=tmp_path, description="a line")
    told = hyperparameters(tmp_path / "tracking" / "hilam")
    assert (told["learning_rate"], told["max_steps"], told["schedule"]) == (0.05, 12, "cosine")
    assert (told["stage"], told["data.samples"], told["data.fingerprint"]) == ("a line", 23, "feedc0de")
    assert (told["held-out data.samples"], told["model.class"], told["model.weights"]) == (5, "Line", start)


def test_steps_that_a_resumed_run_computes_again_are_shown_once(tmp_path: Path) -> None:
    config = options(tracker="tensorboard", save_every=5, log_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(make_line(), Points(), config, output_dir=tmp_path, callbacks=[StopAfter(9)])
    result = train(make_line(), Points(), config, output_dir=tmp_path, resume=True)
    losses = scalars(tmp_path / "tracking" / "hilam")["loss"]
    assert [step for step, _ in losses] == list(range(1, 13))
    assert [value for _, value in losses] == pytest.approx([value for _, value in result.history["loss"]], rel=1e-6)


def test_a_new_run_starts_new_logs(tmp_path: Path) -> None:
    config = options(tracker="tensorboard")
    for again in (False, True):
        train(make_line(), Points(), config, output_dir=tmp_path, overwrite=again)
    assert [step for step, _ in scalars(tmp_path / "tracking" / "hilam")["loss"]] == [3, 6, 9, 12]


@pytest.mark.slow
def test_trackio_gets_the_same(tmp_path: Path) -> None:
    # It reads where to write when it is imported.
    run(TRACKIO, tmp_path / "kept", processes=1, folder=tmp_path)
    with sqlite3.connect(tmp_path / "kept" / "hilam.db") as kept:
        rows = kept.execute("select step, metrics from metrics order by step").fetchall()
        ((told,),) = kept.execute("select config from configs").fetchall()
    found: dict[str, list[int]] = {}
    for step, metrics in rows:
        for name in json.loads(metrics):
            found.setdefault(name, []).append(step)
    assert found == STEPS
    told = json.loads(told)
    assert (told["learning_rate"], told["max_steps"], told["data.samples"]) == (0.05, 12, 23)
    assert told["model.weights"] == weights_fingerprint(make_line())
