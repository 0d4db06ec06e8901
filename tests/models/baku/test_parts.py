"""The flat BAKU policy, and its trunk, on a batch in parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models.baku.test_baku import model_inputs
from tests.models.baku.tiny import tiny_config, tiny_model, tiny_policy
from tests.models.parts import EVEN, THIRDS, UNEQUAL, Recorder, assert_parts_make_the_whole, doubled, rows

every_cut = pytest.mark.parametrize("cuts", [EVEN, THIRDS, UNEQUAL], ids=["halves", "thirds", "unequal"])


def batch_of_six(masked: bool) -> dict[str, Any]:
    """Two steps a sample, chunks of 4 actions of length 3; 1 to 4 of a chunk are real."""
    batch = doubled(model_inputs(tiny_config(), batch=6))
    batch["actions"] = torch.rand(6, 2, 4, 3).double() * torch.arange(1.0, 7)[:, None, None, None]
    if masked:
        real = torch.tensor([[1, 1], [4, 3], [2, 2], [4, 4], [1, 2], [3, 1]])
        batch["action_mask"] = torch.arange(4) < real[..., None]
        batch["actions"] = batch["actions"].masked_fill(~batch["action_mask"][..., None], torch.nan)
    return batch


@every_cut
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("make", [tiny_policy, tiny_model])
def test_parts_have_the_gradient_of_their_batch(make: Any, masked: bool, cuts: tuple[int, ...]) -> None:
    model, batch = make().double(), batch_of_six(masked)
    differs = masked or cuts == UNEQUAL
    assert_parts_make_the_whole(model, lambda first, last: rows(batch, first, last), cuts, differs=differs)


def test_counts_by_hand() -> None:
    for masked, vectors in ((True, 28), (False, 6 * 2 * 4)):
        recorder = Recorder()
        tiny_policy().count_parts(recorder, **batch_of_six(masked))
        assert recorder.counts == {"actions": vectors * 3}


def test_predictions_alone_count_nothing() -> None:
    tiny_policy().count_parts(lambda name, _: pytest.fail(name), **model_inputs(tiny_config()))
