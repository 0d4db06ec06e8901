"""LAPA's latent action quantization against the published code's numbers, weights through the converter.

Every case of kind `lapa_laq` and `lapa_nsvq_refresh`: intermediate tokens, codes exactly, predictions, the training
pass with its noise, gradients, and the codes' usage.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hilam_hf.models.lapa import LapaConfig, LapaModel
from hilam_hf.models.lapa.convert_lapa import model_from_published, rename_published
from hilam_hf.models.lapa.quantization import LatentQuantizer, replacements
from tests.models.goldens import Case, Tensors, case_names, check_golden, load_case, manifest_of, weights_recipe

GRAD_NORM_REL = 1e-5
GRAD_NORM_ABS = 1e-7


class Golden(NamedTuple):
    """A case with its model, frames and (B, N, E) training noise."""

    case: Case
    tensors: Tensors
    model: LapaModel
    frames: Tensor
    next_frames: Tensor
    noise: Tensor

    def check(self, name: str, actual: Tensor) -> None:
        check_golden(self.case, self.tensors, name, actual)

    def check_all(self, results: dict[str, Tensor], *, training: bool) -> None:
        """Every output of the case that belongs to this pass, and no other."""
        listed = [name.removeprefix("outputs/") for name in self.tensors if name.startswith("outputs/")]
        belongs = {name for name in listed if name.startswith(("train_", "usage_")) == training}
        assert belongs <= results.keys()
        for name in belongs:
            self.check(f"outputs/{name}", results[name])


@pytest.fixture(scope="module", params=case_names("lapa_laq"))
def loaded(request: pytest.FixtureRequest) -> Iterator[Golden]:
    case, tensors = load_case(request.param)
    config = case["config"]
    weights = {entry["name"]: filled(entry, case["weight_seed"], tensors) for entry in manifest_of(case)}
    model = model_from_published(weights, image_size=config["image_size"], num_codes=config["code_seq_len"])
    frames, next_frames = (tensors["inputs/video"].float() / 255).unbind(2)
    noise = tensors["inputs/train_noise"].view(len(frames), config["code_seq_len"], -1)
    yield Golden(case, tensors, model, frames, next_frames, noise)


@pytest.fixture
def golden(loaded: Golden) -> Golden:
    loaded.model.eval().zero_grad(set_to_none=True)
    loaded.model.quantizer.codebook_usage.zero_()
    return loaded


def filled(entry: dict[str, Any], seed: int, tensors: Tensors, block: int = 1 << 16) -> Tensor:
    """What the recipe fills a parameter with; its hash in wrapping 32-bit arithmetic and in cache: 20 times as fast."""
    if entry["kind"] != "hash":
        return torch.as_tensor(weights_recipe().fill(entry, seed, tensors))
    values = np.empty(int(np.prod(entry["shape"])), dtype=np.float32)
    start = mixed(np.array([zlib.crc32(entry["name"].encode()) + seed * 0x9E3779B9 & 0xFFFFFFFF], dtype=np.uint32))
    steps = np.arange(block, dtype=np.uint32) * np.uint32(0x9E3779B1)
    for first in range(0, len(values), block):
        part = values[first : first + block]
        numbers = (steps[: len(part)] + np.uint32(first * 0x9E3779B1 & 0xFFFFFFFF)) ^ start
        unit = (mixed(numbers) >> np.uint32(8)) * 2.0**-23 - 1.0
        part[:] = entry["offset"] + entry["scale"] * unit
    return torch.from_numpy(values.reshape(entry["shape"]))


def mixed(numbers: np.ndarray) -> np.ndarray:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        numbers = (numbers ^ (numbers >> np.uint32(shift))) * np.uint32(factor)
    return numbers


def our_parameter(model: LapaModel, published: str) -> nn.Parameter | None:
    """The parameter with a published name; None if it takes no part."""
    names = list(rename_published({published: torch.zeros(0)}))
    return model.get_parameter(names[0]) if names else None


def test_golden_filling_is_the_recipes() -> None:
    """On the case with the fewest parameters."""
    cases = (load_case(name) for name in case_names("lapa_laq"))
    case, tensors = min(cases, key=lambda loaded: sum(np.prod(entry["shape"]) for entry in manifest_of(loaded[0])))
    for entry in manifest_of(case):
        expected = weights_recipe().fill(entry, case["weight_seed"], tensors)
        assert np.array_equal(filled(entry, case["weight_seed"], tensors, block=1000).numpy(), expected)


@torch.no_grad()
def test_golden_inference(golden: Golden) -> None:
    model, frames, next_frames = golden.model, golden.frames, golden.next_frames
    batch, side = len(frames), model.config.grid_size
    features = [model.extract_features(frames), model.extract_features(next_frames)]
    seen: dict[str, Tensor] = {}
    hooks = [
        getattr(model, stack).register_forward_hook(lambda _, __, output, stack=stack: seen.update({stack: output}))
        for stack in ("spatial_encoder", "temporal_encoder")
    ]
    output = model(frames, next_frames)
    for hook in hooks:
        hook.remove()
    tokens = seen["temporal_encoder"].view(batch, side, side, 2, -1).permute(0, 3, 1, 2, 4)
    first, last = (model.quantizer.reduce(tokens[:, index]) for index in range(2))
    delta = last - first
    results = {
        "patch_tokens": torch.stack(features, dim=1),
        "spatial_bias": model.position_bias(),
        "spatial_encoder_tokens": seen["spatial_encoder"],
        "encoder_tokens": tokens,
        "pre_quant_first": first,
        "pre_quant_last": last,
        "delta": delta,
        "distances": (delta.unsqueeze(2) - model.codebook).square().sum(-1),
        "indices": output.codes,
        "action_tokens": output.action_tokens,
        "reconstruction": output.predictions,
    }
    if "outputs/forced_reconstruction" in golden.tensors:
        results["forced_reconstruction"] = model._predict(frames, golden.tensors["inputs/forced_indices"])
    golden.check_all(results, training=False)


def test_golden_training(golden: Golden) -> None:
    model = golden.model.train()
    output = model(golden.frames, golden.next_frames, golden.noise)
    output.loss.backward()
    usage = model.quantizer.codebook_usage.clone()
    with torch.no_grad():
        model(golden.frames, golden.next_frames, golden.noise)
    assert usage.dtype == golden.tensors["outputs/train_usage_counter"].dtype
    golden.check_all(
        {
            "train_action_tokens": output.action_tokens,
            "train_perplexity": output.perplexity,
            "train_usage_counter": usage,
            "train_indices": output.codes,
            "train_reconstruction": output.predictions,
            "train_loss": output.loss,
            "usage_counter_after_second_forward": model.quantizer.codebook_usage,
        },
        training=True,
    )
    gradients = [name for name in golden.tensors if name.startswith("grads/")]
    assert gradients
    for name in gradients:
        golden.check(name, our_parameter(model, name.removeprefix("grads/")).grad)
    for name, norm in (golden.case.get("grad_norms") or {}).items():
        parameter = our_parameter(model, name)
        if parameter is None:
            assert not norm, f"{name} takes part in the published model"
        else:
            expected = pytest.approx(norm, rel=GRAD_NORM_REL, abs=GRAD_NORM_ABS)
            assert parameter.grad.norm().item() == expected, name


@pytest.mark.parametrize("name", case_names("lapa_nsvq_refresh"))
def test_golden_refresh(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, tensors = load_case(name)
    for index, settings in enumerate(case["subcases"]):
        given = {key.removeprefix(f"case{index}/"): value for key, value in tensors.items() if f"case{index}/" in key}
        assert ("permutation" in given) == settings["used_permutation"]
        before, usage = given["codebooks_before"], given["usage_before"]

        def permutation(count: int, given: dict[str, Tensor] = given) -> Tensor:
            assert count == len(given["permutation"])
            return given["permutation"]

        rows = replacements(usage / settings["divisor"] >= settings["threshold"], permutation)
        torch.testing.assert_close(before[rows], given["codebooks_after"], rtol=0, atol=1e-7)

        model = quantizer_of(before, usage, settings["threshold"])
        monkeypatch.setattr(torch, "randperm", lambda count, generator=None, f=permutation: f(count))
        model.refresh(settings["divisor"])
        torch.testing.assert_close(model.codebook.detach(), given["codebooks_after"], rtol=0, atol=1e-7)
        assert torch.equal(model.codebook_usage, given["usage_after"])


def quantizer_of(codebook: Tensor, usage: Tensor, threshold: float) -> LatentQuantizer:
    size, width = codebook.shape
    quantizer = LatentQuantizer(
        LapaConfig.preset("tiny", codebook_size=size, quant_dim=width, refresh_threshold=threshold)
    )
    quantizer.codebook.data.copy_(codebook)
    quantizer.codebook_usage.copy_(usage)
    return quantizer
