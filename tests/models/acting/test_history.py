"""The observations that a policy keeps."""

from __future__ import annotations

import torch

from hilam_hf.models.acting.history import TokenHistory


def test_history_keeps_the_last_steps_of_each_row():
    history = TokenHistory(2)
    for step in range(4):
        if step == 3:
            history.reset([1])
        tokens = history.append(torch.tensor([10.0 + step, 20.0 + step]).view(2, 1, 1, 1), [0, 1])
    # Filled up at its end, whatever the other row holds.
    assert tokens.flatten(1).tolist() == [[12.0, 13.0], [23.0, 0.0]]
    assert history.last_step(tokens.flatten(1), [0, 1]).tolist() == [13.0, 23.0]


def test_history_takes_rows_alone_and_rows_that_come_twice():
    history = TokenHistory(3)
    history.append(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1), [4, 7])
    tokens = history.append(torch.tensor([3.0, 3.0]).view(2, 1, 1, 1), [7, 7])
    assert tokens.flatten(1).tolist() == [[2.0, 3.0, 0.0]] * 2
    assert history.last_step(tokens.flatten(1), [7, 7]).tolist() == [3.0, 3.0]
    assert history.append(torch.tensor([5.0]).view(1, 1, 1, 1), [4]).flatten().tolist() == [1.0, 5.0, 0.0]
