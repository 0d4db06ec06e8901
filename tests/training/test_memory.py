"""Out of memory: as many parts as fit, and which options to change."""

from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from transformers.utils import ModelOutput

from hilam_hf.training import TrainingConfig, train
from tests.training.runs import Line, Points, make_line, options, weights


class Greedy(Line):
    """Holds so many samples and no more, and counts its calls in a buffer."""

    def __init__(self, capacity: int):
        super().__init__(dropout=0.2)
        self.capacity = capacity
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor) -> ModelOutput:
        self.calls += 1
        if len(x) > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has 1 GiB")
        return super().forward(x, y)


def make_greedy(capacity: int) -> Greedy:
    torch.manual_seed(3)
    return Greedy(capacity)


@pytest.mark.parametrize(("capacity", "parts"), [(12, 1), (11, 2), (5, 3), (4, 3), (3, 4), (1, 12)])
def test_the_fewest_parts_that_fit_are_worked_out(tmp_path: Path, capacity: int, parts: int) -> None:
    config = options(global_batch_size=12, gradient_accumulation_steps=None, save_every=12)
    model = train(make_greedy(capacity), Points(), config, output_dir=tmp_path).model
    given = options(global_batch_size=12, gradient_accumulation_steps=parts)
    expected = train(make_greedy(capacity), Points(), given).model
    # Trying left nothing behind, buffers and random numbers included.
    assert all(map(torch.equal, weights(model), weights(expected)))
    assert model.calls == expected.calls == 12 * parts
    assert f'"accumulation": {parts}' in (tmp_path / "checkpoint-12" / "training_state.json").read_text()


def test_not_even_one_sample_fits() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="not even one sample fits into memory; set"):
        train(make_greedy(0), Points(), options(gradient_accumulation_steps=None))


@pytest.mark.parametrize(
    ("changes", "said", "not_said"),
    [
        ({}, ["gradient_accumulation_steps=null", "gradient_checkpointing=true", "mixed_precision=bf16"], []),
        ({"mixed_precision": "bf16"}, ["gradient_checkpointing=true"], ["mixed_precision"]),
    ],
)
def test_a_step_that_runs_out_says_what_to_change_and_what_it_needed(
    changes: dict[str, str], said: list[str], not_said: list[str]
) -> None:
    AcceleratorState._reset_state()
    try:
        with pytest.raises(torch.OutOfMemoryError) as error:
            train(make_greedy(2), Points(), options(**changes))
    finally:
        AcceleratorState._reset_state()
    told = str(error.value)
    assert told.startswith("step 1 ran out of memory on cpu with 4 samples at a time (20.00 MiB more were asked for)")
    assert all(words in told for words in [*said, "global_batch_size below 4"]), told
    assert not any(words in told for words in not_said), told


def test_a_run_resumes_with_the_parts_that_were_worked_out(tmp_path: Path) -> None:
    config = {"global_batch_size": 12, "save_every": 4, "gradient_accumulation_steps": None}
    whole = train(make_greedy(5), Points(), options(**config), output_dir=tmp_path / "whole").model
    for folder in (tmp_path / "whole").glob("checkpoint-12"):
        folder.rename(tmp_path / "gone")
    # This machine holds more, but the run goes on as it was.
    resumed = train(make_greedy(12), Points(), options(**config), output_dir=tmp_path / "whole", resume=True).model
    assert all(map(torch.equal, weights(whole), weights(resumed)))


def test_a_sharded_model_needs_the_number_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilam_hf.training.loop.is_sharded_model", lambda model: True)
    with pytest.raises(ValueError, match="gradient_accumulation_steps has to be given where the model is sharded"):
        train(make_line(), Points(), TrainingConfig(gradient_accumulation_steps=None))
