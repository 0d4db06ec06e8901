"""Checkpoints: whole or not at all, of one run, and nothing but safetensors and JSON."""

import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hilam_hf.training import Callback, TrainingState, train
from hilam_hf.training.checkpoints import checkpoints_in
from tests.training.runs import Line, Points, StopAfter, files_of, make_line, options, weights

FILES = ["training_state.json", "model.safetensors", "optimizer.safetensors", "average.safetensors", "best.safetensors"]


def whole_run(folder: Path, **changes: Any) -> None:
    config = options(save_every=4, ema_decay=0.9, validate_every=4, **changes)
    train(make_line(), Points(), config, output_dir=folder, held_out=Points(5))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    whole_run(folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def resume(folder: Path, model: Line | None = None, data: Points | None = None, **changes: Any) -> Any:
    config = options(**{"save_every": 4, "ema_decay": 0.9, "validate_every": 4} | changes)
    return train(model or make_line(), data or Points(), config, output_dir=folder, held_out=Points(5), resume=True)


def test_a_checkpoint_is_safetensors_and_json(finished: Path) -> None:
    assert sorted(path.name for path in (finished / "checkpoint-12").iterdir()) == sorted(FILES)


@pytest.mark.parametrize(
    ("file", "damage"),
    [(file, damage) for file in FILES for damage in ("absent", "empty", "half", "garbage")]
    + [(file, "foreign") for file in FILES[1:]],
)
def test_each_damaged_file_is_named_and_so_is_the_checkpoint_before(run: Path, file: str, damage: str) -> None:
    before, last = checkpoints_in(run)
    whole = (last / file).read_bytes()
    if damage == "absent":
        (last / file).unlink()
    elif damage == "foreign":
        # Sound by itself, and of the same model, but of another moment.
        shutil.copy(before / file, last / file)
    else:
        (last / file).write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "garbage": b"\xff" * 100}[damage])
    with pytest.raises(ValueError, match=rf"{last.name} cannot be read .*{file}.*then resume from .*{before.name}$"):
        resume(run)
    shutil.rmtree(last)
    resume(run)


def test_files_of_another_checkpoint_are_not_taken_with_its_state(run: Path) -> None:
    before, last = checkpoints_in(run)
    shutil.copy(before / "training_state.json", last)
    with pytest.raises(ValueError, match=r"checkpoint-12 cannot be read \(.*is not the file that was written\)"):
        resume(run)


def test_a_planted_pickle_is_not_loaded(run: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (os.system, (f"touch {run}/executed",))

    for name in ("optimizer.bin", "random_states_0.pkl", "scheduler.bin", "model.bin", "optimizer.safetensors.bin"):
        (run / "checkpoint-12" / name).write_bytes(pickle.dumps(Bomb()))
    resume(run)
    (run / "checkpoint-12" / "optimizer.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"optimizer\.safetensors has"):
        resume(run)
    assert not (run / "executed").exists()


def test_a_newer_format_names_the_version_to_install(run: Path) -> None:
    file = run / "checkpoint-12" / "training_state.json"
    state = json.loads(file.read_text())
    state["format"], state["identity"]["library"] = 2, "7.1.0"
    file.write_text(json.dumps(state))
    with pytest.raises(
        ValueError, match=r"has format 2 and was written by hilam-hf 7\.1\.0; this version reads format 1"
    ):
        resume(run)


def other_library(run: Path) -> None:
    file = run / "checkpoint-12" / "training_state.json"
    state = json.loads(file.read_text())
    state["identity"]["library"] = "7.1.0"
    file.write_text(json.dumps(state))
    resume(run)


class Renamed(Points):
    """The same points in another order, as another corpus would be."""

    def fingerprint(self) -> str:
        return "0123456789abcdef"


OTHER_RUNS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "data": (lambda run: resume(run, data=Points(24)), r"its data\.samples is 23, that of this run 24"),
    "data of the same size": (lambda run: resume(run, data=Renamed()), r"data\.fingerprint is None, that of this"),
    "initial weights": (lambda run: resume(run, model=Line()), r"its model\.weights is '\w+', that of this run '\w+'"),
    "library": (other_library, r"its library is '7\.1\.0', that of this run '0\.1\.0'"),
    "option": (lambda run: resume(run, learning_rate=0.1), r"made with learning_rate=0\.05, this run has 0\.1"),
    "longer under a cosine": (lambda run: resume(run, max_steps=20), "made with max_steps=12, this run has 20"),
}


@pytest.mark.parametrize("name", OTHER_RUNS)
def test_the_state_of_another_run_is_not_taken(run: Path, name: str) -> None:
    torch.manual_seed(99)
    attempt, told = OTHER_RUNS[name]
    with pytest.raises(ValueError, match=told):
        attempt(run)


def test_a_run_without_a_checkpoint_yet_is_another_one_too(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(make_line(), Points(), options(), output_dir=tmp_path, callbacks=[StopAfter(2)])
    with pytest.raises(ValueError, match=r"belongs to another run: its data\.samples is 23, that of this run 24"):
        train(make_line(), Points(24), options(), output_dir=tmp_path, resume=True)
    whole = train(make_line(), Points(), options()).model
    resumed = train(make_line(), Points(), options(), output_dir=tmp_path, resume=True).model
    assert all(map(torch.equal, weights(whole), weights(resumed)))


def test_the_rate_being_constant_a_run_may_grow(tmp_path: Path) -> None:
    constant = {"schedule": "constant_with_warmup", "save_every": 4}
    train(make_line(), Points(), options(**constant), output_dir=tmp_path)
    grown = train(make_line(), Points(), options(**constant, max_steps=20), output_dir=tmp_path, resume=True)
    assert grown.steps == 20
    constant["save_every"] = 0
    whole = train(make_line(), Points(), options(**constant, max_steps=20))
    assert all(map(torch.equal, weights(whole.model), weights(grown.model)))


@pytest.mark.parametrize("save_every", [1, 2, 5, 7])
@pytest.mark.parametrize("in_background", [False, True])
def test_a_history_does_not_tell_where_a_run_was_cut(tmp_path: Path, save_every: int, in_background: bool) -> None:
    config = options(save_every=save_every, log_every=3, async_checkpoints=in_background)
    whole = train(make_line(), Points(), config, output_dir=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(make_line(), Points(), config, output_dir=tmp_path / "cut", callbacks=[StopAfter(11)])
    resumed = train(make_line(), Points(), config, output_dir=tmp_path / "cut", resume=True)
    assert resumed.history == whole.history
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_checkpoints_written_in_the_background_are_the_same_bytes(tmp_path: Path, finished: Path) -> None:
    whole_run(tmp_path, async_checkpoints=True)
    kept, expected = files_of(tmp_path), files_of(finished)
    for name in [name for name in expected if name.endswith("training_state.json")]:
        assert kept.pop(name) == expected.pop(name).replace(b'"async_checkpoints": false', b'"async_checkpoints": true')
    assert kept == expected


@pytest.mark.parametrize("file", ["model", "optimizer", "average", "best", "training_state.json"])
def test_a_full_disk_leaves_earlier_checkpoints_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    def write(tensors: dict[str, Tensor], path: Path) -> None:
        if full and path.name == f"{file}.safetensors":
            path.write_bytes(b"part of it")
            raise OSError(28, "No space left on device")
        save_file(tensors, path)

    def write_state(path: Path, text: str) -> None:
        if full and path.name == file and "checkpoint" in path.parent.name:
            raise OSError(28, "No space left on device")
        path.write_text(text)

    class FullAfter(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            full.extend([True] * (state.step == 6))

    full: list[bool] = []
    monkeypatch.setattr("hilam_hf.training.checkpoints.files.save_file", write)
    monkeypatch.setattr("hilam_hf.training.checkpoints.store.write_text", write_state)
    config = options(save_every=4, ema_decay=0.9, validate_every=4)
    with pytest.raises(OSError, match=r"No space left on device"):
        train(make_line(), Points(), config, output_dir=tmp_path, held_out=Points(5), callbacks=[FullAfter()])
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]
    full.clear()
    config = options(save_every=4, ema_decay=0.9, validate_every=4)
    assert train(make_line(), Points(), config, output_dir=tmp_path, held_out=Points(5), resume=True).steps == 12


class Slow(Callback):
    """Leaves time to be killed in every part of a step."""

    def on_step_end(self, state: TrainingState) -> None:
        time.sleep(0.005)


def _train_in_child(folder: Path, config: Any, resume: bool) -> None:
    train(make_line(), Points(), config, output_dir=folder, callbacks=[Slow()], held_out=Points(5), resume=resume)


@pytest.mark.parametrize("in_background", [False, True])
def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(tmp_path: Path, in_background: bool) -> None:
    config = options(max_steps=40, save_every=1, ema_decay=0.9, validate_every=7, async_checkpoints=in_background)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(make_line(), Points(), config, output_dir=whole, callbacks=[Slow()], held_out=Points(5))
    draw, kills = random.Random(0), 0
    forked = multiprocessing.get_context("fork")
    for _ in range(60):
        child = forked.Process(target=_train_in_child, args=(cut, config, (cut / "run.json").exists()))
        child.start()
        child.join(draw.uniform(0.05, 0.5) if kills < 20 else None)
        if child.exitcode is None:
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            kills += 1
        elif kills < 20:
            # It was quicker than the kill: once more from a state in the middle.
            assert child.exitcode == 0
            for checkpoint in checkpoints_in(cut):
                shutil.rmtree(checkpoint)
        else:
            break
    assert kills == 20
    assert child.exitcode == 0
    assert files_of(cut) == files_of(whole)
    assert not list(cut.glob("*.partial"))


def test_what_a_killed_save_left_is_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(make_line(), Points(), options(save_every=4), output_dir=tmp_path, callbacks=[StopAfter(6)])
    (tmp_path / "checkpoint-6.partial").mkdir()
    (tmp_path / "checkpoint-6.partial" / "model.safetensors").write_bytes(b"0" * 1000)
    train(make_line(), Points(), options(save_every=4), output_dir=tmp_path, resume=True)
    assert not list(tmp_path.glob("*.partial"))


def test_weights_are_readable_by_whom_the_umask_allows(finished: Path) -> None:
    expected = 0o666 & ~os.umask(os.umask(0o022))
    assert {path.stat().st_mode & 0o777 for path in (finished / "checkpoint-12").iterdir()} == {expected}


def test_the_best_weights_are_those_of_the_lowest_validation_loss(tmp_path: Path) -> None:
    config = options(validate_every=2, save_every=12, final_weights="best", learning_rate=0.2)
    result = train(make_line(0), Points(), config, output_dir=tmp_path, held_out=Points(5))
    losses = dict(result.history["validation/loss"])
    best = min(losses, key=losses.__getitem__)
    assert result.weights_step == best < 12
    assert result.best_loss == losses[best]
    grab = GrabAt(best)
    last = train(make_line(0), Points(), options(learning_rate=0.2), callbacks=[grab]).model
    assert all(map(torch.equal, weights(result.model), grab.seen))
    assert not any(map(torch.equal, weights(last), grab.seen))
    saved = load_file(tmp_path / "checkpoint-12" / "best.safetensors")
    assert torch.equal(saved["line.weight"], grab.seen[0])


class GrabAt(Callback):
    """Keeps the weights of one step."""

    def __init__(self, step: int):
        self.step, self.seen = step, list[Tensor]()

    def on_step_end(self, state: TrainingState) -> None:
        if state.step == self.step:
            self.seen = weights(state.model)
