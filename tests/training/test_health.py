"""A loss or gradient that is no number reaches nothing that is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from transformers.utils import ModelOutput

from hilam_hf.training import Callback, NonFiniteError, TrainingState, train
from hilam_hf.training.checkpoints import checkpoints_in
from hilam_hf.training.sampler import StepSampler
from tests.training.runs import Line, Points, Watcher, make_line, options, weights

BAD_STEP = 5


class Poisoned(Points):
    """Points of which one is bad; `first_step` is the first step whose batch has it."""

    def __init__(self, value: float, count: int = 230):
        super().__init__(count)
        self.value = value
        self.row = StepSampler(count, 4, seed=0, num_steps=12).rows(BAD_STEP - 1)[2]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = super().__getitem__(index)
        return {**sample, "y": torch.full((1,), self.value)} if index == self.row else sample

    def sample_id(self, index: int) -> str:
        return f"episode {index // 10}, frame {index % 10}"


class InfiniteGradient(Line):
    """A finite loss whose gradient is none, as a square root at 0 has."""

    def forward(self, x: Tensor, y: Tensor) -> ModelOutput:
        output = super().forward(x, torch.where(torch.isfinite(y), y, 0.0))
        bad = (~torch.isfinite(y)).any()
        root = torch.where(bad, 0 * self.line.weight.sum(), 1.0).sqrt()
        return ModelOutput(loss=output.loss + root - root.detach())


class LossAlone(Line):
    """A loss that is no number, of which no parameter gets a gradient that is none."""

    def forward(self, x: Tensor, y: Tensor) -> ModelOutput:
        output = super().forward(x, torch.where(torch.isfinite(y), y, 0.0))
        return ModelOutput(loss=output.loss + torch.where(torch.isfinite(y), 0.0, y).sum())


@pytest.fixture(autouse=True)
def any_precision() -> Any:
    """accelerate takes one precision a process."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("model_class", [Line, InfiniteGradient, LossAlone])
@pytest.mark.parametrize(
    "changes",
    [{}, {"gradient_accumulation_steps": 2}, {"mixed_precision": "bf16"}, {"max_grad_norm": None}],
    ids=["plain", "accumulated", "bf16", "unclipped"],
)
def test_no_update_no_average_and_no_checkpoint_from_a_bad_batch(
    tmp_path: Path, value: float, model_class: type[Line], changes: dict[str, Any]
) -> None:
    data, watcher = Poisoned(value), Watcher()
    # Logged at step 10, saved at each: what is bad shows when it is saved.
    config = options(log_every=10, save_every=1, ema_decay=0.5, keep_checkpoints=20, **changes)
    torch.manual_seed(3)
    model = model_class(0.2)
    names = ", ".join(data.sample_id(row) for row in StepSampler(230, 4, seed=0, num_steps=12).rows(BAD_STEP - 1))
    with pytest.raises(NonFiniteError, match=f"not finite at step {BAD_STEP}, whose batch was {names};"):
        train(model, data, config, output_dir=tmp_path, callbacks=[watcher])
    assert [path.name for path in checkpoints_in(tmp_path)] == [f"checkpoint-{step}" for step in range(1, BAD_STEP)]
    for left, right in zip(weights(model), watcher.seen[BAD_STEP - 2], strict=True):
        assert torch.equal(left, right)
    # The last healthy checkpoint goes on, to the same batch.
    torch.manual_seed(3)
    with pytest.raises(NonFiniteError, match=f"at step {BAD_STEP}"):
        train(model_class(0.2), data, config, output_dir=tmp_path, resume=True)


def test_it_is_found_at_the_next_log_and_the_steps_until_then_change_nothing(tmp_path: Path) -> None:
    class Count(Callback):
        steps = 0

        def on_step_end(self, state: TrainingState) -> None:
            Count.steps = state.step

    model, watcher = make_line(), Watcher()
    with pytest.raises(NonFiniteError, match=f"at step {BAD_STEP}"):
        train(model, Poisoned(float("nan")), options(log_every=9), callbacks=[watcher, Count()])
    assert Count.steps == 9
    for step in watcher.seen[BAD_STEP - 1 :]:
        assert all(map(torch.equal, step, watcher.seen[BAD_STEP - 2]))
    assert all(map(torch.equal, weights(model), watcher.seen[BAD_STEP - 2]))


def test_a_healthy_run_is_not_changed_by_being_watched() -> None:
    """The same steps by torch's own optimiser."""
    config = options(schedule="constant_with_warmup", warmup_steps=0, max_grad_norm=None, weight_decay=0.1)
    trained = train(make_line(0), Points(), config).model
    model = make_line(0)
    groups = [{"params": [model.line.weight], "weight_decay": 0.1}, {"params": [model.line.bias], "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, lr=0.05, fused=True)
    sampler, points = StepSampler(23, 4, seed=0, num_steps=12), Points()
    for step in range(12):
        samples = [points[row] for row in sampler.rows(step)]
        model(*(torch.stack([sample[name] for sample in samples]) for name in "xy")).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(map(torch.equal, weights(model), weights(trained)))
