"""The benchmarks' arithmetic: operation counts, batches, given boundaries, timing statistics, and the JSON lines."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.scripts import import_script
from tests.helpers import ROOT

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["hnet"])
def script(request: pytest.FixtureRequest) -> ModuleType:
    return import_script(request.param)


@pytest.fixture(scope="module")
def models(script: ModuleType) -> ModuleType:
    return sys.modules["_hnet_models"]


@pytest.fixture(scope="module")
def measure(script: ModuleType) -> ModuleType:
    return sys.modules["_measure"]


@pytest.fixture(scope="module")
def tiny(models: ModuleType) -> object:
    return models.Setting(width=16, heads=2, encoder=2, main=3, decoder=1, latent_dim=6, mlp=128)


def counted_flops(run: object) -> int:
    """What torch counts, attention kernels as matrix products over the whole square."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_operations_of_plain_layers_are_those_that_torch_counts(models: ModuleType, tiny: object) -> None:
    length, layers = 12, 3
    model = models.Isotropic(tiny, layers)
    counted = counted_flops(lambda: model(torch.zeros(1, length, tiny.latent_dim)))
    # A causal kernel does half of the square: 2 products of 2 D operations at half of the L^2 pairs.
    not_done = layers * 2 * tiny.width * length**2
    assert models.isotropic_flops(tiny, layers, length) == counted - not_done


def test_our_operations_are_those_that_torch_counts(models: ModuleType, tiny: object) -> None:
    length, chunks = 16, 4
    contender = models.ours(tiny, CPU)
    counted = counted_flops(lambda: contender.infer(models.equal_batch(tiny, 1, length, CPU)))
    # As above; query and key of the routing are compared between neighbours, so one row less than L is projected.
    not_done = 2 * tiny.width * (3 * length**2 + 3 * chunks**2) - 2 * 2 * tiny.width**2
    assert models.our_flops(tiny, length) == pytest.approx(counted - not_done, rel=0.01)


def test_layers_of_equal_cost(models: ModuleType) -> None:
    # 8 layers at full rate and 6 at a quarter make 9.5; routing, residual projection: 3 D^2 of a layer's 11.5 D^2.
    setting = models.Setting()
    assert models.equal_flops_layers(setting, 64) == 10
    # Attention's square shrinks more inside than the rest does.
    assert models.equal_flops_layers(setting, 4096) == 9


def test_every_first_part_has_one_boundary_in_n(models: ModuleType) -> None:
    pattern = models.boundary_pattern(5, 103, 4, torch.Generator().manual_seed(3))
    assert pattern.shape == (5, 103)
    assert pattern[:, 0].all()
    counts = pattern.cumsum(1)
    wanted = torch.arange(1, 104) / 4
    assert ((counts - wanted).abs() <= 1).all()
    assert len(pattern.unique(dim=0)) == 5


def test_given_boundaries_keep_the_confidence_of_the_probability(models: ModuleType) -> None:
    prob = torch.tensor([0.9, 0.2, 0.6, 0.3], requires_grad=True)
    forced = models.force(prob, torch.tensor([True, True, False, False]))
    assert forced.tolist() == pytest.approx([0.9, 0.8, 0.4, 0.3])
    forced.sum().backward()
    assert prob.grad.tolist() == [1, -1, -1, 1]


def test_peers_cosine_decides_as_given(models: ModuleType) -> None:
    given = models.GivenCosine(torch.cosine_similarity)
    given.boundaries = torch.tensor([[True, False, True]])
    states = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(0))
    cosine = given(states, -states.roll(1, 1), dim=-1)
    assert torch.equal((1 - cosine) / 2 > 0.5, given.boundaries)
    assert torch.equal(cosine.abs(), torch.cosine_similarity(states, states.roll(1, 1), dim=-1).abs())


@pytest.mark.parametrize("capacity", [None, 0.5])
@pytest.mark.parametrize("lengths", [[20, 20], [20, 7]])
def test_our_model_takes_the_boundaries_of_the_batch(
    models: ModuleType, tiny: object, lengths: list[int], capacity: float | None
) -> None:
    batch = models.ragged_batch(tiny, lengths, CPU)
    contender = models.ours(dataclasses.replace(tiny, chunk_capacity=capacity), CPU)
    assert batch.num_tokens == sum(lengths)
    assert contender.rate(batch) == pytest.approx(batch.boundaries[batch.mask].float().mean().item())
    stage = contender.model(batch.latents, attention_mask=batch.mask).stages[0]
    assert torch.equal(stage.boundary_mask, batch.boundaries & batch.mask)


def test_streams_find_a_boundary_in_n_positions_at_every_stage(models: ModuleType) -> None:
    model = models.streaming_model("tiny", 6, 64, 4)
    stages = model(torch.randn(1, 64, 6, generator=torch.Generator().manual_seed(0))).stages
    outer, inner = (stage.boundary_mask[stage.mask] for stage in stages)
    assert (len(outer), outer.sum()) == (64, 16)
    assert (len(inner), inner.sum()) == (16, 4)


def test_a_training_step_changes_every_weight_that_chunking_uses(models: ModuleType, tiny: object) -> None:
    contender = models.ours(tiny, CPU)
    before = {name: value.detach().clone() for name, value in contender.model.named_parameters()}
    contender.train_step(models.equal_batch(tiny, 2, 16, CPU))
    unchanged = [name for name, value in contender.model.named_parameters() if torch.equal(value, before[name])]
    assert unchanged == []


def test_ragged_lengths_are_the_same_every_time(models: ModuleType) -> None:
    lengths = models.ragged_lengths(4, 8, (16, 512))
    assert lengths == models.ragged_lengths(4, 8, (16, 512))
    assert [len(batch) for batch in lengths] == [8] * 4
    assert all(16 <= length <= 512 for batch in lengths for length in batch)


def test_ragged_lengths_follow_their_quantiles(models: ModuleType) -> None:
    """A quarter each of 10 ... 20, 20 ... 20, 20 ... 60 and 60 ... 100."""
    lengths = sorted(models.ragged_lengths(1, 20000, (10, 20, 20, 60, 100))[0])
    assert [lengths[round(share * 19999)] for share in (0, 0.25, 0.5)] == pytest.approx([10, 20, 20], abs=1)
    assert lengths[round(0.625 * 19999)] == pytest.approx(40, abs=2)
    assert lengths[-1] == pytest.approx(100, abs=1)


def test_median_and_spread(measure: ModuleType) -> None:
    timing = measure.Timing((2.0, 1.0, 1.2))
    assert timing.median == 1.2
    assert timing.spread == pytest.approx(0.5 / 1.2)


def test_tasks_take_turns_and_warm_up(measure: ModuleType) -> None:
    order: list[str] = []
    ticks = iter(range(100))
    tasks = {name: lambda name=name: order.append(name) for name in "ab"}
    timings = measure.interleave(tasks, 2, CPU, warmup=1, clock=lambda: float(next(ticks)))
    assert order == ["a", "b"] * 3
    assert timings == {"a": measure.Timing((1.0, 1.0)), "b": measure.Timing((1.0, 1.0))}


def test_peak_memory_is_that_of_the_task() -> None:
    # In a process of its own, as it is meant: what a test before it has freed would count for nothing.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import _measure, torch;"
        "print(_measure.peak_bytes(lambda: lambda: torch.ones(2**28 // 4), torch.device('cpu')))"
    )
    command = [sys.executable, "-c", code, str(ROOT / "benchmarks")]
    peak = int(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    assert 0.9 * 2**28 < peak < 1.2 * 2**28


def test_a_peak_below_an_earlier_one_is_refused(measure: ModuleType) -> None:
    torch.ones(2**25)
    with pytest.raises(RuntimeError, match="Measure a larger one"):
        measure.peak_bytes(lambda: lambda: None, CPU)


def test_what_the_parent_process_holds_does_not_count(measure: ModuleType) -> None:
    held = torch.ones(2**29 // 4)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import _measure; print(_measure.high_water_bytes())"
    command = [sys.executable, "-c", code, str(ROOT / "benchmarks")]
    found = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    assert int(found) < held.nbytes


def test_json_line_holds_the_fields_of_a_claim(measure: ModuleType) -> None:
    line = measure.Claim("x", 2.0, 1.5, 10.0, 20.0, "ms", 0.2).json_line("some machine")
    assert "\n" not in line
    assert json.loads(line) == {
        "name": "x",
        "ratio": 2.0,
        "aim": 1.5,
        "ours": 10.0,
        "peer": 20.0,
        "unit": "ms",
        "spread": 0.2,
        "unsteady": False,
        "machine": "some machine",
    }


def test_a_spread_larger_than_the_distance_to_the_aim_is_unsteady(measure: ModuleType) -> None:
    # The aim of 1.5 is a third of itself away from 2.
    for spread, unsteady in ((None, False), (0.3, False), (0.4, True), (4.31, True)):
        claim = measure.Claim("x", 2.0, 1.5, 10.0, 20.0, "ms", spread)
        assert claim.unsteady == unsteady == json.loads(claim.json_line("m"))["unsteady"]
    assert (measure.spread_cell(2.0, 1.5, 0.3), measure.spread_cell(0.2, 1.0, 4.31)) == ("±30%", "±431% unsteady")


def test_what_decides_nothing_is_measured_again_a_bounded_number_of_times(measure: ModuleType) -> None:
    def timings(*seconds: float) -> dict[str, object]:
        return {"ours": measure.Timing(seconds), "peer": measure.Timing((2.0, 2.0, 2.0))}

    loud, louder, quiet = timings(1.0, 1.0, 9.0), timings(1.0, 1.0, 30.0), timings(1.0, 1.0, 1.1)
    for runs, kept, number in (
        ([quiet], quiet, 1),
        ([loud, quiet], quiet, 2),
        ([louder, loud, louder, quiet], loud, measure.MEASURED_AT_MOST),
    ):
        left = list(runs)
        found = measure.time_until_steady(lambda left=left: left.pop(0), "ours", "peer", aim=1.5)
        assert found is kept and len(runs) - len(left) == number


def test_table_is_markdown(measure: ModuleType) -> None:
    assert measure.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


def test_the_worst_length_counts(script: ModuleType) -> None:
    claim = script.worst_of("x", [(3.0, 1.0, 0.1), (4.0, 8.0, 0.2), (2.0, 2.0, 0.3)], 1.0)
    assert (claim.ratio, claim.ours, claim.peer, claim.spread) == (0.5, 4.0, 8.0, 0.2)


def test_a_model_with_other_boundaries_is_refused(script: ModuleType, models: ModuleType, tiny: object) -> None:
    batch = models.equal_batch(tiny, 1, 16, CPU)
    run = script.run_of(script.parse([]))
    off = models.Contender("peer", torch.nn.Linear(1, 1), lambda batch: None, lambda batch: 0.5)
    with pytest.raises(RuntimeError, match=r"peer: got 0\.500 boundaries a position, expected 0\.250"):
        script.check_rates(run, [off], batch)


def test_command_line(script: ModuleType) -> None:
    quick, full = (script.run_of(script.parse(arguments)) for arguments in ([], ["--full"]))
    assert set(quick.lengths) < set(full.lengths)
    assert full.lengths == (64, 128, 256, 512, 1024, 2048, 4096)
    asked = script.run_of(script.parse(["--lengths", "32", "8", "--compile", "--dtype", "bfloat16"]))
    assert (asked.lengths, asked.dtype, asked.compile_mode) == ((8, 32), torch.bfloat16, "default")
