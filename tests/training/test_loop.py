"""The training loop: optimisation, exact resume, failure."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers.utils import ModelOutput

from hilam_hf.training import Callback, TrainingConfig, TrainingState, train
from hilam_hf.training.loop import learning_rate_factor
from hilam_hf.training.sampler import ResumableBatchSampler


class Points(Dataset[dict[str, Tensor]]):
    """Samples of y = 2 x - 1."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        x = torch.tensor([index / 10])
        return {"x": x, "y": 2 * x - 1}


class Line(nn.Module):
    """A line behind dropout, so that resuming needs the random state, too."""

    def __init__(self, dropout: float = 0.2):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.line = nn.Linear(1, 1)

    def forward(self, x: Tensor, y: Tensor) -> ModelOutput:
        error = self.line(self.dropout(x)) - y
        return ModelOutput(loss=error.square().mean(), parts=torch.stack([error.mean(), error.abs().mean()]))


class StopAfter(Callback):
    """Ends a run early, as a crash would."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, state: TrainingState) -> None:
        if state.step == self.step:
            raise KeyboardInterrupt


def make_line(dropout: float = 0.2) -> Line:
    torch.manual_seed(3)
    return Line(dropout)


def options(**changes: Any) -> TrainingConfig:
    values = {"max_steps": 12, "batch_size": 4, "learning_rate": 0.05, "warmup_steps": 2, "log_every": 3}
    return TrainingConfig(**values | changes)


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_training_fits_a_line(tmp_path: Path) -> None:
    config = options(max_steps=400, learning_rate=0.1, weight_decay=0)
    result = train(make_line(dropout=0), Points(), config, output_dir=tmp_path)
    assert result.model.line.weight.item() == pytest.approx(2, abs=0.05)
    assert result.model.line.bias.item() == pytest.approx(-1, abs=0.05)
    assert set(result.history) == {"loss", "parts/0", "parts/1", "grad_norm"}
    assert json.loads((tmp_path / "history.json").read_text())["loss"][-1] == list(result.history["loss"][-1])


@pytest.mark.parametrize("accumulation", [1, 2])
def test_resuming_equals_an_uninterrupted_run_bit_for_bit(tmp_path: Path, accumulation: int) -> None:
    config = options(save_every=6, gradient_accumulation_steps=accumulation)
    whole = train(make_line(), Points(), config, output_dir=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(make_line(), Points(), config, output_dir=tmp_path / "parts", callbacks=[StopAfter(8)])
    torch.manual_seed(99)  # whatever happened in between must not matter
    resumed = train(Line(), Points(), config, output_dir=tmp_path / "parts", resume=True)
    for left, right in zip(weights(whole.model), weights(resumed.model), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)
    assert resumed.history == whole.history


def test_resuming_with_other_options_is_refused(tmp_path: Path) -> None:
    train(make_line(), Points(), options(save_every=6), output_dir=tmp_path)
    with pytest.raises(ValueError, match=r"made with learning_rate=0\.05, this run has 0\.1"):
        train(make_line(), Points(), options(save_every=6, learning_rate=0.1), output_dir=tmp_path, resume=True)


def test_only_the_latest_checkpoints_are_kept(tmp_path: Path) -> None:
    train(make_line(), Points(), options(save_every=3, keep_checkpoints=2), output_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-12", "checkpoint-9"]


def test_a_full_disk_leaves_earlier_checkpoints_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(make_line(), Points(), options(save_every=6, max_steps=6), output_dir=tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("accelerate.Accelerator.save_state", full)
    with pytest.raises(OSError, match=r"cannot write the checkpoint .*checkpoint-6.*free some space"):
        train(make_line(), Points(), options(save_every=6, max_steps=6), output_dir=tmp_path)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-6"]


def test_frozen_parameters_stay_and_nothing_trainable_is_an_error(tmp_path: Path) -> None:
    model = make_line()
    model.line.bias.requires_grad_(False)
    before = weights(model)
    after = weights(train(model, Points(), options()).model)
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    with pytest.raises(ValueError, match="no trainable parameter"):
        train(model.requires_grad_(False), Points(), options())


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    model = make_line()
    with torch.no_grad():
        model.line.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="loss is nan at step 3"):
        train(model, Points(), options())


def test_checkpoints_need_a_folder() -> None:
    with pytest.raises(ValueError, match="need an output_dir"):
        train(make_line(), Points(), options(save_every=1))


def test_the_learning_rate_rises_then_falls_along_a_cosine() -> None:
    config = options(max_steps=10, warmup_steps=2)
    factors = [learning_rate_factor(step, config) for step in range(10)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[6] == pytest.approx(0.5)
    assert learning_rate_factor(10, config) == pytest.approx(0)
    assert learning_rate_factor(9, options(schedule="constant")) == 1


def test_batches_cover_every_epoch_once_and_depend_on_seed_and_number_alone() -> None:
    sampler = ResumableBatchSampler(7, 3, seed=5, start=0, num_batches=14)
    batches = list(sampler)
    flat = [index for batch in batches for index in batch]
    assert all(sorted(flat[start : start + 7]) == list(range(7)) for start in range(0, 42, 7))
    assert list(ResumableBatchSampler(7, 3, seed=5, start=4, num_batches=14)) == batches[4:]
    assert list(ResumableBatchSampler(7, 3, seed=6, start=0, num_batches=14)) != batches
    assert len(sampler) == 14
    with pytest.raises(ValueError, match="data set is empty"):
        ResumableBatchSampler(0, 3, seed=0, start=0, num_batches=1)
