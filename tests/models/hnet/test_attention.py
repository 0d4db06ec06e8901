"""Every way to run attention against the eager reference, and rotary positions against a closed form."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.utils import _apply_to_tensors
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hilam_hf.models.hnet import HNetConfig, SequenceLayout
from hilam_hf.models.hnet.attention import HNetAttention, attention_context, rotate
from hilam_hf.models.hnet.attention_kernels import (
    BandedKernel,
    FlexKernel,
    PaddedKernel,
    SequenceKernel,
    VariableLengthKernel,
    attention_kernel,
)

LENGTHS = [150, 3, 0, 64, 1, 37]


def make_config(implementation: str, window: int) -> HNetConfig:
    return HNetConfig(
        arch_layout=["t1"],
        d_model=[32],
        d_intermediate=[0],
        num_heads=[2],
        rotary_emb_dim=[8],
        window_size=[window],
        attn_implementation=implementation,
    )


def run(config: HNetConfig, layout: SequenceLayout, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's output for given weights and the gradient of the rows."""
    torch.manual_seed(0)
    layer = HNetAttention(config, 0)
    rows = rows.clone().requires_grad_()
    output = layer(rows, attention_context(layout, config, 0))
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (output * weight).sum().backward()
    assert rows.grad is not None
    return output.detach(), rows.grad


@pytest.mark.parametrize(
    ("window", "lengths", "kernel"),
    [
        (-1, LENGTHS, SequenceKernel),
        (-1, [20, 20, 20], PaddedKernel),
        (-1, [20, 18, 20], PaddedKernel),
        (0, LENGTHS, BandedKernel),
        (5, LENGTHS, BandedKernel),
        (16, LENGTHS, BandedKernel),
        (17, LENGTHS, BandedKernel),
        (100, LENGTHS, BandedKernel),
        (149, LENGTHS, SequenceKernel),
    ],
)
def test_sdpa_equals_eager(window: int, lengths: list[int], kernel: type) -> None:
    layout = SequenceLayout.from_lengths(lengths)
    rows = torch.randn(sum(lengths), 32)
    config = make_config("sdpa", window)
    assert isinstance(attention_kernel(layout, config, 0), kernel)
    for actual, expected in zip(
        run(config, layout, rows), run(make_config("eager", window), layout, rows), strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [-1, 9])
def test_flash_attention_gets_packed_rows(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the calling convention of transformers' FlashAttention, one sequence after the other."""
    calls: list[dict[str, Any]] = []

    def variable_length(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        calls.append(options)
        assert mask is None and query.shape[0] == 1
        output = torch.full_like(query, torch.nan)  # what the kernel does not write stays as it was
        bounds, reach = options["cu_seq_lens_q"].tolist(), options["sliding_window"]
        for first, last in pairwise(bounds):
            distance = torch.arange(last - first)[:, None] - torch.arange(last - first)
            seen = (distance >= 0) & (distance < (reach or last + 1))
            scores = query[:, :, first:last] @ key[:, :, first:last].transpose(2, 3) * options["scaling"]
            output[:, :, first:last] = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value[:, :, first:last]
        return output.transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", variable_length)
    config, eager = make_config("eager", window), make_config("eager", window)
    config._attn_implementation = "flash_attention_2"
    rows = torch.randn(sum(LENGTHS), 32)
    exact = SequenceLayout.from_lengths(LENGTHS)
    assert isinstance(attention_kernel(exact, config, 0), VariableLengthKernel)
    expected = run(eager, exact, rows)
    for actual, reference in zip(run(config, exact, rows), expected, strict=True):
        torch.testing.assert_close(actual, reference, rtol=1e-4, atol=1e-5)
    assert calls[0]["max_length_q"] == 150
    assert calls[0]["cu_seq_lens_k"].dtype == torch.int32

    static = SequenceLayout.from_cu_seqlens(exact.cu_seqlens, 300, 150, static=True)
    padded = torch.cat((rows, torch.ones(300 - len(rows), 32)))
    output, _ = run(config, static, padded)
    torch.testing.assert_close(output[: len(rows)], expected[0], rtol=1e-4, atol=1e-5)
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("window", [-1, 9])
def test_flex_attention_equals_eager(window: int) -> None:
    layout = SequenceLayout.from_lengths(LENGTHS)
    rows = torch.randn(sum(LENGTHS), 32)
    config = make_config("eager", window)
    config._attn_implementation = "flex_attention"
    kernel = attention_kernel(layout, config, 0)
    assert isinstance(kernel, FlexKernel)
    torch.manual_seed(0)
    layer = HNetAttention(config, 0).eval()
    with torch.no_grad():
        output = layer(rows, attention_context(layout, config, 0))
    expected, _ = run(make_config("eager", window), layout, rows)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def test_rotation_by_hand() -> None:
    """Position 2 turns the pair (channel 0, channel 2) by 2 and (channel 1, channel 3) by 2 / 100."""
    states = torch.tensor([[[1.0, 1.0, 0.0, 0.0, 5.0]]], dtype=torch.float64)
    angles = torch.tensor([[[2.0, 0.02]]], dtype=torch.float64)
    expected = torch.cat((angles.cos(), angles.sin(), torch.full((1, 1, 1), 5.0)), dim=-1)
    torch.testing.assert_close(rotate(states, angles.cos(), angles.sin(), 4), expected)
    context = attention_context(SequenceLayout.from_lengths([1, 3]), make_config("sdpa", -1), 0)
    frequencies = 10000.0 ** -(torch.arange(4) / 4)
    torch.testing.assert_close(context.cos[:, 0], (torch.tensor([0.0, 0, 1, 2])[:, None] * frequencies).cos())


def test_a_layout_is_copied_as_fsdp_copies_what_layers_are_given() -> None:
    layout = SequenceLayout.from_lengths([3, 0, 2])
    assert layout.positions.tolist() == [0, 1, 2, 0, 1]
    copied = _apply_to_tensors(torch.clone, layout)
    assert copied.cu_seqlens is not layout.cu_seqlens
    assert copied.positions.tolist() == [0, 1, 2, 0, 1] and copied.sequence_ids.tolist() == [0, 0, 0, 2, 2]
