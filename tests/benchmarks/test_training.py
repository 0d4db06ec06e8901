"""The training benchmark: loops that end in the same weights, what is timed, and its arithmetic."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from hilam_hf.training import TrainingState
from hilam_hf.training.callbacks import Checkpointing
from tests.benchmarks.scripts import import_script
from tests.helpers import ROOT

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return import_script("training")


@pytest.fixture(scope="module")
def loops(script: ModuleType) -> ModuleType:
    return sys.modules["_training_loops"]


@pytest.fixture(scope="module")
def run(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> object:
    return script.run_of(script.parse(["--quick"]), tmp_path_factory.mktemp("benchmark"))


def test_all_loops_end_in_the_same_weights_and_are_compared(script: ModuleType, run: object) -> None:
    claims = script.compare_loops(run)
    assert [claim.name for claim in claims] == [
        f"training-{peer}-{work}" for work in ("hilam-tiny", "lam-light") for peer in ("loop", "trainer")
    ]
    assert [claim.aim for claim in claims] == [0.95] * 4
    for claim in claims:
        assert claim.unit == "samples/s" and claim.ratio == pytest.approx(claim.ours / claim.peer)


def test_a_loop_that_ends_in_other_weights_is_refused(
    script: ModuleType, run: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = script.LOOPS["plain"]

    def other(work: object, config: object, watch: object) -> nn.Module:
        return plain(work, dataclasses.replace(config, max_grad_norm=1e-3), watch)

    monkeypatch.setitem(script.LOOPS, "plain", other)
    with pytest.raises(RuntimeError, match=r"hilam-tiny: weights moved by .* and differ by"):
        script.largest_difference(run, run.works["hilam"]())


@pytest.mark.parametrize("loop", ["ours", "plain", "trainer"])
def test_only_the_steps_after_the_first_are_timed(loops: ModuleType, run: object, loop: str) -> None:
    work = run.works["hilam"]()
    seen: list[int] = []
    watch = loops.Watch(5, 9, CPU, clock=lambda: 10.0 * len(seen))
    tell = watch.step_done
    watch.step_done = lambda step: seen.append(step) or tell(step)
    loops.LOOPS[loop](work, work.config(9), watch)
    assert seen == list(range(1, 10))
    # Steps 6 to 9, of 10 s each.
    assert watch.seconds == 40


def test_the_share_of_waiting(loops: ModuleType) -> None:
    noted = loops.OnOurs(loops.Watch(1, 4, CPU))
    # Four steps of 10 s each, of which the first waits for 9 s and the others for 1 s; the loop notes the end of a step
    # after its callbacks.
    for step in range(1, 5):
        noted.on_step_done(SimpleNamespace(step=step, seconds_waiting=8.0 + step, seconds_running=10.0 * (step - 1)))
    assert noted.share_waiting == pytest.approx(0.1)


def test_waiting_is_measured_with_and_without_workers(script: ModuleType, run: object) -> None:
    quick = dataclasses.replace(run, works={"hilam": run.works["hilam"]})
    claims = script.measure_waiting(quick)
    assert [claim.name for claim in claims] == [f"training-waiting-hilam-tiny-{number}-workers" for number in (0, 2)]
    for claim in claims:
        assert 0 <= claim.ours < 1 and claim.ratio == pytest.approx(0.05 / max(claim.ours, 1e-4))


def test_the_time_of_a_checkpoint_is_what_lies_between_steps(
    script: ModuleType, run: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, save, end_step = [0.0], Checkpointing.save, script.Gaps.on_step_end

    # Time stands still, but for a checkpoint, which takes 7 s, and for what else lies between two steps, 1 s.
    def save_slowly(self: Checkpointing, state: TrainingState) -> None:
        save(self, state)
        now[0] += 7

    def end_step_slowly(self: object, state: TrainingState) -> None:
        end_step(self, state)
        now[0] += 1

    monkeypatch.setattr(Checkpointing, "save", save_slowly)
    monkeypatch.setattr(script.Gaps, "on_step_end", end_step_slowly)
    work = run.works["hilam"]()
    stop, whole = script.stopped_by_checkpoints(run, work, tmp_path, in_background=False, clock=lambda: now[0])
    # Of 49 steps the 25th is saved.
    assert (stop, whole) == (7, 49 + 7)


def test_checkpoints_of_both_ways_are_the_same(script: ModuleType, run: object) -> None:
    (claim,) = script.compare_checkpoints(dataclasses.replace(run, large=run.works["hilam"]))
    assert (claim.name, claim.unit, claim.aim) == ("training-checkpoint-stop", "s", 4.0)


def test_peak_memory_is_that_of_a_process_of_its_own() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "training.py"), "--quick", "--threads", "1"]
    said = subprocess.run([*command, "--peak-of", "plain"], stdout=subprocess.PIPE, text=True, check=True).stdout
    # Weights, gradients and two moments of 8.3 million parameters in float32, and the model that is copied.
    assert 8.3e6 * 4 * 4 < int(said) < 8.3e6 * 4 * 10


def test_command_line(script: ModuleType, tmp_path: Path) -> None:
    found = script.run_of(script.parse(["--steps", "25", "--repetitions", "2", "--cpu-time"]), tmp_path)
    assert (found.steps, found.repetitions, found.checkpoints) == (25, 2, 2)
    assert found.clock is script.time.process_time
    # The size at which the time of a checkpoint matters.
    assert 50e6 < sum(each.numel() for each in found.large().model.parameters()) < 100e6
