"""The samples of a step: a function of seed and step, shared out evenly."""

import pytest

from hilam_hf.data.samples.keys import SampleKey
from hilam_hf.training.sampler import StepSampler


def sampler(count: int = 7, size: int = 3, **changes: object) -> StepSampler:
    return StepSampler(count, size, **{"seed": 5, "num_steps": 14} | changes)  # type: ignore[arg-type]


def test_every_epoch_has_each_sample_once_and_a_step_depends_on_seed_and_number_alone() -> None:
    batches = list(sampler())
    flat = [row for batch in batches for row in batch]
    assert all(sorted(flat[start : start + 7]) == list(range(7)) for start in range(0, 42, 7))
    assert flat[:7] != flat[7:14]
    assert list(sampler(first_step=4)) == batches[4:]
    assert list(sampler(seed=6)) != batches
    assert len(sampler()) == 14 and len(sampler(first_step=4)) == 10
    assert [sampler().rows(step) for step in range(14)] == batches


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 4), (2, 1), (2, 2), (4, 1), (3, 2)])
def test_the_parts_of_a_step_are_its_samples_in_order(processes: int, accumulation: int) -> None:
    size = 12
    shares = [
        list(sampler(size=size, process=process, num_processes=processes, accumulation=accumulation))
        for process in range(processes)
    ]
    for step in range(14):
        # Part j is computed by process j modulo P, as its turn j // P.
        parts = [
            shares[part % processes][step * accumulation + part // processes]
            for part in range(processes * accumulation)
        ]
        assert [row for part in parts for row in part] == sampler(size=size).rows(step)


def test_draws_have_a_seed_for_each_place_of_a_sample() -> None:
    keys = [key for batch in sampler(with_seeds=True) for key in batch]
    assert all(isinstance(key, SampleKey) for key in keys)
    assert len({key.seed for key in keys}) == 42
    assert [key.row for key in keys] == [row for batch in sampler() for row in batch]
    halves = [list(sampler(size=4, with_seeds=True, process=each, num_processes=2)) for each in range(2)]
    whole = list(sampler(size=4, with_seeds=True))
    assert [a + b for a, b in zip(*halves, strict=True)] == whole


@pytest.mark.parametrize(
    ("size", "processes", "accumulation", "choose"), [(10, 4, 1, "8 or 12"), (3, 2, 4, "8"), (7, 1, 2, "6 or 8")]
)
def test_a_batch_that_cannot_be_shared_evenly_names_the_nearest_that_can(
    size: int, processes: int, accumulation: int, choose: str
) -> None:
    told = f"global_batch_size={size} cannot be shared evenly by {processes} processes with {accumulation} .* {choose}$"
    with pytest.raises(ValueError, match=told):
        sampler(size=size, num_processes=processes, accumulation=accumulation)


def test_no_samples_are_an_error() -> None:
    with pytest.raises(ValueError, match="data set is empty"):
        sampler(0)
