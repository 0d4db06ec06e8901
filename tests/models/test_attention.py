"""The eager attention, the reference of every kernel, against PyTorch's and by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilam_hf.models.attention import eager_attention


class Layer(nn.Module):
    is_causal = True


def states(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[-2]), dtype=torch.float64)


QUERY, KEY, VALUE = states(2, 3, 4, 8), states(2, 3, 5, 8), states(2, 3, 5, 8)
ALLOWED = torch.ones(4, 5, dtype=torch.bool).triu(-1)


def torch_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool = False) -> Tensor:
    mixed = F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=0.3)
    return mixed.transpose(1, 2)


@pytest.mark.parametrize("mask", [None, ALLOWED, torch.linspace(-2, 2, 20, dtype=torch.float64).view(4, 5)])
def test_masks_hide_or_are_added(mask: Tensor | None) -> None:
    mixed, weights = eager_attention(Layer(), QUERY, KEY, VALUE, mask, scaling=0.3, is_causal=False)
    torch.testing.assert_close(mixed, torch_attention(QUERY, KEY, VALUE, mask))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 4, dtype=torch.float64))


@pytest.mark.parametrize(("is_causal", "expected"), [(None, True), (True, True), (False, False)])
def test_without_a_mask_the_layer_or_the_caller_says_whether_it_is_causal(
    is_causal: bool | None, expected: bool
) -> None:
    mixed, _ = eager_attention(Layer(), KEY, KEY, VALUE, None, scaling=0.3, is_causal=is_causal)
    torch.testing.assert_close(mixed, torch_attention(KEY, KEY, VALUE, None, causal=expected))


def test_a_mask_has_the_last_word_in_a_causal_layer() -> None:
    mixed, _ = eager_attention(Layer(), QUERY, KEY, VALUE, ALLOWED, scaling=0.3)
    torch.testing.assert_close(mixed, torch_attention(QUERY, KEY, VALUE, ALLOWED))


def test_scores_of_half_precision_are_scaled_in_float32() -> None:
    query = torch.ones(1, 1, 1, 1, dtype=torch.bfloat16)
    key = torch.tensor([[[[100.0], [101.0]]]], dtype=torch.bfloat16)
    _, weights = eager_attention(Layer(), query, key, key, None, scaling=0.3, is_causal=False)
    # sigmoid(0.3) = 0.57444; in bfloat16 the scores would be 30 and 30.25, and the weight sigmoid(0.25) = 0.5622.
    assert weights.flatten().tolist() == pytest.approx([1 - 0.57444, 0.57444], abs=2e-3)
    assert weights.dtype == torch.bfloat16
