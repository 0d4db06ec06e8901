"""Fixed room for chunks: nothing waits for the device, graphs compile, and the numbers stay the same."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from hilam_hf.models.hnet import HNetModel, SequenceLayout, chunk, ratio_loss
from hilam_hf.models.hnet.modeling_hnet import HNetOutput
from tests.models.hnet.test_hnet import make_model

LENGTHS = torch.tensor([40, 23, 1, 9])
MIXED = {
    "arch_layout": ["T1m1", ["T1", ["T2"], "m1"], "T1"],
    "ssm_cfg": {"d_state": 16, "headdim": 32},
}


class Batch:
    """A padded batch with NaN at padding, the same rows packed, and weights for a loss."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.mask = torch.arange(40) < LENGTHS[:, None]
        values = torch.randn(4, 40, 32, generator=generator)
        self.padded = torch.where(self.mask[..., None], values, torch.nan)
        self.weight = torch.randn(4, 40, 32, generator=generator)
        self.cu_seqlens = torch.nn.functional.pad(LENGTHS.cumsum(0), (1, 0))


@pytest.fixture
def batch() -> Batch:
    return Batch()


def gradients(model: HNetModel, run: Any, batch: Batch) -> tuple[HNetOutput, dict[str, Tensor]]:
    """The output of a padded run, and the parameters' gradients of a loss with every term."""
    model.zero_grad()
    output = run(batch.padded, attention_mask=batch.mask)
    loss = (output.last_hidden_state * batch.weight)[batch.mask].sum()
    for stage in output.stages:
        loss = loss + 5 * ratio_loss(stage.boundary_mask, stage.boundary_prob, 3.0, mask=stage.mask)
    loss.backward()
    return output, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_same(actual: tuple[HNetOutput, dict[str, Tensor]], expected: tuple[HNetOutput, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(actual[0].last_hidden_state, expected[0].last_hidden_state, rtol=0, atol=1e-5)
    for ours, theirs in zip(actual[0].stages, expected[0].stages, strict=True):
        length = theirs.boundary_mask.shape[1]
        assert torch.equal(ours.boundary_mask[:, :length], theirs.boundary_mask)
        assert not ours.boundary_mask[:, length:].any()
        assert torch.equal(ours.chunk_cu_seqlens, theirs.chunk_cu_seqlens)
    for name, gradient in actual[1].items():
        scale = expected[1][name].abs().max()
        assert (gradient - expected[1][name]).abs().max() <= 1e-4 * scale, name


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("capacity", [[1.0, 1.0], [0.75, 0.9]])
@pytest.mark.parametrize("layers", [{}, MIXED], ids=["attention", "mamba2"])
def test_enough_room_changes_nothing(
    layers: dict[str, Any], capacity: list[float], implementation: str, batch: Batch
) -> None:
    model = make_model(attn_implementation=implementation, **layers)
    expected = gradients(model, model, batch)
    assert all(stage.num_dropped is None for stage in expected[0].stages)
    model.config.chunk_capacity = capacity
    actual = gradients(model, model, batch)
    assert [stage.num_dropped.item() for stage in actual[0].stages] == [0, 0]
    assert_same(actual, expected)


def test_packed_rows_with_room_to_spare(batch: Batch) -> None:
    """Rows beyond the last sequence belong to none and change nothing."""
    model = make_model()
    rows = batch.padded[batch.mask]
    expected = model(rows, cu_seqlens=batch.cu_seqlens).last_hidden_state
    model.config.chunk_capacity = [1.0, 1.0]
    longer = torch.cat((rows, torch.ones(20, 32)))
    output = model(longer, cu_seqlens=batch.cu_seqlens, max_seqlen=64)
    torch.testing.assert_close(output.last_hidden_state[: len(rows)], expected, rtol=0, atol=1e-5)
    assert torch.isfinite(output.last_hidden_state).all()


def test_boundaries_without_room_join_the_chunk_before() -> None:
    """Room for floor(0.5 * 6) + 1 = 4 and floor(0.5 * 3) + 1 = 2 chunks."""
    layout = SequenceLayout.from_lengths([6, 3])
    boundaries = torch.tensor([1, 1, 0, 1, 1, 1, 1, 1, 1], dtype=torch.bool)
    chunks = chunk(torch.arange(9.0)[:, None], boundaries, layout, capacity=0.5)
    assert chunks.boundary_mask.tolist() == [True, True, False, True, True, False, True, True, False]
    assert chunks.num_dropped.item() == 2
    assert chunks.layout.cu_seqlens.tolist() == [0, 4, 6]
    assert (chunks.layout.num_rows, chunks.layout.max_length) == (math.floor(0.5 * 9) + 2, 4)
    assert chunks.hidden_states[:6, 0].tolist() == [0, 1, 3, 4, 6, 7]


def test_a_model_without_room_counts_what_it_drops(batch: Batch) -> None:
    model = make_model(chunk_capacity=[0.1, 0.1])
    output, grads = gradients(model, model, batch)
    room = LENGTHS * math.ceil(0.1 * 1024) // 1024 + 1
    first = output.stages[0]
    assert (first.boundary_mask.sum(1) <= room).all()
    decided = (first.boundary_prob > 0.5) & batch.mask
    assert first.num_dropped.item() == (decided.sum() - first.boundary_mask.sum()).item() > 0
    assert all(torch.isfinite(gradient).all() for gradient in grads.values())


@pytest.mark.parametrize("layers", [{}, MIXED], ids=["attention", "mamba2"])
def test_nothing_waits_for_the_device(layers: dict[str, Any], batch: Batch) -> None:
    """Fake tensors have shapes and no values: whatever needs a value raises."""
    model = make_model(chunk_capacity=[0.8, 0.8], **layers)
    with FakeTensorMode(allow_non_fake_inputs=True):
        output = model(batch.padded, attention_mask=batch.mask)
        sum(ratio_loss(s.boundary_mask, s.boundary_prob, 3.0, mask=s.mask) for s in output.stages).backward()
    model.config.chunk_capacity = None
    with pytest.raises(DataDependentOutputException), FakeTensorMode(allow_non_fake_inputs=True):
        model(batch.padded, attention_mask=batch.mask)


@pytest.mark.parametrize(
    ("backend", "layers", "capacity"),
    [
        ("aot_eager", {"arch_layout": ["t1", ["m1", ["T1"], "t1"], "t1"], "window_size": [3, -1, -1]}, [0.8, 0.9]),
        ("aot_eager", {"arch_layout": ["t1", ["m1", ["T1"], "t1"], "t1"], "window_size": [3, -1, -1]}, None),
        ("inductor", {"arch_layout": ["t1", ["t1", ["t1"], "t1"], "t1"]}, [0.8, 0.9]),
    ],
)
def test_a_compiled_graph_equals_eager(
    backend: str, layers: dict[str, Any], capacity: list[float] | None, batch: Batch
) -> None:
    model = make_model(**{**MIXED, **layers})
    expected = gradients(model, model, batch)
    model.config.chunk_capacity = capacity
    torch._dynamo.reset()
    assert_same(gradients(model, torch.compile(model, fullgraph=True, backend=backend), batch), expected)


def test_bad_layouts_are_found_without_waiting(batch: Batch) -> None:
    model = make_model(chunk_capacity=[1.0, 1.0])
    rows = batch.padded[batch.mask]
    with pytest.raises(ValueError, match="max_seqlen: got none"):
        model(rows, cu_seqlens=batch.cu_seqlens)
    with pytest.raises(RuntimeError, match="no sequence longer than max_seqlen"):
        model(rows, cu_seqlens=batch.cu_seqlens, max_seqlen=39)
    with pytest.raises(RuntimeError, match="padding on the right only"):
        model(batch.padded, attention_mask=batch.mask.flip(1))
