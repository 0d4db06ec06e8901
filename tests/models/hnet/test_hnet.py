"""H-Net's pieces against closed forms and brute force, and the whole under other layouts of the same data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from hilam_hf.models.hnet import HNetConfig, HNetModel, RoutingModule, SequenceLayout, chunk, dechunk, ratio_loss
from hilam_hf.models.hnet.dynamic_chunking import BoundaryCounts
from hilam_hf.models.hnet.layers import HNetMLP
from hilam_hf.models.hnet.layout import LayerSpec, parse_layout, parse_stack
from tests.models.mixins import ModelTesterMixin

TWO_STAGES: dict[str, Any] = {
    "arch_layout": ["T1t1", ["T1", ["T2"], "t1"], "T1"],
    "d_model": [32, 32, 48],
    "d_intermediate": [64, 40, 64],
    "num_heads": [2, 2, 3],
    "rotary_emb_dim": [8, 16, 0],
    "window_size": [3, -1, -1],
}


def make_config(**changes: Any) -> HNetConfig:
    return HNetConfig(**{**TWO_STAGES, **changes})


def make_model(seed: int = 0, **changes: Any) -> HNetModel:
    """A model in which every term matters: what starts at zero or identity is made random."""
    torch.manual_seed(seed)
    model = HNetModel(make_config(initializer_range=0.2, **changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "routing_module" in name or "residual_proj" in name or "pad_dimension" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


class TestHNetModel(ModelTesterMixin):
    model_class = HNetModel

    def make_config(self) -> HNetConfig:
        return make_config(initializer_range=0.2)

    def make_inputs(self) -> dict[str, Any]:
        mask = torch.arange(24) < torch.tensor([24, 11])[:, None]
        return {"hidden_states": torch.randn(2, 24, 32), "attention_mask": mask}


def test_layout_strings() -> None:
    assert parse_stack("T1m2") == (LayerSpec("t", True), LayerSpec("m", False), LayerSpec("m", False))
    stages = parse_layout(["m4", ["T1m4", ["T26"], "m4T1"], "m4"])
    assert [len(stage.layers) for stage in stages] == [8, 10, 26]
    assert [stage.is_innermost for stage in stages] == [False, False, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch_layout": ["T1", ["T1", ["T2"], "T1"], "X1"]}, "letter-count pairs"),
        ({"arch_layout": ["T1", ["T1", ["T0"], "T1"], "T1"]}, "count of 0"),
        ({"arch_layout": ["T1", ["T1", ["T2"], "T1"]]}, r"expected \[encoder, inner level, decoder\]"),
        ({"d_model": [32, 32]}, "got 2 entries.*expected 3"),
        ({"d_model": [32, 48, 32]}, "never shrink inwards"),
        ({"d_intermediate": [64, 40, 0]}, "positive MLP width"),
        ({"num_heads": [2, 5, 3]}, r"divisor of d_model\[1\] = 32"),
        ({"rotary_emb_dim": [8, 18, 0]}, "even number from 0 to the head width 16"),
        ({"rotary_emb_dim": [7, 8, 0]}, "even number"),
        ({"window_size": [-2, -1, -1]}, "expected -1"),
        ({"chunk_capacity": [0.5]}, r"expected 2 numbers in \(0, 1\]"),
        ({"chunk_capacity": [0.5, 1.5]}, r"expected 2 numbers in \(0, 1\]"),
    ],
)
def test_bad_configurations_say_what_to_do(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StrictDataclassError, match=message):
        make_config(**changes)


def test_wrong_types_are_refused() -> None:
    with pytest.raises(StrictDataclassError, match="'d_model' expected a list"):
        make_config(d_model="wide")


def test_published_layouts_build() -> None:
    config = make_config(
        arch_layout=["m4", ["T1m4", ["T26"], "m4T1"], "m4"], d_model=[128, 128, 192], num_heads=[4, 4, 4]
    )
    assert config.num_chunking_stages == 2
    with torch.device("meta"):
        model = HNetModel(config)
    mixers = [type(layer.mixer).__name__ for layer in model.main_network.encoder.layers]
    assert mixers == ["HNetAttention"] + ["HNetMamba2"] * 4
    assert len(model.main_network.main_network.main_network.layers) == 26


def test_one_level_needs_no_chunking() -> None:
    config = HNetConfig(
        arch_layout=["T2"], d_model=[16], d_intermediate=[32], num_heads=[2], rotary_emb_dim=[8], window_size=[-1]
    )
    output = HNetModel(config)(torch.randn(1, 5, 16))
    assert output.stages == ()
    assert output.last_hidden_state.shape == (1, 5, 16)


def test_bad_inputs_say_what_to_do() -> None:
    model = make_model()
    states = torch.randn(2, 6, 32)
    with pytest.raises(ValueError, match=r"expected \(B, L, D\) and D = 32"):
        model(torch.randn(2, 6, 31))
    with pytest.raises(ValueError, match=r"expected \(T, D\) with cu_seqlens"):
        model(states, cu_seqlens=torch.tensor([0, 6]))
    with pytest.raises(ValueError, match=r"got shape \(2, 5\), expected \(2, 6\)"):
        model(states, attention_mask=torch.ones(2, 5))
    with pytest.raises(ValueError, match="padding on the right only"):
        model(states, attention_mask=torch.tensor([[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]))
    with pytest.raises(ValueError, match="no valid position"):
        model(states, attention_mask=torch.zeros(2, 6))
    with pytest.raises(ValueError, match="expected 0 to 12"):
        model(states.flatten(0, 1), cu_seqlens=torch.tensor([0, 5, 11]))
    with pytest.raises(ValueError, match="expected one of the two"):
        model(states.flatten(0, 1), torch.ones(2, 6), torch.tensor([0, 6, 12]))


def test_sequence_layout() -> None:
    layout = SequenceLayout.from_mask(torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]))
    assert layout.cu_seqlens.tolist() == [0, 3, 3, 4]
    assert (layout.num_rows, layout.max_length, layout.batch_size) == (4, 3, 3)
    assert layout.sequence_ids.tolist() == [0, 0, 0, 2]
    assert layout.positions.tolist() == [0, 1, 2, 0]
    rows = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert layout.pad(rows, length=4).tolist() == [[1, 2, 3, 0], [0, 0, 0, 0], [4, 0, 0, 0]]
    assert torch.equal(layout.pack(layout.pad(rows, length=4)), rows)
    index, inner = layout.select(torch.tensor([True, False, True, True]))
    assert index.tolist() == [0, 2, 3]
    assert inner.cu_seqlens.tolist() == [0, 2, 2, 3]


def test_routing_by_hand() -> None:
    """Opposite neighbours give p = 1, equal ones 0, orthogonal ones 0.5, which is a tie and no boundary."""
    module = RoutingModule(2)
    with torch.no_grad():
        module.q_proj_layer.weight.copy_(torch.eye(2))
        module.k_proj_layer.weight.copy_(torch.eye(2))
    rows = torch.tensor([[1.0, 0.0], [-3.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, 5.0]])
    output = module(rows, SequenceLayout.from_cu_seqlens(torch.tensor([0, 4, 5]), 5))
    assert output.boundary_prob.tolist() == [1, 1, 0, 0.5, 1]
    assert output.boundary_mask.tolist() == [True, True, False, False, True]
    assert output.selected_prob.tolist() == [1, 1, 1, 0.5, 1]


def test_dechunk_by_hand() -> None:
    """Two sequences; the first chunk enters with 0.9999, and rows take the latest chunk's value."""
    layout = SequenceLayout.from_cu_seqlens(torch.tensor([0, 4, 6]), 6)
    boundaries = torch.tensor([True, False, True, False, True, False])
    prob = torch.tensor([1.0, 0.2, 0.75, 0.1, 1.0, 0.3], dtype=torch.float64)
    states = torch.tensor([[4.0], [8.0], [2.0]], dtype=torch.float64)
    first, third = 0.9999 * 4, 0.9999 * 2
    second = 0.75 * 8 + 0.25 * first
    expected = torch.tensor([first, first, second, second, third, third], dtype=torch.float64)
    chunks = chunk(torch.zeros(6, 1, dtype=torch.float64), boundaries, layout)
    torch.testing.assert_close(dechunk(states, prob, chunks, layout)[:, 0], expected, rtol=0, atol=1e-12)


def test_dechunk_gradients_against_finite_differences() -> None:
    layout = SequenceLayout.from_cu_seqlens(torch.tensor([0, 5, 8]), 8)
    boundaries = torch.tensor([True, True, False, True, False, True, True, True])
    generator = torch.Generator().manual_seed(0)
    prob = (0.1 + 0.8 * torch.rand(8, generator=generator, dtype=torch.float64)).requires_grad_()
    states = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    chunks = chunk(torch.zeros(8, 3, dtype=torch.float64), boundaries, layout)
    assert torch.autograd.gradcheck(lambda x, p: dechunk(x, p, chunks, layout), (states, prob))


def test_chunk_and_dechunk_are_inverse_when_every_row_is_certain() -> None:
    layout = SequenceLayout.dense(2, 5)
    rows, everywhere = torch.randn(10, 3), torch.ones(10, dtype=torch.bool)
    chunks = chunk(rows, everywhere, layout)
    restored = dechunk(chunks.hidden_states, torch.ones(10), chunks, layout)
    torch.testing.assert_close(restored, rows, rtol=0, atol=1e-3)


@pytest.mark.parametrize("ratio", [1.5, 4.0])
def test_ratio_loss_brute_force(ratio: float) -> None:
    generator = torch.Generator().manual_seed(0)
    prob = torch.rand(3, 9, generator=generator, dtype=torch.float64)
    mask = torch.arange(9) < torch.tensor([9, 4, 6])[:, None]
    boundaries = (prob > 0.5) & mask
    valid = [(b, p) for b, p, m in zip(boundaries.flatten(), prob.flatten(), mask.flatten(), strict=True) if m]
    f, g = sum(float(b) for b, _ in valid) / 19, sum(float(p) for _, p in valid) / 19
    expected = ratio / (ratio - 1) * ((ratio - 1) * f * g + (1 - f) * (1 - g))
    assert ratio_loss(boundaries, prob, ratio, mask=mask).item() == pytest.approx(expected, abs=1e-12)
    packed = ratio_loss(boundaries[mask], prob[mask], ratio)
    assert packed.item() == pytest.approx(expected, abs=1e-12)
    garbage = torch.where(mask, prob, torch.nan)
    assert ratio_loss(boundaries, garbage, ratio, mask=mask).item() == pytest.approx(expected, abs=1e-12)


def test_ratio_loss_is_one_at_the_target_and_refuses_ratios_of_one() -> None:
    prob = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert ratio_loss(prob > 0.5, prob, 4.0).item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="expected more than 1"):
        ratio_loss(prob > 0.5, prob, 1.0)


def test_ratio_losses_of_parts_have_the_mean_of_their_batch() -> None:
    """Parts (1, 0, 0) and (1): F = 1/2 in the whole batch, 1/3 and 1 in the parts."""
    prob = torch.tensor([0.9, 0.3, 0.1, 0.7], dtype=torch.float64, requires_grad=True)
    counts = BoundaryCounts(torch.tensor(2.0), torch.tensor(1.0))
    parts = [ratio_loss(part > 0.5, part, 4.0, counts=counts) for part in (prob[:3], prob[3:])]
    # 4/3 * (3 F G + (1 - F)(1 - G)) = 4/3 * (1/2 + G), with G = 1.3 / 2 and 0.7 / 2 in the parts and 0.5 in the whole.
    assert [part.item() for part in parts] == pytest.approx([4 / 3 * 1.15, 4 / 3 * 0.85])
    mean = torch.stack(parts).mean()
    assert mean.item() == pytest.approx(4 / 3)
    assert ratio_loss(prob > 0.5, prob, 4.0).item() == pytest.approx(4 / 3)
    (gradient,) = torch.autograd.grad(mean, prob)
    assert gradient.tolist() == pytest.approx([1 / 3] * 4)


def test_mlp_width_is_rounded_up_to_a_multiple_of_128() -> None:
    assert HNetMLP(make_config(d_intermediate=[130, 130, 130]), stage=0).fc1.weight.shape == (512, 32)


def test_published_initialisation() -> None:
    torch.manual_seed(0)
    model = HNetModel(make_config())
    assert torch.equal(model.routing_module.q_proj_layer.weight, torch.eye(32))
    assert not model.residual_proj.weight.any()
    assert not model.main_network.main_network.pad_dimension.any()
    assert model.encoder.layers[0].mixer.Wqkv.weight.std().item() == pytest.approx(0.02, rel=0.1)
    # 2 + 1 + 2 sub-layers in stage 0 and 2 + 1 in stage 1.
    written = model.main_network.encoder.layers[0].mlp.fc2.weight.std().item()
    assert written == pytest.approx(0.02 / 8**0.5, rel=0.1)


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
def test_padding_never_leaks(attn_implementation: str) -> None:
    """Each sequence alone, in a padded batch with garbage, and packed: the same outputs and gradients."""
    model = make_model(attn_implementation=attn_implementation)
    lengths = [20, 7, 13, 1]
    sequences = [torch.randn(length, 32) for length in lengths]
    weights = [torch.randn(length, 32) for length in lengths]
    padded = torch.full((4, 22, 32), 1e4)
    padded[1] = torch.nan
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    mask = torch.arange(22) < torch.tensor(lengths)[:, None]

    model.zero_grad()
    alone, stage_alone = [], []
    for sequence, weight in zip(sequences, weights, strict=True):
        output = model(sequence[None])
        (output.last_hidden_state[0] * weight).sum().backward()
        alone.append(output.last_hidden_state[0].detach())
        stage_alone.append(output.stages[0].boundary_mask[0])
    expected_gradients = [parameter.grad.clone() for parameter in model.parameters()]

    model.zero_grad()
    output = model(padded, attention_mask=mask)
    assert not output.last_hidden_state[~mask].any()
    torch.testing.assert_close(output.last_hidden_state[mask], torch.cat(alone), rtol=0, atol=1e-5)
    assert torch.equal(output.stages[0].boundary_mask[mask], torch.cat(stage_alone))
    (output.last_hidden_state[mask] * torch.cat(weights)).sum().backward()
    for (name, parameter), expected in zip(model.named_parameters(), expected_gradients, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")

    packed = model(torch.cat(sequences), cu_seqlens=torch.tensor([0, 20, 27, 40, 41]))
    torch.testing.assert_close(packed.last_hidden_state, torch.cat(alone), rtol=0, atol=1e-5)


def test_it_is_causal() -> None:
    model = make_model()
    first = torch.randn(1, 18, 32)
    second = first.clone()
    second[:, 11:] = torch.randn(1, 7, 32)
    outputs = [model(states).last_hidden_state[:, :11] for states in (first, second)]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)


def test_window_limits_what_a_position_sees() -> None:
    """One attention layer with window 3: position i depends on i-3 ... i and on nothing before."""
    config = HNetConfig(
        arch_layout=["t1"], d_model=[16], d_intermediate=[0], num_heads=[2], rotary_emb_dim=[8], window_size=[3]
    )
    torch.manual_seed(0)
    model = HNetModel(config)
    states = torch.randn(1, 10, 16, requires_grad=True)
    model(states).last_hidden_state[0, 8].sum().backward()
    seen = states.grad[0].abs().sum(-1) > 0
    assert seen.tolist() == [False] * 5 + [True] * 4 + [False]


def test_straight_through_gradient_reaches_the_routing_parameters() -> None:
    """With p held constant in the smoothing, only the straight-through confidence can carry a gradient."""
    model = make_model()
    module = model.routing_module
    kept: dict[str, Tensor] = {}

    def detach_prob(_: Any, __: Any, output: Any) -> Any:
        kept["selected"] = output.selected_prob
        output.selected_prob.retain_grad()
        return output._replace(boundary_prob=output.boundary_prob.detach())

    handle = module.register_forward_hook(detach_prob)
    decoder_inputs: list[Tensor] = []
    model.decoder.register_forward_pre_hook(lambda _, args: (args[0].retain_grad(), decoder_inputs.append(args[0]))[0])
    output = model(torch.randn(2, 12, 32))
    output.last_hidden_state.square().sum().backward()
    handle.remove()
    assert module.q_proj_layer.weight.grad.abs().sum() > 0
    dechunked = output.stages[0].dechunked_states.flatten(0, 1)
    expected = (decoder_inputs[0].grad * dechunked).sum(-1)
    torch.testing.assert_close(kept["selected"].grad, expected, rtol=1e-4, atol=1e-5)


def test_activation_checkpointing_gives_equal_gradients() -> None:
    model, states = make_model().train(), torch.randn(2, 12, 32)
    gradients = []
    for enable in (False, True):
        if enable:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(states).last_hidden_state.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_float32_parts_stay_float32_under_autocast_and_in_half_precision_checkpoints(tmp_path: Any) -> None:
    model, states = make_model(), torch.randn(1, 10, 32)
    expected = model(states)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(states)
        routing = model.routing_module(
            expected.stages[0].encoder_states[0], SequenceLayout.from_cu_seqlens(torch.tensor([0, 10]), 10)
        )
    assert torch.equal(routing.boundary_prob, expected.stages[0].boundary_prob[0])
    assert output.stages[0].encoder_states.dtype == output.stages[0].dechunked_states.dtype == torch.float32
    model.save_pretrained(tmp_path)
    half = HNetModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.encoder.layers[0].mixer.Wqkv.weight.dtype == torch.bfloat16
    assert half.residual_proj.weight.dtype == torch.float32
    assert half(states.bfloat16()).last_hidden_state.dtype == torch.bfloat16


def test_identity_routing_is_learned_routing_before_training() -> None:
    torch.manual_seed(0)
    published = HNetModel(make_config())
    free = HNetModel(make_config(routing="identity"))
    report = free.load_state_dict(published.state_dict(), strict=False)
    assert not report.missing_keys
    assert all("routing_module" in key for key in report.unexpected_keys) and len(report.unexpected_keys) == 4
    states = torch.randn(2, 15, 32)
    expected, output = published(states), free(states)
    assert torch.equal(output.last_hidden_state, expected.last_hidden_state)
    assert torch.equal(output.stages[0].boundary_prob, expected.stages[0].boundary_prob)
    output.last_hidden_state[..., 0].sum().backward()
    assert all(parameter.grad is not None for parameter in free.parameters())
    assert (
        free.to(torch.bfloat16).routing_module(states[0].bfloat16(), SequenceLayout.dense(1, 15)).boundary_prob.dtype
        == torch.float32
    )
