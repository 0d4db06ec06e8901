"""What callbacks of the loop see and may do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hilam_hf.training import Callback, TrainingError, TrainingState, train
from hilam_hf.training.checkpoints import checkpoints_in
from tests.training.runs import Points, StopAfter, Watcher, make_line, options, weights


class Log(Callback):
    """Notes what it is called for."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_setup(self, state: TrainingState) -> None:
        self.calls.append(f"setup {state.step}")

    def on_train_begin(self, state: TrainingState) -> None:
        self.calls.append(f"begin {state.step}")

    def on_step_end(self, state: TrainingState) -> None:
        self.calls.append(f"step {state.step}")

    def on_log(self, state: TrainingState) -> None:
        self.calls.append(f"log {state.step} {'loss' in state.metrics}")

    def on_step_done(self, state: TrainingState) -> None:
        self.calls.append(f"done {state.step}")

    def on_checkpoint(self, state: TrainingState, folder: Path) -> None:
        assert (folder / "training_state.json").is_file()
        self.calls.append(f"checkpoint {folder.name}")

    def on_train_end(self, state: TrainingState) -> None:
        self.calls.append(f"end {state.step}")


def test_they_are_called_in_this_order(tmp_path: Path) -> None:
    log = Log()
    train(make_line(), Points(), options(max_steps=2, log_every=2, save_every=2), output_dir=tmp_path, callbacks=[log])
    expected = ["setup 0", "begin 0", "step 1", "done 1", "step 2", "log 2 True", "done 2", "checkpoint checkpoint-2"]
    assert log.calls == [*expected, "end 2"]


def test_a_resumed_run_begins_where_it_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(make_line(), Points(), options(save_every=4), output_dir=tmp_path, callbacks=[Log(), StopAfter(6)])
    log = Log()
    train(make_line(), Points(), options(save_every=4), output_dir=tmp_path, callbacks=[log], resume=True)
    assert log.calls[:3] == ["setup 0", "begin 4", "step 5"]


def test_a_callback_can_stop_a_run_which_then_ends_as_any_other(tmp_path: Path) -> None:
    class Enough(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            if state.step == 5:
                state.stop("the loss is low enough")

    watcher = Watcher()
    config = options(ema_decay=0.5, save_every=4)
    result = train(make_line(), Points(), config, output_dir=tmp_path, callbacks=[watcher, Enough()])
    assert result.steps == 5 and len(watcher.seen) == 5
    assert result.weights == "average"
    assert '"finished"' in (tmp_path / "run.json").read_text()


def test_the_best_weights_need_a_validation_before_the_end() -> None:
    class Enough(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            state.stop("at once")

    config = options(validate_every=5, final_weights="best")
    with pytest.raises(TrainingError, match="the run ended before its first validation"):
        train(make_line(), Points(), config, held_out=Points(5), callbacks=[Enough()])


def test_a_callback_sees_output_and_optimiser() -> None:
    seen: list[tuple[float, float, int]] = []

    class See(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            moments = state.optimizer.state[state.model.line.weight]
            seen.append((state.output.loss.item(), state.optimizer.param_groups[0]["lr"], int(moments["step"])))

    history = train(make_line(), Points(), options(log_every=1), callbacks=[See()]).history
    assert [loss for loss, _, _ in seen] == pytest.approx([loss for _, loss in history["loss"]])
    assert [steps for _, _, steps in seen] == list(range(1, 13))


class Counting(Callback):
    """A callback with state of both kinds."""

    def __init__(self) -> None:
        self.count, self.sums = 0, torch.zeros(2)

    def on_step_end(self, state: TrainingState) -> Mapping[str, float]:
        self.count += 1
        self.sums += torch.stack([each.flatten()[0] for each in weights(state.model)])
        return {"sum": self.sums.sum().item()}

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]

    def tensors(self) -> dict[str, Tensor]:
        return {"sums": self.sums}


def test_state_of_callbacks_is_kept_also_of_two_of_a_kind(tmp_path: Path) -> None:
    whole = [Counting(), Counting()]
    history = train(make_line(), Points(), options(), callbacks=whole).history
    with pytest.raises(KeyboardInterrupt):
        parts = [Counting(), Counting(), StopAfter(7)]
        train(make_line(), Points(), options(save_every=4), output_dir=tmp_path, callbacks=parts)
    names = sorted(path.name for path in (tmp_path / "checkpoint-4").glob("Counting*"))
    assert names == ["Counting-2.safetensors", "Counting.safetensors"]
    again = [Counting(), Counting()]
    config = options(save_every=4)
    resumed = train(make_line(), Points(), config, output_dir=tmp_path, callbacks=again, resume=True)
    assert [each.count for each in again] == [12, 12]
    assert all(torch.equal(left.sums, right.sums) for left, right in zip(whole, again, strict=True))
    assert resumed.history == history


def test_a_checkpoint_without_the_state_of_a_callback_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(make_line(), Points(), options(save_every=4), output_dir=tmp_path, callbacks=[StopAfter(6)])
    with pytest.raises(ValueError, match="it has no state of the callback Counting; resume with the same callbacks"):
        train(make_line(), Points(), options(save_every=4), output_dir=tmp_path, callbacks=[Counting()], resume=True)


def test_all_callbacks_hear_of_the_end_also_where_one_fails(tmp_path: Path) -> None:
    class Faulty(Callback):
        def on_train_end(self, state: TrainingState) -> None:
            raise OSError("the upload failed")

    log = Log()
    with pytest.raises(OSError, match="the upload failed"):
        train(make_line(), Points(), options(save_every=4), output_dir=tmp_path, callbacks=[Faulty(), log])
    assert log.calls[-1] == "end 12"
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint-8", "checkpoint-12"]


def test_what_runs_before_or_after_a_run_is_not_told_by_its_random_numbers() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = train(make_line(), Points(), options()).model
    torch.manual_seed(1)
    model = make_line()
    torch.manual_seed(1)
    second = train(model, Points(), options()).model
    assert torch.equal(torch.rand(3), expected)
    assert all(map(torch.equal, weights(first), weights(second)))
