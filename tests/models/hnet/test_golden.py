"""Published numbers of dynamic chunking and H-Net, within the tolerances of the reference set's README.

Every case that index.json lists in the folder `hnet` of HILAM_GOLDENS is run, so other sets of the same form can be.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hilam_hf.models.hnet import (
    Chunks,
    HNetConfig,
    HNetModel,
    RoutingModule,
    SequenceLayout,
    chunk,
    dechunk,
    ratio_loss,
)
from tests.models.goldens import Case, Tensors, load_case
from tests.models.hnet.golden_cases import hnet_cases

PROBABILITY = 1e-6
OUTPUT = 1.5e-5
GRADIENT = 3e-5
GRADIENT_NORM = 1e-4
MODES = ("masked", "packed")


def layout_of(tensors: Tensors, mode: str, packed_key: str = "in/packed/cu_seqlens") -> SequenceLayout:
    if mode == "masked":
        return SequenceLayout.from_mask(tensors["in/masked/mask"])
    cu_seqlens = tensors[packed_key]
    return SequenceLayout.from_cu_seqlens(cu_seqlens, int(cu_seqlens[-1]))


def rows(tensors: Tensors, key: str, mode: str, layout: SequenceLayout) -> Tensor:
    """The valid rows of a stored tensor, packed."""
    value = tensors[key.format(mode=mode)]
    return layout.pack(value) if mode == "masked" else value


def assert_within(actual: Tensor, expected: Tensor, tolerance: float, what: str = "") -> None:
    assert actual.shape == expected.shape, (what, actual.shape, expected.shape)
    worst = (actual - expected).abs().max().item() if actual.numel() else 0.0
    assert worst <= tolerance, f"{what}: off by {worst:.2e}, more than {tolerance:.2e}"


def assert_gradient(actual: Tensor | None, expected: Tensor, what: str) -> None:
    assert actual is not None, f"{what}: no gradient"
    assert_within(actual, expected, GRADIENT * expected.abs().max().item(), what)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", hnet_cases("routing"))
def test_golden_routing(name: str, mode: str) -> None:
    case, tensors = load_case(name, "hnet")
    layout = layout_of(tensors, mode)
    module = RoutingModule(case["config"]["d_model"])
    module.load_state_dict({k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")})
    hidden = tensors[f"in/{mode}/hidden_states"].requires_grad_()
    output = module(layout.pack(hidden) if mode == "masked" else hidden, layout)

    assert_within(output.boundary_prob, rows(tensors, "out/{mode}/boundary_prob", mode, layout)[:, 1], PROBABILITY)
    assert_within(output.selected_prob, rows(tensors, "out/{mode}/selected_probs", mode, layout)[:, 0], PROBABILITY)
    assert torch.equal(output.boundary_mask, rows(tensors, "out/{mode}/boundary_mask", mode, layout))

    masked_layout = layout_of(tensors, "masked")
    weights = [masked_layout.pack(tensors[f"in/masked/grad_weight_{kind}"]) for kind in ("prob", "selected")]
    (weights[0] * output.boundary_prob + weights[1] * output.selected_prob).sum().backward()
    assert_gradient(hidden.grad, tensors[f"out/{mode}/grad/hidden_states"], "hidden_states")
    for key, parameter in module.named_parameters():
        assert_gradient(parameter.grad, tensors[f"out/{mode}/grad/weights/{key}"], key)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", hnet_cases("chunk"))
def test_golden_chunk(name: str, mode: str) -> None:
    _, tensors = load_case(name, "hnet")
    layout = layout_of(tensors, mode)
    result = chunk(
        rows(tensors, "in/{mode}/hidden_states", mode, layout),
        rows(tensors, "in/{mode}/boundary_mask", mode, layout),
        layout,
    )
    if mode == "packed":
        assert torch.equal(result.hidden_states, tensors["out/packed/hidden_states"])
        assert torch.equal(result.layout.cu_seqlens, tensors["out/packed/cu_seqlens"])
        assert result.layout.max_length == tensors["out/packed/max_seqlen"]
    else:
        mask = tensors["out/masked/mask"]
        assert torch.equal(result.layout.mask, mask)
        assert torch.equal(result.layout.pad(result.hidden_states)[mask], tensors["out/masked/hidden_states"][mask])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", hnet_cases("dechunk"))
def test_golden_dechunk(name: str, mode: str) -> None:
    _, tensors = load_case(name, "hnet")
    layout = layout_of(tensors, mode, "in/packed/cu_seqlens_tokens")
    boundary_mask = rows(tensors, "in/{mode}/boundary_mask", mode, layout)
    prob = tensors[f"in/{mode}/boundary_prob"].requires_grad_()
    hidden = tensors[f"in/{mode}/hidden_states"].requires_grad_()
    index, inner = layout.select(boundary_mask)
    if mode == "masked":
        assert torch.equal(inner.mask, tensors["in/masked/chunk_mask"])
    else:
        assert torch.equal(inner.cu_seqlens, tensors["in/packed/cu_seqlens_chunks"])
    chunk_rows, prob_rows = (inner.pack(hidden), layout.pack(prob)) if mode == "masked" else (hidden, prob)
    output = dechunk(chunk_rows, prob_rows[:, 1], Chunks(chunk_rows, inner, index, boundary_mask), layout)

    assert_within(output, rows(tensors, "out/{mode}/hidden_states", mode, layout), OUTPUT)
    (output * layout_of(tensors, "masked").pack(tensors["in/masked/grad_weight"])).sum().backward()
    assert_gradient(hidden.grad, tensors[f"out/{mode}/grad/hidden_states"], "hidden_states")
    assert_gradient(prob.grad, tensors[f"out/{mode}/grad/boundary_prob_ema_float64"], "boundary_prob")


@pytest.mark.parametrize("name", hnet_cases("ratio loss"))
def test_golden_load_balancing(name: str) -> None:
    case, tensors = load_case(name, "hnet")
    ratios = tensors["in/N"].tolist()
    stages = {key.removeprefix("in/").rsplit("/", 1)[0] for key in tensors if key.endswith("/boundary_prob")}
    assert stages
    for stage in sorted(stages):
        prob = tensors[f"in/{stage}/boundary_prob"].requires_grad_()
        mask = tensors[f"in/{stage}/boundary_mask"]
        losses = torch.stack([ratio_loss(mask, prob[..., 1], ratio) for ratio in ratios])
        assert_within(losses, tensors[f"out/{stage}/loss"], PROBABILITY, stage)
        ratio_loss(mask, prob[..., 1], case["config"]["grad_N"]).backward()
        assert_gradient(prob.grad, tensors[f"out/{stage}/grad_boundary_prob"], stage)


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", hnet_cases("backbone"))
def test_golden_hnet(name: str, mode: str, attn_implementation: str) -> None:
    case, tensors = load_case(name, "hnet")
    model = golden_model(case, tensors, attn_implementation)
    hidden = tensors[f"in/{mode}/hidden_states"].requires_grad_()
    captured = capture_packed_outputs(model)
    layout = (
        {"attention_mask": tensors["in/masked/mask"]}
        if mode == "masked"
        else {"cu_seqlens": tensors["in/packed/cu_seqlens"]}
    )
    output = model(hidden, **layout)

    valid = tensors["in/masked/mask"] if mode == "masked" else slice(None)
    assert_within(output.last_hidden_state[valid], tensors[f"out/{mode}/hidden_states"][valid], OUTPUT, "output")
    compare_stages(output.stages, tensors, mode)
    if mode == "masked":
        compare_captured(captured, tensors, output.stages)

    (output.last_hidden_state * tensors[f"in/{mode}/grad_weight"]).sum().backward()
    assert_gradient(hidden.grad, tensors[f"out/{mode}/grad/hidden_states"], "hidden_states")
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.norm().item() == pytest.approx(case["grad_l2"][key], rel=GRADIENT_NORM), key
        if (stored := tensors.get(f"out/masked/grad/weights/{key}")) is not None:
            assert_gradient(parameter.grad, stored, key)


@pytest.mark.parametrize("name", hnet_cases("backbone"))
def test_golden_hnet_ratio_loss(name: str) -> None:
    case, tensors = load_case(name, "hnet")
    model = golden_model(case, tensors, "sdpa")
    for mode in MODES:
        hidden = tensors[f"in/{mode}/hidden_states"].clone().requires_grad_()
        layout = (
            {"attention_mask": tensors["in/masked/mask"]}
            if mode == "masked"
            else {"cu_seqlens": tensors["in/packed/cu_seqlens"]}
        )
        stages = model(hidden, **layout).stages
        # With the mask, a padded batch gives the values of the packed one.
        for number, stage in enumerate(stages):
            losses = [
                ratio_loss(stage.boundary_mask, stage.boundary_prob, ratio, mask=stage.mask)
                for ratio in tensors["in/load_balancing/N"].tolist()
            ]
            expected = tensors[f"out/load_balancing/packed/stage{number}"]
            assert_within(torch.stack(losses), expected, PROBABILITY, f"{mode} stage {number}")
        model.zero_grad()
        n = case["load_balancing_grad_N"]
        torch.stack([ratio_loss(s.boundary_mask, s.boundary_prob, n, mask=s.mask) for s in stages]).sum().backward()
        gradient = hidden.grad[tensors["in/masked/mask"]] if mode == "masked" else hidden.grad
        assert_gradient(gradient, tensors["out/load_balancing/packed/grad/hidden_states"], mode)
        for key, parameter in model.named_parameters():
            if (stored := tensors.get(f"out/load_balancing/packed/grad/weights/{key}")) is not None:
                assert_gradient(parameter.grad, stored, key)


def golden_model(case: Case, tensors: Tensors, attn_implementation: str) -> HNetModel:
    config = HNetConfig.from_published(case["config"], attn_implementation=attn_implementation)
    model = HNetModel(config)
    assert model.config._attn_implementation == attn_implementation
    model.load_state_dict({k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")})
    return model


def capture_packed_outputs(model: HNetModel) -> Tensors:
    """Fills, during the next forward, packed outputs that stage records don't hold: decoders, main stack, levels."""
    captured: Tensors = {}

    def keep(key: str) -> Any:
        def hook(module: torch.nn.Module, args: Any, output: Any) -> None:
            captured[key] = output[0] if isinstance(output, tuple) else output

        return hook

    level, stage = model, 0
    while not level.is_innermost:
        level.decoder.register_forward_hook(keep(f"stage{stage}/decoder"))
        level, stage = level.main_network, stage + 1
        level.register_forward_hook(keep(f"stage{stage}/level_output"))
    level.main_network.register_forward_hook(keep(f"stage{stage}/main"))
    return captured


def compare_stages(stages: Any, tensors: Tensors, mode: str) -> None:
    for number, stage in enumerate(stages):
        stored = f"out/{mode}/stage{number}"
        valid = stage.mask if mode == "masked" else slice(None)
        expected_mask = tensors[f"{stored}/boundary_mask"]
        assert torch.equal(stage.boundary_mask, expected_mask), number
        assert_within(stage.boundary_prob[valid], tensors[f"{stored}/boundary_prob"][valid][..., 1], PROBABILITY)
        assert_within(stage.selected_prob[valid], tensors[f"{stored}/selected_probs"][valid][..., 0], PROBABILITY)
        if mode == "packed":
            assert torch.equal(stage.chunk_cu_seqlens, tensors[f"{stored}/chunk/cu_seqlens"])
            assert stage.chunk_cu_seqlens.diff().max() == tensors[f"{stored}/chunk/max_seqlen"]
            continue
        chunk_mask = tensors[f"{stored}/chunk/mask"]
        assert torch.equal(stage.chunk_mask, chunk_mask)
        chunks = tensors[f"{stored}/chunk/hidden_states"]
        assert_within(stage.chunk_states[chunk_mask], chunks[chunk_mask], OUTPUT, f"{stored}/chunk")
        assert_within(stage.encoder_states[valid], tensors[f"{stored}/encoder"][valid], OUTPUT, f"{stored}/encoder")
        assert_within(stage.dechunked_states[valid], tensors[f"{stored}/dechunk"][valid], OUTPUT, f"{stored}/dechunk")


def compare_captured(captured: Tensors, tensors: Tensors, stages: Any) -> None:
    masks = [stage.mask for stage in stages] + [stages[-1].chunk_mask]
    compared = 0
    for number, mask in enumerate(masks):
        for kind in ("decoder", "level_output", "main"):
            if (stored := tensors.get(f"out/masked/stage{number}/{kind}")) is not None:
                assert_within(captured[f"stage{number}/{kind}"], stored[mask], OUTPUT, f"stage{number}/{kind}")
                compared += 1
    assert compared >= 2
