"""Sequences that arrive piece by piece give the numbers of the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from hilam_hf.models.hnet import HNetModel, SequenceLayout
from tests.models.goldens import load_case
from tests.models.hnet.golden_cases import hnet_cases
from tests.models.hnet.test_golden import OUTPUT, PROBABILITY, assert_within, golden_model
from tests.models.hnet.test_hnet import make_model

MIXED: dict[str, Any] = {
    "arch_layout": ["T1m1", ["m1", ["T2"], "T1"], "M1"],
    "ssm_cfg": {"d_state": 16, "headdim": 32},
    "window_size": [3, 5, -1],
}
LENGTHS = [70, 9, 1, 33]


def whole(model: HNetModel, sequences: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Outputs, boundaries and chunk states of each stage, all packed."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    with torch.no_grad():
        output = model(torch.cat(sequences), cu_seqlens=pad(lengths.cumsum(0), (1, 0)))
    return (
        output.last_hidden_state,
        [stage.boundary_mask for stage in output.stages],
        [stage.chunk_states for stage in output.stages],
    )


def in_pieces(model: HNetModel, sequences: list[Tensor], longest: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The same from pieces of 0 to `longest` rows; sequences end at different times."""
    generator = torch.Generator().manual_seed(longest)
    cache, waiting = model.new_cache(len(sequences)), list(sequences)
    outputs: list[list[Tensor]] = [[] for _ in sequences]
    masks: list[list[list[Tensor]]] = [[[] for _ in sequences] for _ in range(2)]
    chunks: list[list[list[Tensor]]] = [[[] for _ in sequences] for _ in range(2)]
    while any(len(rows) for rows in waiting):
        sizes = torch.randint(0, longest + 1, (len(sequences),), generator=generator).tolist()
        pieces = [rows[:size] for rows, size in zip(waiting, sizes, strict=True)]
        waiting = [rows[size:] for rows, size in zip(waiting, sizes, strict=True)]
        lengths = torch.tensor([len(piece) for piece in pieces])
        if not lengths.any():
            continue
        with torch.no_grad():
            output = model(torch.cat(pieces), cu_seqlens=pad(lengths.cumsum(0), (1, 0)), cache=cache)
        collect(outputs, output.last_hidden_state, lengths)
        for number, stage in enumerate(output.stages):
            collect(masks[number], stage.boundary_mask, stage.cu_seqlens.diff())
            collect(chunks[number], stage.chunk_states, stage.chunk_cu_seqlens.diff())
    return joined(outputs), [joined(stage) for stage in masks], [joined(stage) for stage in chunks]


def collect(store: list[list[Tensor]], rows: Tensor, lengths: Tensor) -> None:
    for kept, new in zip(store, rows.split(lengths.tolist()), strict=True):
        kept.append(new)


def joined(store: list[list[Tensor]]) -> Tensor:
    return torch.cat([torch.cat(rows) for rows in store])


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("longest", [1, 4, 100])
@pytest.mark.parametrize("layers", [{}, MIXED], ids=["attention", "mixed"])
def test_pieces_equal_the_whole(layers: dict[str, Any], longest: int, implementation: str) -> None:
    model = make_model(attn_implementation=implementation, **layers)
    torch.manual_seed(3)
    sequences = [torch.randn(length, 32) for length in LENGTHS]
    expected, actual = whole(model, sequences), in_pieces(model, sequences, longest)
    torch.testing.assert_close(actual[0], expected[0], rtol=0, atol=2e-5)
    for ours, theirs in zip(actual[1], expected[1], strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(actual[2], expected[2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def test_attention_without_a_window_outgrows_its_first_slots() -> None:
    model = make_model(window_size=[-1, -1, -1])
    states = torch.randn(300, 32)
    expected, *_ = whole(model, [states])
    cache = model.new_cache()
    rows = [model.step(row[None], cache).last_hidden_state for row in states[:200]]
    with torch.no_grad():
        rows.append(model(states[None, 200:], cache=cache).last_hidden_state[0])
    torch.testing.assert_close(torch.cat(rows), expected, rtol=0, atol=2e-5)


def test_memory_is_constant_where_there_is_a_window() -> None:
    model = make_model(**{**MIXED, "window_size": [3, 5, 6]})
    cache = model.new_cache(2)
    sizes = []
    for row in torch.randn(80, 2, 32):
        model.step(row, cache)
        sizes.append(sum(tensor.numel() for tensor in tensors_of(cache)))
    assert len(set(sizes[40:])) == 1


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.__dict__.values() if hasattr(value, "__dict__") else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in items for tensor in tensors_of(item)]


@pytest.mark.parametrize("layers", [{}, MIXED], ids=["attention", "mixed"])
def test_a_place_can_be_given_to_another_sequence(layers: dict[str, Any]) -> None:
    model = make_model(**layers)
    first, second, other = torch.randn(3, 25, 32).unbind()
    cache = model.new_cache(2)
    for left, right in zip(first, other, strict=True):
        model.step(torch.stack((left, right)), cache)
    cache.reset([0])
    more = torch.randn(25, 32)
    rows = [model.step(torch.stack(pair), cache).last_hidden_state for pair in zip(second, more, strict=True)]
    expected, *_ = whole(model, [second, torch.cat((other, more))])
    torch.testing.assert_close(torch.stack(rows)[:, 0], expected[:25], rtol=0, atol=2e-5)
    torch.testing.assert_close(torch.stack(rows)[:, 1], expected[50:], rtol=0, atol=2e-5)


@pytest.mark.parametrize("layers", [{}, MIXED], ids=["attention", "mixed"])
def test_a_cache_takes_in_nothing_that_is_not_finite(layers: dict[str, Any]) -> None:
    model = make_model(**layers)
    cache, undisturbed = model.new_cache(2), model.new_cache(2)
    for row in torch.randn(6, 2, 32):
        damaged = row.clone()
        damaged[1, 3] = torch.nan
        with pytest.raises(ValueError, match="the cache took nothing in"):
            model.step(damaged, cache)
        assert torch.equal(model.step(row, cache).last_hidden_state, model.step(row, undisturbed).last_hidden_state)


@pytest.mark.parametrize("layers", [{}, MIXED], ids=["attention", "mixed"])
def test_a_place_is_clean_after_a_sequence_that_was_not_finite(layers: dict[str, Any]) -> None:
    """Values inside may overflow without a fault of the input; the next sequence must not meet them."""
    model = make_model(**layers)
    cache = model.new_cache(1)
    for _ in range(3):
        with torch.no_grad():
            model.forward_packed(torch.full((1, 32), torch.nan), SequenceLayout.dense(1, 1), cache)
    cache.reset([0])
    sequence = torch.randn(12, 32)
    rows = [model.step(row[None], cache).last_hidden_state[0] for row in sequence]
    torch.testing.assert_close(torch.stack(rows), whole(model, [sequence])[0], rtol=0, atol=2e-5)


def test_a_step_needs_one_row_for_each_sequence() -> None:
    model = make_model()
    with pytest.raises(ValueError, match=r"expected \(2, 32\), one row for each"):
        model.step(torch.randn(3, 32), model.new_cache(2))


@pytest.mark.parametrize("name", hnet_cases("backbone"))
def test_golden_step(name: str) -> None:
    case, tensors = load_case(name, "hnet")
    model = golden_model(case, tensors, "sdpa")
    cache = model.new_cache()
    steps = [model.step(row, cache) for row in tensors["in/step/hidden_states"].unbind(1)]
    output = torch.stack([step.last_hidden_state for step in steps], dim=1)
    assert_within(output, tensors["out/step/hidden_states"], OUTPUT, "output")
    for number in range(model.config.num_chunking_stages):
        stages = [step.stages[number] for step in steps]
        active = torch.tensor([len(stage.boundary_prob) > 0 for stage in stages])
        assert torch.equal(active, tensors[f"out/step/stage{number}/active"].bool())
        stored = f"out/step/stage{number}"
        assert torch.equal(torch.cat([s.boundary_mask for s in stages]), tensors[f"{stored}/boundary_mask"].bool())
        prob = torch.cat([stage.boundary_prob for stage in stages])
        assert_within(prob, tensors[f"{stored}/boundary_prob"][:, 1], PROBABILITY, stored)


@pytest.mark.parametrize("name", hnet_cases("backbone"))
def test_golden_sequences_step_together(name: str) -> None:
    """Steps of a batch give the packed values, which the published code does not reach."""
    case, tensors = load_case(name, "hnet")
    model = golden_model(case, tensors, "sdpa")
    sequences = list(tensors["in/packed/hidden_states"].split(tensors["in/packed/cu_seqlens"].diff().tolist()))
    rows = []
    for sequence in sequences:
        cache = model.new_cache(3)
        steps = [model.step(row.expand(3, -1), cache).last_hidden_state for row in sequence]
        rows.append(torch.stack(steps))
    for copy in torch.cat(rows).unbind(1):
        assert_within(copy, tensors["out/packed/hidden_states"], OUTPUT, name)
