"""Mamba2 layers against the recurrence itself, transformers' reference, the published numbers, and in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

from hilam_hf.models.hnet import HNetConfig, SequenceLayout
from hilam_hf.models.hnet.configuration_hnet import mamba2_settings
from hilam_hf.models.hnet.mamba2.layer import HNetMamba2, Mamba2State, init_mamba2_
from hilam_hf.models.hnet.mamba2.scan import scan_packed
from tests.models.goldens import golden_cases, load_case

SIZES = {"d_state": 8, "d_conv": 4, "expand": 2, "headdim": 16}
LENGTHS = [5, 130, 1, 70, 200]  # within a chunk of rows, over its end, over several


def make_config(width: int = 32, **sizes: int) -> HNetConfig:
    return HNetConfig(
        arch_layout=["m1"],
        d_model=[width],
        d_intermediate=[0],
        num_heads=[1],
        rotary_emb_dim=[0],
        window_size=[-1],
        ssm_cfg={**SIZES, **sizes},
    )


def make_layer(width: int = 32, dtype: torch.dtype = torch.float64, **sizes: int) -> HNetMamba2:
    """A layer with time steps long enough for decays from almost 1 to almost 0 to occur."""
    torch.manual_seed(0)
    layer = HNetMamba2(make_config(width, **sizes), 0)
    init_mamba2_(layer)
    with torch.no_grad():
        layer.dt_bias.add_(torch.linspace(0, 4, len(layer.dt_bias)))
        layer.D.add_(0.3 * torch.randn_like(layer.D))
        layer.norm.weight.add_(0.3 * torch.randn_like(layer.norm.weight))
    return layer.to(dtype)


def layout_of(lengths: list[int]) -> SequenceLayout:
    return SequenceLayout.from_lengths(torch.tensor(lengths))


def static_layout(lengths: list[int], num_rows: int, max_length: int) -> SequenceLayout:
    """A layout with rows of no sequence behind the last one."""
    return SequenceLayout(F.pad(torch.tensor(lengths).cumsum(0), (1, 0)), num_rows, max_length)


def recurrence(layer: HNetMamba2, rows: Tensor) -> Tensor:
    """One sequence (L, D), row by row."""
    sizes = layer.settings
    gate, inputs, dt = layer.in_proj(rows).split((sizes.d_inner, sizes.conv_channels, sizes.num_heads), -1)
    taps, history = layer.conv1d.weight[:, 0], F.pad(inputs, (0, 0, sizes.d_conv - 1, 0))
    state, outputs = rows.new_zeros(sizes.num_heads, sizes.headdim, sizes.d_state), []
    for t in range(len(rows)):
        convolved = F.silu(torch.einsum("kc,ck->c", history[t : t + sizes.d_conv], taps) + layer.conv1d.bias)
        x, b, c = convolved.split((sizes.d_inner, sizes.d_state, sizes.d_state))
        x, step = x.view(sizes.num_heads, sizes.headdim), F.softplus(dt[t] + layer.dt_bias)
        decay = torch.exp(-torch.exp(layer.A_log) * step)
        state = decay[:, None, None] * state + step[:, None, None] * x[:, :, None] * b
        y = (state @ c + layer.D[:, None] * x).flatten() * F.silu(gate[t])
        outputs.append(y / torch.sqrt(y.square().mean() + 1e-5) * layer.norm.weight)
    return layer.out_proj(torch.stack(outputs))


def each_alone(layer: HNetMamba2, rows: Tensor, lengths: list[int]) -> Tensor:
    return torch.cat([recurrence(layer, part) for part in rows.split(lengths) if len(part)])


def gradients(layer: HNetMamba2, output: Tensor, rows: Tensor, weight: Tensor) -> dict[str, Tensor]:
    named = dict(layer.named_parameters(), rows=rows)
    return dict(zip(named, torch.autograd.grad((output * weight).sum(), list(named.values())), strict=True))


@pytest.mark.parametrize("sizes", [{}, {"d_conv": 1}, {"chunk_size": 7}, {"expand": 3, "headdim": 48}])
def test_outputs_and_gradients_are_those_of_the_recurrence(sizes: dict[str, int]) -> None:
    layer, lengths = make_layer(**sizes), [3, 40, 0, 1, 75]
    rows = torch.randn(sum(lengths), 32, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(rows)
    actual, expected = layer(rows, layout_of(lengths)), each_alone(layer, rows, lengths)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    expected_gradients = gradients(layer, expected, rows, weight)
    for name, gradient in gradients(layer, actual, rows, weight).items():
        assert expected_gradients[name].abs().max() > 0, name
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-9, atol=1e-11, msg=name)


def test_the_scan_over_many_chunks_is_exact() -> None:
    """Chunks of 2 rows, so that several blocks of chunks are scanned, with sequences that end anywhere."""
    lengths = [150, 1, 2, 77, 40]
    ids = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    x, decay, b, c = torch.randn(270, 2, 3), -torch.rand(270, 2), torch.randn(270, 5), torch.randn(270, 5)
    x, decay, b, c = (rows.double() for rows in (x, decay, b, c))
    state, expected = x.new_zeros(2, 3, 5), []
    for t in range(270):
        carried = torch.exp(decay[t])[:, None, None] * state if t and ids[t] == ids[t - 1] else 0
        state = carried + x[t][:, :, None] * b[t]
        expected.append(state @ c[t])
    for chunk in (1, 2, 64, 270):
        actual = scan_packed(x, decay, b, c, ids, chunk=chunk)
        torch.testing.assert_close(actual, torch.stack(expected), rtol=0, atol=1e-12)


def test_the_scan_agrees_with_transformers() -> None:
    batch, length, heads, head_width, width = 2, 100, 3, 16, 8
    x = torch.randn(batch, length, heads, head_width)
    dt, a = torch.rand(batch, length, heads), -torch.rand(heads)
    b, c = torch.randn(batch, length, width), torch.randn(batch, length, width)
    expected = mamba2_chunk_scan(x, dt, a, b[:, :, None], c[:, :, None], chunk_size=32)
    rows = (tensor.flatten(0, 1) for tensor in (x * dt[..., None], a * dt, b, c))
    actual = scan_packed(*rows, torch.arange(batch).repeat_interleave(length), chunk=64)
    torch.testing.assert_close(actual.view_as(expected), expected, rtol=1e-4, atol=2e-5)


def only_mamba2(layout: Any) -> bool:
    """Whether a published layout's first encoder consists of Mamba2 layers without MLPs."""
    return len(layout) == 3 and re.fullmatch(r"m\d+", layout[0]) is not None


@pytest.mark.parametrize("name", golden_cases(lambda case: only_mamba2(case["config"].get("arch_layout", ())), "hnet"))
def test_published_layers_give_the_published_rows(name: str) -> None:
    """The Mamba2 layers of a golden case's first encoder, summed over the residual stream."""
    case, tensors = load_case(name, "hnet")
    config = HNetConfig.from_published(case["config"])
    mask = tensors["in/masked/mask"]
    layout, residual = layout_of(mask.sum(1).tolist()), tensors["in/masked/hidden_states"][mask]
    for number in range(len(config.stages[0].stacks[0])):
        prefix = f"weights/encoder.layers.{number}."
        weights = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        norm = weights.pop("norm1.weight")
        layer = HNetMamba2(config, 0)
        layer.load_state_dict({key.removeprefix("mixer."): value for key, value in weights.items()})
        residual = residual + layer(F.rms_norm(residual, norm.shape, norm, 1e-5), layout)
    final = tensors["weights/encoder.rmsnorm.weight"]
    actual = F.rms_norm(residual, final.shape, final, 1e-5)
    torch.testing.assert_close(actual, tensors["out/masked/stage0/encoder"][mask], rtol=0, atol=1.5e-5)


def test_packed_sequences_do_not_touch_each_other() -> None:
    layer, layout = make_layer(dtype=torch.float32), layout_of(LENGTHS)
    rows = torch.randn(sum(LENGTHS), 32)
    alone = [layer(part, layout_of([len(part)])) for part in rows.split(LENGTHS)]
    torch.testing.assert_close(layer(rows, layout), torch.cat(alone), rtol=0, atol=2e-6)


def test_a_row_changes_only_later_rows_of_its_sequence() -> None:
    layer, layout = make_layer(), layout_of(LENGTHS)
    rows = torch.randn(sum(LENGTHS), 32, dtype=torch.float64)
    changed = rows.clone()
    changed[50] += 1
    difference = (layer(rows, layout) - layer(changed, layout)).abs().amax(1)
    assert torch.equal(difference.nonzero().flatten(), torch.arange(50, 135))


@pytest.mark.parametrize("num_rows", [450, 512])
def test_rows_of_no_sequence_are_finite_and_touch_nothing(num_rows: int) -> None:
    layer = make_layer()
    rows = torch.randn(num_rows, 32, dtype=torch.float64, requires_grad=True)
    layout = static_layout(LENGTHS, num_rows, max_length=256)
    output = layer(rows, layout)
    assert output.isfinite().all()
    expected = layer(rows[: sum(LENGTHS)], layout_of(LENGTHS))
    torch.testing.assert_close(output[: sum(LENGTHS)], expected, rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(output[: sum(LENGTHS)].square().sum(), rows)
    assert gradient[sum(LENGTHS) :].abs().max() == 0
    assert gradient.isfinite().all()


def pieces_of(total: list[int], *, longest: int, static: bool) -> Iterator[tuple[list[int], SequenceLayout]]:
    """Random numbers of rows of every sequence, 0 included, until all are given."""
    left = torch.tensor(total)
    while left.any():
        taken = torch.minimum(torch.randint(0, longest + 1, left.shape), left)
        if not taken.any():
            continue
        left -= taken
        lengths = taken.tolist()
        room = len(total) * longest
        yield lengths, static_layout(lengths, room, longest) if static else layout_of(lengths)


@pytest.mark.parametrize("static", [False, True], ids=["exact", "static"])
@pytest.mark.parametrize("longest", [1, 2, 9, 150])
def test_pieces_give_the_rows_of_the_whole(longest: int, static: bool) -> None:
    total = [5, 31, 0, 1, 70] if longest < 9 else LENGTHS
    layer = make_layer()
    rows = torch.randn(sum(total), 32, dtype=torch.float64)
    expected = [recurrence(layer, part) if len(part) else part for part in rows.split(total)]
    queues = [list(part) for part in rows.split(total)]
    outputs: list[list[Tensor]] = [[] for _ in total]
    state = layer.new_state(len(total))
    with torch.no_grad():
        for lengths, layout in pieces_of(total, longest=longest, static=static):
            piece = [queue.pop(0) for queue, count in zip(queues, lengths, strict=True) for _ in range(count)]
            fill = torch.randn(layout.num_rows - len(piece), 32, dtype=torch.float64)
            output = layer(torch.cat((torch.stack(piece), fill)), layout, state)
            for number, part in enumerate(output[: len(piece)].split(lengths)):
                outputs[number].extend(part)
    for number, parts in enumerate(outputs):
        actual = torch.stack(parts) if parts else rows[:0]
        torch.testing.assert_close(actual, expected[number], rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 3])
def test_one_row_of_every_sequence_at_a_time(batch: int) -> None:
    layer = make_layer(dtype=torch.float32)
    rows = torch.randn(batch, 20, 32)
    state, layout = layer.new_state(batch), SequenceLayout.dense(batch, 1)
    steps = torch.stack([layer(rows[:, t], layout, state) for t in range(20)], 1)
    whole = layer(rows.flatten(0, 1), SequenceLayout.dense(batch, 20))
    torch.testing.assert_close(steps.flatten(0, 1), whole, rtol=0, atol=2e-6)


def test_a_sequence_without_rows_keeps_its_state() -> None:
    layer = make_layer(dtype=torch.float32)
    for lengths in ([1, 0, 1], [4, 0, 9]):
        state = Mamba2State(torch.randn(3, 80, 3), torch.randn(3, 4, 16, 8))
        before = Mamba2State(state.conv.clone(), state.ssm.clone())
        layer(torch.randn(sum(lengths), 32), layout_of(lengths), state)
        assert torch.equal(state.conv[1], before.conv[1]) and torch.equal(state.ssm[1], before.ssm[1])
        assert not torch.equal(state.conv[0], before.conv[0]) and not torch.equal(state.ssm[2], before.ssm[2])


def test_no_rows_at_all() -> None:
    layer = make_layer(dtype=torch.float32)
    state = layer.new_state(2)
    assert layer(torch.zeros(0, 32), layout_of([0, 0]), state).shape == (0, 32)
    assert not state.ssm.any()


@torch.no_grad()
def test_compiles_without_graph_breaks() -> None:
    layer, layout = make_layer(dtype=torch.float32), static_layout([40, 1, 70], 120, max_length=80)
    rows, state, expected = torch.randn(120, 32), layer.new_state(3), layer.new_state(3)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(rows, layout, state), layer(rows, layout, expected))
    torch.testing.assert_close(state.ssm, expected.ssm)


def test_compiles_with_gradients() -> None:
    layer, layout = make_layer(dtype=torch.float32), static_layout([40, 1, 70], 120, max_length=80)
    rows, weight = torch.randn(120, 32, requires_grad=True), torch.randn(120, 32)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    actual = gradients(layer, compiled(rows, layout), rows, weight)
    for name, gradient in gradients(layer, layer(rows, layout), rows, weight).items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes_are_finite_and_near(dtype: torch.dtype) -> None:
    layer = make_layer(dtype=torch.float32)
    rows = torch.randn(sum(LENGTHS), 32)
    expected = layer(rows, layout_of(LENGTHS))
    actual = layer.to(dtype)(rows.to(dtype), layout_of(LENGTHS))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.float(), expected, rtol=0, atol=0.02 * expected.abs().max().item())
    actual.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_autocast_leaves_the_recurrence_in_float32() -> None:
    layer, layout = make_layer(dtype=torch.float32), layout_of(LENGTHS)
    rows = torch.randn(sum(LENGTHS), 32)
    state = layer.new_state(len(LENGTHS))
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(rows, layout, state)
        layer(rows[: len(LENGTHS)], SequenceLayout.dense(len(LENGTHS), 1), state)
    expected = layer(rows, layout)
    torch.testing.assert_close(output.float(), expected, rtol=0, atol=0.02 * expected.abs().max().item())
    assert state.ssm.dtype == state.conv.dtype == torch.float32


@pytest.mark.parametrize("shift", [0.0, 100.0, -100.0], ids=["usual", "forgets", "remembers"])
def test_long_sequences_are_finite(shift: float) -> None:
    layer = make_layer(16, dtype=torch.float32)
    with torch.no_grad():
        layer.dt_bias.add_(shift)
    rows = torch.randn(20_000, 16, requires_grad=True)
    output = layer(rows, layout_of([19_000, 1000]))
    output.square().mean().backward()
    assert output.isfinite().all()
    assert rows.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_memory_is_linear_in_the_number_of_rows() -> None:
    layer = make_layer(16, dtype=torch.float32)

    def saved(length: int) -> int:
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = layer(torch.randn(length, 16), layout_of([length]))
        assert output.requires_grad
        return sum(sizes.values())

    assert saved(32_768) < 4.2 * saved(8192)


def test_fresh_layers_have_the_published_ranges() -> None:
    layer = HNetMamba2(make_config(512), 0)
    init_mamba2_(layer)
    decay, step = layer.A_log.exp(), F.softplus(layer.dt_bias)
    assert 1 <= decay.min() < 3 and 13 < decay.max() <= 16 + 1e-4
    assert 0.001 - 1e-6 <= step.min() < 0.003 and 0.05 < step.max() <= 0.1 + 1e-6
    # Uniform in the logarithm, so that half of the steps are below the geometric mean.
    assert 0.3 < (step < 0.01).float().mean() < 0.7
    assert (layer.D == 1).all()
    for parameter in (layer.conv1d.weight, layer.conv1d.bias):
        assert parameter.abs().max() <= 0.5
        assert parameter.std().item() == pytest.approx(12**-0.5, abs=0.02)


def test_published_sizes() -> None:
    sizes = mamba2_settings({"d_conv": 4, "expand": 2, "d_state": 128, "chunk_size": 256}, 1024)
    assert (sizes.d_inner, sizes.num_heads, sizes.headdim, sizes.conv_channels) == (2048, 32, 64, 2304)
    assert sizes == mamba2_settings({}, 1024)


@pytest.mark.parametrize(
    ("ssm_cfg", "message"),
    [
        ({"d_stat": 16}, r"unknown keys \['d_stat'\].*d_state"),
        ({"d_conv": 0}, "d_conv = 0, expected a positive integer"),
        ({"d_state": "16"}, "d_state = '16', expected a positive integer"),
        ({"expand": 1.5}, "expand = 1.5"),
        ({"chunk_size": True}, "chunk_size = True"),
        ({"ngroups": 2}, "ngroups = 2, expected 1"),
        ({"headdim": 48}, "headdim = 48 for the inner width 64"),
    ],
)
def test_bad_settings_say_what_to_do(ssm_cfg: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mamba2_settings(ssm_cfg, 32)
