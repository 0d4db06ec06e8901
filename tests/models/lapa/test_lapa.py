"""LAPA's latent action quantization: contract, quantisation, codebook refresh, numerics, and bad input."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import PreTrainedModel

from hilam_hf.models.lapa import LapaConfig, LapaModel, is_refresh_step
from hilam_hf.models.lapa.configuration_lapa import ReducerLayer, code_grid, reducer_layers
from hilam_hf.models.lapa.layers import PositionConv
from hilam_hf.models.lapa.quantization import replacements
from hilam_hf.models.latent_actions.auto import AutoForwardDynamicsModel, AutoInverseDynamicsModel
from tests.helpers import ROOT
from tests.models.mixins import ModelTesterMixin

SIZE, CODES, ENTRIES, CODE_DIM = 16, 4, 8, 6
OPTIONS: dict[str, Any] = {
    "image_size": SIZE,
    "patch_size": 2,
    "hidden_size": 16,
    "num_spatial_layers": 2,
    "num_temporal_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 6,
    "num_codes": CODES,
    "codebook_size": ENTRIES,
    "quant_dim": CODE_DIM,
}


def tiny_lapa(**changes: Any) -> LapaModel:
    """A model whose codebook holds vectors such as it quantises, so that codes differ."""
    torch.manual_seed(0)
    lapa = LapaModel(LapaConfig(**OPTIONS | changes)).eval()
    with torch.no_grad():
        vectors = differences_of(lapa, *pairs(2 * lapa.config.codebook_size, seed=3))
        lapa.codebook.copy_(vectors.flatten(0, 1)[:: 2 * lapa.config.num_codes])
    return lapa


def differences_of(lapa: LapaModel, frames: Tensor, next_frames: Tensor) -> Tensor:
    """(B, N, E) vectors before quantisation."""
    features = [lapa.extract_features(frames), lapa.extract_features(next_frames)]
    return lapa._encode(*features, lapa.position_bias())


def pairs(batch: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.rand(2, batch, 3, SIZE, SIZE, generator=generator)
    return first, second


class TestLapaModel(ModelTesterMixin):
    model_class = LapaModel
    auto_class = AutoInverseDynamicsModel

    def make_config(self) -> LapaConfig:
        return LapaConfig(**OPTIONS)

    def make_inputs(self) -> dict[str, Any]:
        frames, next_frames = pairs()
        return {"frames": frames, "next_frames": next_frames}

    def test_gradients_reach_every_parameter(self, model: PreTrainedModel, inputs: dict[str, Any]) -> None:
        model.train()
        model(**inputs).loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            # The last shift before the difference of the two frames is taken cancels out.
            assert bool(parameter.grad.any()) == (name != "quantizer.reducer.2.bias"), name

    def test_the_forward_auto_class_builds_it_too(self) -> None:
        assert type(AutoForwardDynamicsModel.from_config(self.make_config())) is LapaModel


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("batch_size", [2, 100])
def test_encode_video_equals_encoding_every_pair(stride: int, batch_size: int) -> None:
    lapa, frames = tiny_lapa(), torch.rand(9, 3, SIZE, SIZE)
    alone = [lapa.encode(frames[t : t + 1], frames[t + stride : t + stride + 1]) for t in range(9 - stride)]
    assert torch.equal(lapa.encode_video(frames, stride, batch_size), torch.cat(alone))


def test_codes_and_their_vectors() -> None:
    lapa, (frames, next_frames) = tiny_lapa(), pairs(12)
    codes, vectors = lapa.encode(frames, next_frames, return_vectors=True)
    assert codes.shape == (12, CODES) and codes.dtype == torch.int64
    assert codes.min() >= 0 and codes.max() < ENTRIES and len(codes.unique()) > 3
    assert torch.equal(codes, lapa.encode(frames, next_frames))
    assert torch.equal(vectors, lapa.codebook[codes])
    assert torch.equal(lapa.latent_vectors(codes), vectors.flatten(1))
    output = lapa(frames, next_frames)
    assert torch.equal(output.codes, codes)
    assert torch.equal(output.vectors, vectors)
    assert lapa.config.latent_dim == CODES and lapa.config.vector_dim == CODES * CODE_DIM


def test_codes_are_the_nearest_in_float64() -> None:
    quantizer = tiny_lapa().quantizer
    vectors = torch.randn(50, CODES, CODE_DIM)
    distances = (vectors.double()[:, :, None] - quantizer.codebook.double()).square().sum(-1)
    assert torch.equal(quantizer.nearest(vectors), distances.argmin(-1))


def test_codes_depend_on_both_frames_and_their_order() -> None:
    lapa, (first, second), (third, _) = tiny_lapa(), pairs(), pairs(seed=2)
    given = ((first, second), (third, second), (first, third), (second, first))
    differences = [differences_of(lapa, *frames) for frames in given]
    for other in differences[1:]:
        assert not torch.allclose(differences[0], other, atol=1e-4)


def test_predictions_from_codes_and_from_vectors_agree() -> None:
    lapa, (frames, next_frames) = tiny_lapa(), pairs()
    output = lapa(frames, next_frames)
    for latents in (output.codes, output.codes.to(torch.uint8), lapa.latent_vectors(output.codes)):
        torch.testing.assert_close(lapa.predict(frames, latents), output.predictions.clamp(0, 1), rtol=0, atol=1e-6)
        torch.testing.assert_close(lapa.loss(frames, latents, next_frames), output.loss, rtol=1e-5, atol=0)
    assert output.predictions.min() < 0
    error = (output.predictions.double() - next_frames.double()).square().mean()
    torch.testing.assert_close(output.loss.double(), error, rtol=1e-5, atol=0)
    assert not torch.allclose(lapa.predict(frames, (output.codes + 1) % ENTRIES), lapa.predict(frames, output.codes))


def test_the_loss_passes_gradients_to_soft_codes() -> None:
    lapa, (frames, next_frames) = tiny_lapa(), pairs()
    probabilities = torch.rand(3, CODES, ENTRIES).softmax(-1).requires_grad_()
    lapa.loss(frames, (probabilities @ lapa.codebook).flatten(1), next_frames).backward()
    assert probabilities.grad.abs().sum() > 0


def test_action_tokens_interleave_codes_and_channels() -> None:
    quantizer = tiny_lapa().quantizer
    vectors = torch.arange(CODES * CODE_DIM).float().view(1, CODES, CODE_DIM)
    # Entry (n, e) of what is projected is number e N + n of the block.
    mixed = torch.tensor([[e * CODES + n for e in range(CODE_DIM)] for n in range(CODES)]).float()
    torch.testing.assert_close(quantizer.action_tokens(vectors)[0], quantizer.project_out(mixed))


def test_training_moves_vectors_by_the_quantisation_error() -> None:
    quantizer = tiny_lapa().quantizer.train()
    vectors = torch.randn(5, CODES, CODE_DIM, requires_grad=True)
    codes, moved, _ = quantizer(vectors)
    error = (vectors - quantizer.codebook[codes]).norm(dim=-1)
    torch.testing.assert_close((moved - vectors).norm(dim=-1), error, rtol=1e-4, atol=1e-5)
    moved.square().sum().backward()
    used = torch.bincount(codes.flatten(), minlength=ENTRIES) > 0
    assert torch.equal(quantizer.codebook.grad.abs().sum(1) > 0, used)


def test_gradients_are_finite_where_a_vector_is_an_entry() -> None:
    quantizer = tiny_lapa().quantizer.train()
    vectors = quantizer.codebook.detach()[None, :CODES].clone().requires_grad_()
    quantizer(vectors).vectors.square().sum().backward()
    assert torch.isfinite(vectors.grad).all() and torch.isfinite(quantizer.codebook.grad).all()


def test_perplexity_in_closed_form() -> None:
    quantizer = tiny_lapa().quantizer
    for codes, expected in (([[0, 0], [0, 0]], 1.0), ([[0, 1], [2, 3]], 4.0), ([[5, 5], [5, 2]], None)):
        expected = expected or math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
        assert quantizer.perplexity(torch.tensor(codes)).item() == pytest.approx(expected, rel=1e-5)


def test_every_code_is_counted_once_a_training_pass() -> None:
    quantizer = tiny_lapa().quantizer.train()
    quantizer.count_usage(torch.tensor([[1, 1], [1, 3]]))
    quantizer.count_usage(torch.tensor([[3, 3], [7, 3]]))
    assert quantizer.codebook_usage.tolist() == [0, 1, 0, 2, 0, 0, 0, 1]
    lapa = tiny_lapa()
    lapa(*pairs())
    lapa.encode(*pairs())
    assert not lapa.quantizer.codebook_usage.any()
    lapa.train()(*pairs())
    assert lapa.quantizer.codebook_usage.any()


def test_refresh_steps() -> None:
    expected = [*range(10, 100, 10), *range(100, 1000, 100), *range(1000, 5000, 500)]
    assert [step for step in range(-10, 20_000) if is_refresh_step(step)] == expected


@pytest.mark.parametrize("num_used", range(ENTRIES + 1))
def test_replacements_take_used_entries_as_evenly_as_they_can(num_used: int) -> None:
    used = torch.zeros(ENTRIES, dtype=torch.bool)
    used[torch.randperm(ENTRIES)[:num_used]] = True
    rows = replacements(used, torch.randperm)
    assert torch.equal(rows[used], used.nonzero().flatten())
    if num_used == 0:
        assert torch.equal(rows, torch.arange(ENTRIES))
    elif num_used >= ENTRIES / 2:
        assert torch.equal(rows[~used], used.nonzero().flatten()[: ENTRIES - num_used])
    else:
        copies = torch.bincount(rows[~used], minlength=ENTRIES)
        assert not copies[~used].any()
        assert copies.max() <= math.ceil((ENTRIES - num_used) / num_used)


def test_refresh_replaces_unused_entries_and_resets_the_counts() -> None:
    lapa = tiny_lapa()
    before = lapa.codebook.detach().clone()
    lapa.quantizer.codebook_usage.copy_(torch.tensor([9, 0, 4, 1, 2, 0, 30, 3]))
    assert lapa.refresh_codebook(batch_size=20) == 3  # below 0.1 x 20: entries 1, 3 and 5
    expected = before.clone()
    expected[[1, 3, 5]] = before[[0, 2, 4]]
    torch.testing.assert_close(lapa.codebook.detach(), expected, rtol=0, atol=1e-9)
    assert not lapa.quantizer.codebook_usage.any()
    assert lapa.refresh_codebook(batch_size=20) == 0
    with pytest.raises(ValueError, match="batch_size: got 0"):
        lapa.refresh_codebook(batch_size=0)


def test_refresh_follows_its_generator() -> None:
    results = []
    for seed in (0, 0, 1):
        lapa = tiny_lapa()
        lapa.quantizer.codebook_usage[2:5] = 10
        assert lapa.refresh_codebook(4, torch.Generator().manual_seed(seed)) == 5
        results.append(lapa.codebook.detach().clone())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def train(lapa: LapaModel, steps: range, seed: int = 0) -> list[float]:
    """Plain gradient descent on moving squares, with refresh; the state of a run is the model and the step."""
    losses = []
    lapa.train()
    for step in steps:
        torch.manual_seed(seed + step)
        frames, next_frames = moving_squares(8)
        loss = lapa(frames, next_frames).loss
        lapa.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in lapa.parameters():
                parameter -= 0.03 * parameter.grad
        if is_refresh_step(step + 1):
            lapa.refresh_codebook(8)
        losses.append(loss.item())
    return losses


def moving_squares(batch: int) -> tuple[Tensor, Tensor]:
    videos = torch.zeros(2, batch, 3, SIZE, SIZE)
    for index in range(batch):
        row, column = torch.randint(4, 8, (2,)).tolist()
        down, right = torch.randint(-1, 2, (2,)).tolist()
        videos[0, index, :, row : row + 4, column : column + 4] = 1
        row, column = row + 4 * down, column + 4 * right
        videos[1, index, :, row : row + 4, column : column + 4] = 1
    return videos[0], videos[1]


def test_training_lowers_the_loss_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = tiny_lapa()
    losses = train(whole, range(12))
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    first = tiny_lapa()
    train(first, range(6))
    first.save_pretrained(tmp_path)
    second = LapaModel.from_pretrained(tmp_path)
    assert second.quantizer.codebook_usage.any()
    train(second, range(6, 12))
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


PROCESSES = """
import sys
import torch
from accelerate import Accelerator
from tests.models.lapa.test_lapa import pairs, tiny_lapa

accelerator = Accelerator(cpu=True)
lapa = tiny_lapa(codebook_size=40).train()
model = accelerator.prepare(lapa)
part = slice(accelerator.process_index, accelerator.process_index + 1)
for seed in (1, 2):
    frames, next_frames = pairs(2, seed)
    model(frames[part], next_frames[part]).loss.backward()
usage = lapa.quantizer.codebook_usage.clone()
torch.manual_seed(accelerator.process_index)
lapa.quantizer.codebook_usage[2:] = 0
lapa.quantizer.codebook_usage[:2] = 5
lapa.refresh_codebook(4)
torch.save((usage, lapa.codebook.detach()), f"{sys.argv[1]}/{accelerator.process_index}.pt")
assert accelerator.num_processes == 2
"""


def test_two_processes_count_together_and_refresh_alike(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROCESSES)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*command, str(script), str(tmp_path)], env=environment, check=True, timeout=250)
    alone = tiny_lapa(codebook_size=40).train()
    for seed in (1, 2):
        codes = alone(*pairs(2, seed)).codes.tolist()
        assert set(codes[0]) != set(codes[1])
    usages, codebooks = zip(*(torch.load(tmp_path / f"{index}.pt") for index in range(2)), strict=True)
    for usage in usages:
        assert torch.equal(usage, alone.quantizer.codebook_usage)
    assert torch.equal(*codebooks)


@pytest.mark.parametrize(
    ("grid", "codes", "expected"),
    [
        (8, 1, [((3, 3), 2, 1), ((4, 4), 1, 0)]),
        (8, 2, [((3, 3), 2, 1), ((3, 4), 1, 0)]),
        (8, 4, [((3, 3), 2, 1), ((3, 3), 1, 0)]),
        (16, 16, [((3, 3), 2, 1), ((3, 3), 2, 1)]),
        (16, 64, [((3, 3), 2, 1)]),
        (32, 256, [((3, 3), 2, 1)]),
    ],
)
def test_published_reducers(grid: int, codes: int, expected: list[Any]) -> None:
    assert reducer_layers(grid, codes) == [ReducerLayer(*layer) for layer in expected]


def test_reducers_of_every_other_size_end_at_the_codes() -> None:
    for grid in range(1, 20):
        for codes in range(1, 40):
            rows, columns = code_grid(codes)
            assert rows * columns == codes and rows >= columns
            if rows > grid:
                with pytest.raises(ValueError, match=f"num_codes: got {codes}, which lie in {rows} rows"):
                    reducer_layers(grid, codes)
                continue
            states = torch.zeros(1, 1, grid, grid)
            for layer in reducer_layers(grid, codes):
                states = F.conv2d(states, torch.zeros(1, 1, *layer.kernel_size), None, layer.stride, layer.padding)
            assert states.shape[2:] == (rows, columns)


@pytest.mark.parametrize("changes", [{"num_codes": 1}, {"num_codes": 6}, {"num_codes": 64}, {"patch_size": 4}])
def test_other_sequence_lengths_and_grids_train(changes: dict[str, int]) -> None:
    lapa = tiny_lapa(**changes).train()
    output = lapa(*pairs())
    output.loss.backward()
    assert output.codes.shape == (3, lapa.config.num_codes)
    assert lapa.codebook.grad.abs().sum() > 0
    assert lapa.eval().predict(pairs()[0], output.codes).shape == (3, 3, SIZE, SIZE)


@pytest.mark.parametrize("num_frames", [1, 2])
def test_the_position_convolution_is_causal_in_time(num_frames: int) -> None:
    torch.manual_seed(0)
    conv = PositionConv(5)
    torch.nn.init.normal_(conv.weight)
    torch.nn.init.normal_(conv.bias)
    tokens = torch.randn(2 * num_frames, 12, 5)
    video = tokens.view(2, num_frames, 3, 4, 5).permute(0, 4, 1, 2, 3)
    padded = F.pad(video, (1, 1, 1, 1, 2, 0))
    expected = F.conv3d(padded, conv.weight, conv.bias, groups=5).permute(0, 2, 3, 4, 1).reshape(tokens.shape)
    torch.testing.assert_close(conv(tokens, (2, num_frames, 3, 4)), expected, rtol=0, atol=1e-5)


def test_the_position_bias_of_every_pair_of_patches() -> None:
    lapa = tiny_lapa()
    side = lapa.config.grid_size
    biases = lapa.position_bias()
    assert biases.shape == (2, side**2, side**2)
    for query, key in ((0, 0), (3, 17), (40, 2), (63, 0)):
        offset = [query // side - key // side, query % side - key % side]
        scaled = torch.tensor([math.copysign(math.log(1 + abs(number)), number) for number in offset])
        torch.testing.assert_close(biases[:, query, key], lapa.position_bias.mlp(scaled))


def test_eager_and_sdpa_attention_agree() -> None:
    lapa = tiny_lapa()
    fast = lapa(*pairs())
    lapa.set_attn_implementation("eager")
    slow = lapa(*pairs())
    assert torch.equal(fast.codes, slow.codes)
    torch.testing.assert_close(fast.predictions, slow.predictions, rtol=0, atol=1e-5)


def test_activation_checkpointing_changes_nothing() -> None:
    gradients, usages = [], []
    for checkpointing in (False, True):
        lapa = tiny_lapa().train()
        if checkpointing:
            lapa.activation_checkpointing_enable()
        lapa(*pairs(), noise=torch.ones(3, CODES, CODE_DIM)).loss.backward()
        gradients.append([parameter.grad for parameter in lapa.parameters()])
        usages.append(lapa.quantizer.codebook_usage)
    assert torch.equal(*usages)
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near(dtype: torch.dtype) -> None:
    lapa, (frames, next_frames) = tiny_lapa(), pairs()
    expected = lapa.predict(frames, lapa.encode(frames, next_frames))
    codes = lapa.encode(frames, next_frames)
    lapa.to(dtype)
    assert lapa.encode(frames.to(dtype), next_frames.to(dtype)).dtype == torch.int64
    torch.testing.assert_close(lapa.predict(frames.to(dtype), codes).float(), expected, rtol=0, atol=0.05)


def test_mixed_precision_training() -> None:
    lapa = tiny_lapa().train()
    exact = lapa(*pairs(), noise=torch.ones(3, CODES, CODE_DIM))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = lapa(*pairs(), noise=torch.ones(3, CODES, CODE_DIM))
    assert output.loss.dtype == output.vectors.dtype == torch.float32
    torch.testing.assert_close(output.loss, exact.loss, rtol=0.05, atol=0)
    output.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in lapa.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_constant_frames_give_no_nan(dtype: torch.dtype) -> None:
    lapa = tiny_lapa().to(dtype).train()
    for value in (0.0, 0.5, 1.0):
        frames = torch.full((2, 3, SIZE, SIZE), value, dtype=dtype)
        output = lapa(frames, frames)
        output.loss.backward()
        assert torch.isfinite(output.predictions).all()
        assert lapa.encode(frames, frames).max() < ENTRIES
    assert all(torch.isfinite(parameter.grad).all() for parameter in lapa.parameters())


def test_tokens_of_zero_give_no_nan_in_half_precision() -> None:
    lapa = tiny_lapa().to(torch.float16)
    lapa.set_attn_implementation("eager")  # the CPU's fast kernel hides NaN scores
    mixed = lapa.spatial_encoder.layers[0].attention(torch.zeros(2, 5, 16, dtype=torch.float16))
    assert torch.isfinite(mixed).all()


def test_frames_that_do_not_fit_are_refused() -> None:
    lapa, (frames, next_frames) = tiny_lapa(), pairs()
    eight_bit = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)
    for call in (lapa.encode, lapa):
        with pytest.raises(ValueError, match="divide 8-bit frames by 255"):
            call(eight_bit, eight_bit)
        with pytest.raises(ValueError, match=r"shape \(B, 3, 16, 16\), got \(\d, 3, 8, 16\)"):
            call(frames[:, :, :8], next_frames[:, :, :8])
        with pytest.raises(ValueError, match="must have the same shape"):
            call(frames, next_frames[:2])
    with pytest.raises(ValueError, match="divide 8-bit frames by 255"):
        lapa.predict(eight_bit, torch.zeros(1, CODES, dtype=torch.int64))
    with pytest.raises(ValueError, match="must have the same shape"):
        lapa.loss(frames, torch.zeros(3, CODES, dtype=torch.int64), next_frames[:1])
    for number in (torch.nan, torch.inf):
        broken = next_frames.clone()
        broken[1, 0, 3, 3] = number
        with pytest.raises(ValueError, match="check for NaN"):
            lapa.encode(frames, broken)
    with pytest.raises(ValueError, match="no pair of frames 3 apart"):
        lapa.encode_video(frames, stride=3)


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (torch.zeros(3, CODES), r"expected integers of shape \(3, 4\).* or floats of shape \(3, 24\)"),
        (torch.zeros(2, CODES, dtype=torch.int64), r"got torch.int64 of shape \(2, 4\)"),
        (torch.zeros(3, CODES, CODE_DIM), r"got torch.float32 of shape \(3, 4, 6\)"),
        (torch.zeros(3, CODES, dtype=torch.bool), "got torch.bool"),
        (torch.full((3, CODES), ENTRIES), "got codes from 8 to 8, expected 0 to 7"),
        (torch.full((3, CODES), -1), "got codes from -1 to -1"),
    ],
)
def test_latents_that_do_not_fit_are_refused(latents: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_lapa().predict(pairs()[0], latents)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 5}, "image_size: got 16, expected a multiple of patch_size 5"),
        ({"num_codes": 11}, r"num_codes: got 11, .*8 x 8 grid of patches: one of 1, 2, 3, 4, .*, 64\."),
        ({"num_codes": 0}, "num_codes: got 0, expected 1 or more"),
        ({"patch_size": 0}, "patch_size: got 0"),
        ({"codebook_size": 1}, "codebook_size: got 1, expected 2 or more"),
        ({"refresh_threshold": -0.1}, "refresh_threshold: got -0.1"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StrictDataclassError, match=message):
        LapaConfig(**OPTIONS | changes)


def test_presets_have_the_sizes_that_are_documented() -> None:
    for name, millions in (("tiny", 1.4), ("published", 343.8)):
        with torch.device("meta"):
            lapa = LapaModel(LapaConfig.preset(name))
        assert sum(parameter.numel() for parameter in lapa.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    with pytest.raises(ValueError, match="preset: got 'huge', expected one of"):
        LapaConfig.preset("huge")


def test_a_fresh_model_starts_as_pytorch_does() -> None:
    torch.manual_seed(0)
    lapa = LapaModel(LapaConfig(**OPTIONS | {"hidden_size": 64, "quant_dim": 64, "codebook_size": 64}))
    weight = lapa.decoder.layers[0].feed_forward.up.weight
    assert weight.abs().max() <= 1 / 8 and weight.std().item() == pytest.approx(1 / math.sqrt(3 * 64), rel=0.05)
    conv = lapa.spatial_encoder.layers[0].position_conv.weight
    assert conv.abs().max() <= 27**-0.5 and conv.std().item() == pytest.approx(1 / 9, rel=0.05)
    assert lapa.codebook.std().item() == pytest.approx(1, rel=0.05)
    assert torch.equal(lapa.decoder.layers[1].cross_attention.key_gain, torch.ones(6))
    assert lapa.decoder.layers[1].cross_attention.null_pairs.std().item() == pytest.approx(1, rel=0.3)
