"""The training loop: optimisation, averaged weights, validation, exact resume, failure."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import ModelOutput

from hilam_hf.training import TrainingState, train
from tests.training.runs import Line, Points, StopAfter, Watcher, make_line, options, weights


def test_training_fits_a_line(tmp_path: Path) -> None:
    config = options(max_steps=400, learning_rate=0.1, weight_decay=0)
    result = train(make_line(dropout=0), Points(), config, output_dir=tmp_path)
    assert result.model.line.weight.item() == pytest.approx(2, abs=0.05)
    assert result.model.line.bias.item() == pytest.approx(-1, abs=0.05)
    assert set(result.history) == {"loss", "parts/0", "parts/1", "grad_norm"}
    assert json.loads((tmp_path / "history.json").read_text())["loss"][-1] == list(result.history["loss"][-1])


@pytest.mark.parametrize(("accumulation", "ema_decay"), [(1, None), (2, None), (1, 0.8), (2, 0.8)])
def test_resuming_equals_an_uninterrupted_run_bit_for_bit(
    tmp_path: Path, accumulation: int, ema_decay: float | None
) -> None:
    config = options(save_every=6, gradient_accumulation_steps=accumulation, ema_decay=ema_decay)
    whole = train(make_line(), Points(), config, output_dir=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(make_line(), Points(), config, output_dir=tmp_path / "parts", callbacks=[StopAfter(8)])
    line = make_line()
    torch.manual_seed(99)  # whatever happened in between must not matter
    resumed = train(line, Points(), config, output_dir=tmp_path / "parts", resume=True)
    for left, right in zip(weights(whole.model), weights(resumed.model), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)
    assert resumed.history == whole.history


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_trained_model_has_the_average_and_the_last_checkpoint_the_last_weights(
    tmp_path: Path, accumulation: int
) -> None:
    watcher = Watcher()
    config = options(ema_decay=0.5, save_every=6, gradient_accumulation_steps=accumulation)
    result = train(make_line(), Points(), config, output_dir=tmp_path, callbacks=[watcher])
    plain = train(make_line(), Points(), options(gradient_accumulation_steps=accumulation))
    # Averaging leaves training itself alone, and happens once a step.
    assert len(watcher.seen) == 12
    assert all(torch.equal(left, right) for left, right in zip(watcher.seen[-1], weights(plain.model), strict=True))
    expected = watcher.seen[0]
    for number, step in enumerate(watcher.seen[1:], start=2):
        decay = min(0.5, number / (number + 9))
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, step, strict=True)]
    for left, right in zip(weights(result.model), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6)
    saved = load_file(tmp_path / "checkpoint-12" / "model.safetensors")
    assert torch.equal(saved["line.weight"], watcher.seen[-1][0])


def test_what_callbacks_measure_is_logged() -> None:
    result = train(make_line(), Points(), options(max_steps=4), callbacks=[Watcher()])
    assert result.history["watched"] == [(1, 10), (2, 20), (3, 30), (4, 40)]
    assert [step for step, _ in result.history["loss"]] == [3, 4]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_that_the_fp16_scaler_skips_leaves_weights_and_average_alone(
    monkeypatch: pytest.MonkeyPatch, accumulation: int
) -> None:
    def step(self: AcceleratedOptimizer, closure: Any = None) -> None:
        """As accelerate's own with a gradient scaler that finds every third step to overflow."""
        if self.gradient_state.sync_gradients:
            self.attempts = getattr(self, "attempts", 0) + 1
            self._is_overflow = self.attempts % 3 == 0
            if not self._is_overflow:
                self.optimizer.step(closure)

    monkeypatch.setattr(AcceleratedOptimizer, "step", step)
    updates: list[int] = []
    step_average = EMAModel.step
    monkeypatch.setattr(
        EMAModel, "step", lambda self, weights: (updates.append(len(watcher.seen)), step_average(self, weights))
    )
    watcher = Watcher()
    config = options(ema_decay=0.5, log_every=1, gradient_accumulation_steps=accumulation)
    result = train(make_line(), Points(), config, callbacks=[watcher])
    assert updates == [1, 2, 4, 5, 7, 8, 10, 11]
    # The norm of gradients that overflowed is no number to be averaged.
    assert [step for step, _ in result.history["grad_norm"]] == updates
    assert torch.equal(watcher.seen[1][0], watcher.seen[2][0])
    assert not torch.equal(watcher.seen[2][0], watcher.seen[3][0])
    assert result.steps == 12


@pytest.mark.gpu
def test_overflowing_steps_in_fp16_are_counted_and_skipped() -> None:
    # The scaler starts at 65536, so that gradients of this size overflow until it has come down.
    class Steep(Line):
        def forward(self, x: Tensor, y: Tensor) -> ModelOutput:
            return ModelOutput(loss=20 * super().forward(x, y).loss)

    AcceleratorState._reset_state()  # accelerate takes one precision a process
    torch.manual_seed(3)
    config = options(mixed_precision="fp16", ema_decay=0.5, max_steps=20, log_every=1)
    try:
        history = train(Steep(0), Points(), config).history
    finally:
        AcceleratorState._reset_state()
    assert history["skipped_steps"][0] == (1, 1)
    assert history["skipped_steps"][-1] == (20, 0)
    assert len(history["grad_norm"]) == 20 - sum(value for _, value in history["skipped_steps"])


def test_mixed_precision_ends_with_the_run() -> None:
    AcceleratorState._reset_state()
    try:
        line = make_line(0)
        trained = train(line, Points(), options(mixed_precision="bf16", max_steps=2)).model
    finally:
        AcceleratorState._reset_state()
    assert trained is line
    # A product that bfloat16 would round to a multiple of 1/128.
    with torch.no_grad():
        line.line.weight.fill_(1)
        line.line.bias.fill_(0)
    assert line(torch.tensor([[1.001]]), torch.zeros(1, 1)).parts[0].item() == pytest.approx(1.001, abs=1e-6)


class Validation:
    """Uses every random stream, as any measure may, and keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[Tensor], float]] = []

    def __call__(self, state: TrainingState) -> dict[str, float]:
        assert not state.model.training
        drawn = torch.rand(3).sum().item() + random.random() + np.random.rand()
        self.seen.append((state.step, weights(state.model), drawn))
        return {"validation/line": state.model.line.weight.item()}


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_validation_leaves_no_trace_in_training(tmp_path: Path, ema_decay: float | None) -> None:
    plain, watched, validated = Watcher(), Watcher(), Validation()
    train(make_line(), Points(), options(ema_decay=ema_decay), callbacks=[plain])
    config = options(ema_decay=ema_decay, validate_every=5)
    result = train(make_line(), Points(), config, callbacks=[watched], validate=validated, output_dir=tmp_path)
    for left, right in zip(plain.seen, watched.seen, strict=True):
        assert all(map(torch.equal, left, right))
    assert [step for step, _, _ in validated.seen] == [5, 10, 12]
    # Each from the seed and its step.
    assert len({drawn for _, _, drawn in validated.seen}) == 3
    assert [step for step, _ in result.history["validation/line"]] == [5, 10, 12]
    assert "validation/line" in json.loads((tmp_path / "history.json").read_text())
    # It sees the average where there is one.
    same = torch.equal(validated.seen[0][1][0], watched.seen[4][0])
    assert same == (ema_decay is None)
    assert torch.equal(validated.seen[-1][1][0], result.model.line.weight)


def test_validation_needs_something_to_validate_on() -> None:
    with pytest.raises(ValueError, match="validate_every=5, but there is nothing held out"):
        train(make_line(), Points(), options(validate_every=5))


def test_resuming_with_other_options_is_refused(tmp_path: Path) -> None:
    train(make_line(), Points(), options(save_every=6), output_dir=tmp_path)
    with pytest.raises(ValueError, match=r"made with learning_rate=0\.05, this run has 0\.1"):
        train(make_line(), Points(), options(save_every=6, learning_rate=0.1), output_dir=tmp_path, resume=True)


def test_only_the_latest_checkpoints_are_kept(tmp_path: Path) -> None:
    train(make_line(), Points(), options(save_every=3, keep_checkpoints=2), output_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-12", "checkpoint-9"]


def test_frozen_parameters_stay_and_nothing_trainable_is_an_error(tmp_path: Path) -> None:
    model = make_line()
    model.line.bias.requires_grad_(False)
    before = weights(model)
    after = weights(train(model, Points(), options()).model)
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    with pytest.raises(ValueError, match="no trainable parameter"):
        train(model.requires_grad_(False), Points(), options())


def test_checkpoints_need_a_folder() -> None:
    with pytest.raises(ValueError, match="need an output_dir"):
        train(make_line(), Points(), options(save_every=1))
