"""Execution of chunks: temporal aggregation and open loop, row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hilam_hf.models.acting.execution import OpenLoop, TemporalAggregator


def brute_force_aggregation(chunks: list[np.ndarray], starts: int, decay: float) -> np.ndarray:
    """Weighted mean of what the chunks of steps `starts`..now say about now."""
    now, size = len(chunks) - 1, len(chunks[0])
    predictions = [chunks[s][now - s] for s in range(max(starts, now - size + 1), now + 1)]
    weights = np.exp(-decay * np.arange(len(predictions)))
    return (weights[:, None] * np.array(predictions)).sum(0) / weights.sum()


@pytest.mark.parametrize("decay", [0.01, 1.0, 0.0])
def test_temporal_aggregation_with_rows_that_restart(decay: float):
    generator = np.random.default_rng(0)
    chunks = generator.normal(size=(12, 3, 4, 2))
    chunks[3, 1, 0] = 0.0  # an exact zero is a prediction like any other
    aggregator = TemporalAggregator(4, decay)
    starts = [0, 0, 0]
    for step in range(12):
        if step in (5, 6):
            row = {5: 1, 6: 2}[step]
            aggregator.reset([row])
            starts[row] = step
        action = aggregator.update(torch.from_numpy(chunks[step]))
        for row in range(3):
            expected = brute_force_aggregation(list(chunks[: step + 1, row]), starts[row], decay)
            np.testing.assert_allclose(action[row].numpy(), expected, atol=1e-12)


def test_temporal_aggregation_leaves_out_invalid_predictions():
    aggregator = TemporalAggregator(2, decay=0.5)
    aggregator.update(torch.tensor([[[1.0], [2.0]]]))
    action = aggregator.update(torch.tensor([[[7.0], [8.0]]]), torch.tensor([[False, True]]))
    torch.testing.assert_close(action, torch.tensor([[2.0]]))
    aggregator.reset()
    with pytest.raises(ValueError, match="no valid prediction"):
        aggregator.update(torch.ones(1, 2, 1), torch.zeros(1, 2, dtype=torch.bool))


@pytest.mark.parametrize("executor", [TemporalAggregator(4), OpenLoop(4, 2)])
def test_chunk_execution_refuses_bad_chunks_and_rows(executor: TemporalAggregator | OpenLoop):
    with pytest.raises(ValueError, match=r"shape \(B, 4, A\)"):
        executor.update(torch.rand(2, 3, 1))
    executor.update(torch.rand(2, 4, 1))
    executor.update(torch.rand(2, 4, 1))
    with pytest.raises(ValueError, match=r"rows must be in 0\.\.1"):
        executor.reset([2])
    with pytest.raises(ValueError, match="from 2 rows to 3"):
        executor.update(torch.rand(3, 4, 1))
    executor.reset()
    assert executor.update(torch.rand(3, 4, 1)).shape == (3, 1)


def test_open_loop_executes_a_part_of_each_chunk():
    executor = OpenLoop(3, 2)
    first, second = torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[[4.0], [5.0], [6.0]]])
    assert executor.needs_chunk
    assert executor.update(first).item() == 1
    assert not executor.needs_chunk
    assert executor.update(None).item() == 2
    with pytest.raises(ValueError, match="pass a new one"):
        executor.update(None)
    assert executor.update(second).item() == 4


def test_open_loop_row_restarts_alone():
    executor = OpenLoop(3)
    executor.update(torch.arange(6.0).view(2, 3, 1))
    executor.reset([1])
    assert executor.needs_chunk
    action = executor.update(torch.full((2, 3, 1), 9.0))
    assert action.flatten().tolist() == [1.0, 9.0]
