"""Validation on held-out samples: the stage's own loss, in evaluation mode, the same samples each time."""

from pathlib import Path

import pytest
import torch

from hilam_hf.data.samples.keys import SampleKey
from hilam_hf.training import TrainingConfig, train
from hilam_hf.training.held_out import HeldOutLoss, check_held_out, evenly_spread
from tests.training.runs import Line, Points, make_line, options
from tests.training.stages import STAGES


class Bare:
    """As much of a run's state as a measure needs."""

    def __init__(self, model: Line):
        self.model, self.device = model, torch.device("cpu")


@pytest.mark.parametrize("batch_size", [1, 4, 7, 23])
@pytest.mark.parametrize("num_samples", [None, 6])
def test_it_is_the_mean_over_the_samples_however_they_are_batched(batch_size: int, num_samples: int | None) -> None:
    model, points = make_line(0).eval(), Points()
    rows = range(23) if num_samples is None else [0, 4, 9, 13, 18, 22]
    errors = [model.line(points[row]["x"]) - points[row]["y"] for row in rows]
    measured = HeldOutLoss(points, batch_size=batch_size, num_samples=num_samples)(Bare(model))  # type: ignore[arg-type]
    assert measured["validation/loss"] == pytest.approx(torch.stack(errors).square().mean().item(), rel=1e-5)
    assert measured["validation/parts/1"] == pytest.approx(torch.stack(errors).abs().mean().item(), rel=1e-5)


def test_samples_that_are_drawn_are_the_same_at_every_validation() -> None:
    class Drawn(Points):
        draws_samples = True
        seen: list[SampleKey] = []  # noqa: RUF012 - of this test

        def __getitem__(self, key: SampleKey) -> dict[str, torch.Tensor]:  # type: ignore[override]
            self.seen.append(key)
            return super().__getitem__(key.row)

    measure = HeldOutLoss(Drawn(5), batch_size=2)
    first, second = measure(Bare(make_line(0).eval())), measure(Bare(make_line(0).eval()))  # type: ignore[arg-type]
    assert first == second and Drawn.seen[:5] == Drawn.seen[5:]
    assert len({key.seed for key in Drawn.seen[:5]}) == 5


def test_nothing_held_out_is_an_error() -> None:
    with pytest.raises(ValueError, match="no held-out samples to validate on"):
        HeldOutLoss(Points(0), batch_size=2)
    with pytest.raises(ValueError, match="validate_every=5, but there is nothing held out"):
        train(make_line(), Points(), options(validate_every=5))


@pytest.mark.parametrize(
    ("changes", "fraction", "told"),
    [
        ({"validate_every": 5}, 0.0, "validate_every=5 needs held-out episodes; give --held-out"),
        ({"validate_every": 5}, 1.0, r"held_out: got 1\.0, expected a fraction in \[0, 1\)"),
        ({"validate_every": 5}, -0.5, "expected a fraction"),
        ({"validate_every": 5}, float("nan"), "expected a fraction"),
    ],
)
def test_contradicting_options_are_told(changes: dict[str, int], fraction: float, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_held_out(TrainingConfig(**changes), fraction)  # type: ignore[arg-type]


def test_the_best_weights_need_validation_and_the_average_one_of_them() -> None:
    with pytest.raises(ValueError, match="final_weights=best needs validation"):
        options(final_weights="best")
    with pytest.raises(ValueError, match="final_weights=average needs an average"):
        options(final_weights="average")


def test_an_even_spread_has_both_ends_and_no_repeats() -> None:
    assert evenly_spread(10, 4) == [0, 3, 6, 9]
    assert evenly_spread(3, 8) == [0, 1, 2]
    assert evenly_spread(1, 8) == [0]
    assert evenly_spread(100, 1) == [0]


@pytest.mark.parametrize("weights", ["last", "average", "best"])
def test_which_weights_a_run_ends_with_is_said(tmp_path: Path, weights: str) -> None:
    config = options(ema_decay=0.9, validate_every=4, final_weights=weights)
    result = train(make_line(0), Points(), config, output_dir=tmp_path, held_out=Points(5))
    assert result.weights == weights
    losses = dict(result.history["validation/loss"])
    assert result.best_loss == min(losses.values())
    if weights == "best":
        assert losses[result.weights_step] == result.best_loss
    # What was validated are the averaged weights.
    measured = HeldOutLoss(Points(5), batch_size=4)(Bare(result.model.eval()))["validation/loss"]  # type: ignore[arg-type]
    expected = losses[result.weights_step]
    assert (measured == pytest.approx(expected, rel=1e-5)) == (weights != "last")


def test_hilam_validates_its_loss_and_its_boundary_rates(tmp_path: Path) -> None:
    result = STAGES["hilam"](tmp_path, max_steps=2, validate_every=1, held_out=[1, 4])
    assert {"validation/loss", "validation/boundary_rates/0", "validation/boundary_rates/1"} <= set(result.history)
    assert [step for step, _ in result.history["validation/loss"]] == [1, 2]
    assert result.model.config.trained_weights["weights"] == "last"
    assert result.model.config.trained_weights["best_validation_loss"] == result.best_loss
