"""Eq. 4 without a transfer from the device: pairs, limited chunks, compiled training; and habits of large models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel
from hilam_hf.models.hilam.losses import neighbours, one_step_share, rows_of_steps
from hilam_hf.models.hnet import HNetConfig, SequenceLayout
from tests.models.hilam.test_hilam import DIM, make_config, make_model, padded_batch


def limited(*capacity: float) -> dict[str, Any]:
    """Changes of `make_config` that limit the number of chunks."""
    return {"hnet_config": HNetConfig(**{**make_config().hnet_config.to_dict(), "chunk_capacity": list(capacity)})}


def ragged_batch() -> tuple[Tensor, Tensor]:
    return padded_batch([torch.randn(length, DIM) for length in (18, 5, 12)])


def test_neighbours_lie_in_one_sequence() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]])
    expected = [True, True, False, False, True]
    assert neighbours(SequenceLayout.from_mask(mask)).tolist() == expected
    assert neighbours(SequenceLayout.from_mask(mask, static=True)).tolist() == expected + [False] * 6


def test_the_share_of_one_step_chunks_ends_with_each_sequence() -> None:
    """Chunks of 1, 2 | 1 | 3, 1 tokens, one sequence after the other: three of five."""
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    boundaries = torch.tensor([1, 1, 0, 1, 1, 0, 0, 1]).bool()
    assert one_step_share(boundaries, SequenceLayout.from_mask(mask)).item() == pytest.approx(3 / 5)
    left_over = torch.tensor([1, 0, 1, 1]).bool()
    static = SequenceLayout.from_mask(mask, static=True)
    assert one_step_share(torch.cat([boundaries, left_over]), static).item() == pytest.approx(3 / 5)


def test_each_stage_has_its_own_weight() -> None:
    batch = torch.randn(2, 16, DIM)
    output = make_model(lambda_ratio=[0.5, 0.125])(batch)
    expected = output.latent_loss + 0.5 * output.ratio_losses[0] + 0.125 * output.ratio_losses[1]
    torch.testing.assert_close(output.loss, expected)
    assert make_model(lambda_ratio=2).config.ratio_weights == [2.0, 2.0]
    with pytest.raises(StrictDataclassError, match=r"lambda_ratio: got 1 .*expected 2"):
        make_config(lambda_ratio=[0.5])
    with pytest.raises(StrictDataclassError, match="lambda_ratio: got"):
        make_config(lambda_ratio=[0.5, -0.1])


def test_steps_name_rows_of_their_own_sequence() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]])
    for static in (False, True):
        layout = SequenceLayout.from_mask(mask, static=static)
        assert rows_of_steps(layout, torch.tensor([[2, 0], [0, 1], [0, 0]])).tolist() == [4, 1, 0]
        for outside in ([0, 2], [1, 0], [0, -1], [-1, 0]):
            with pytest.raises(RuntimeError, match="from 0 to its length - 2"):
                rows_of_steps(layout, torch.tensor([outside]))


def test_reconstruction_is_zero_without_a_step() -> None:
    model, empty = make_model(), torch.empty(0, 3, 4, 4)
    for attention_mask in (torch.tensor([[1, 0, 0]] * 3), None):
        output = model(
            torch.randn(3, 3 if attention_mask is not None else 1, DIM),
            attention_mask,
            reconstruction_steps=torch.empty(0, 2, dtype=torch.long),
            reconstruction_frames=empty,
            reconstruction_targets=empty,
            forward_dynamics=lambda i, z, j: (i * z.mean() + j).mean(),
        )
        assert output.reconstruction_loss == 0
        model.zero_grad()
        output.loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_ample_room_for_chunks_changes_no_number() -> None:
    exact, roomy = make_model(), make_model(**limited(1.0, 1.0))
    batch, mask = ragged_batch()
    batch[~mask] = torch.nan
    left, right = exact(batch, mask), roomy(batch, mask)
    for name in ("loss", "latent_loss", "ratio_losses", "boundary_rates", "predictions"):
        torch.testing.assert_close(right[name], left[name], rtol=0, atol=1e-5)
    assert left.dropped_boundaries is None
    assert right.dropped_boundaries.tolist() == [0, 0]
    left.loss.backward()
    right.loss.backward()
    for one, other in zip(exact.parameters(), roomy.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-5)


def test_boundaries_without_room_are_counted() -> None:
    model = make_model(**limited(0.05, 0.5))
    batch, mask = ragged_batch()
    output = model(batch, mask)
    wanted = sum((make_model()(batch, mask).stages[0].boundary_mask & mask).sum(1).tolist())
    room = [1 + length * 52 // 1024 for length in (18, 5, 12)]  # 0.05 is rounded up to 52 of 1024
    assert output.stages[0].boundary_mask.sum(1).tolist() == room
    assert output.dropped_boundaries[0] == wanted - sum(room)


class FrozenDynamics(nn.Module):
    """A forward dynamics model that compiles."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width), requires_grad=False)

    def loss(self, frames: Tensor, latents: Tensor, next_frames: Tensor) -> Tensor:
        predicted = frames.mean((1, 2, 3)) + latents @ self.weight
        return (predicted - next_frames.mean((1, 2, 3))).square().mean()


def one_stage_model(discrete: bool) -> HiLAMModel:
    backbone = HNetConfig(
        arch_layout=["t1", ["T1"], "t1"],
        d_model=[32, 48],
        d_intermediate=[64, 64],
        num_heads=[2, 2],
        rotary_emb_dim=[8, 8],
        window_size=[-1, 3],
        chunk_capacity=[0.4],
    )
    changes = {"latent_type": "discrete"} if discrete else {"latent_dim": DIM}
    return HiLAMModel(HiLAMConfig(hnet_config=backbone, target_ratios=[2], skill_stage=1, stride=2, **changes))


# "aot_eager" traces and differentiates the whole graph as "inductor" does, without generating code for it; "eager" only
# traces it.
@pytest.mark.parametrize(
    ("discrete", "backend"), [pytest.param(False, "aot_eager", marks=pytest.mark.slow), (True, "eager")]
)
def test_the_training_forward_compiles_without_a_graph_break(discrete: bool, backend: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, dynamics = one_stage_model(discrete), FrozenDynamics(4 * 2 if discrete else DIM)
    if discrete:
        model.set_codebook(torch.randn(8, 2))
        batch = torch.randint(0, 8, (3, 16, 4))
    else:
        model.set_latent_statistics(torch.zeros(DIM), torch.ones(DIM))
        batch = torch.randn(3, 16, DIM)
    mask = torch.arange(16) < torch.tensor([16, 5, 9])[:, None]
    inputs = {
        "attention_mask": mask,
        "reconstruction_steps": torch.tensor([[0, 0], [0, 14], [1, 3], [2, 7]]),
        "reconstruction_frames": torch.rand(4, 3, 4, 4),
        "reconstruction_targets": torch.rand(4, 3, 4, 4),
        "forward_dynamics": dynamics,
    }
    compiled = torch.compile(model, fullgraph=True, backend=backend)

    results = []
    for run in (model, compiled):
        torch.manual_seed(1)
        model.zero_grad()
        output = run(batch, **inputs)
        output.loss.backward()
        results.append((output, [parameter.grad.clone() for parameter in model.parameters()]))
    (expected, gradients), (actual, compiled_gradients) = results
    for name in ("loss", "reconstruction_loss", "boundary_rates", "dropped_boundaries", "predictions"):
        torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=1e-5)
    for one, other in zip(gradients, compiled_gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_gives_equal_gradients() -> None:
    model = make_model().train()
    batch, mask = ragged_batch()
    model(batch, mask).loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.activation_checkpointing_enable()
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    model(batch, mask).loss.backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-6)


def test_attention_implementations_agree_and_pass_down() -> None:
    batch, mask = ragged_batch()
    model = make_model()
    outputs = {}
    for name in ("eager", "sdpa"):
        model.set_attn_implementation(name)
        assert model.hnet.config._attn_implementation == name
        outputs[name] = model(batch, mask).predictions
    torch.testing.assert_close(outputs["eager"], outputs["sdpa"], rtol=0, atol=1e-5)


def test_attention_implementation_of_a_loaded_checkpoint(tmp_path: Any) -> None:
    make_model().save_pretrained(tmp_path)
    loaded = HiLAMModel.from_pretrained(tmp_path, attn_implementation="eager")
    attention = [module for module in loaded.modules() if type(module).__name__ == "HNetAttention"]
    assert attention
    assert all(module.config._attn_implementation == "eager" for module in attention)


def test_sharded_checkpoints_load_equal(tmp_path: Any) -> None:
    model = make_model()
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert (tmp_path / "model.safetensors.index.json").is_file()
    loaded = HiLAMModel.from_pretrained(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_lora_trains_and_merges() -> None:
    peft = pytest.importorskip("peft")
    model = make_model()
    batch = torch.randn(2, 12, DIM)
    before = model(batch).predictions
    config = peft.LoraConfig(r=4, target_modules=["Wqkv", "out_proj", "fc1", "fc2"], lora_alpha=8)
    adapted = peft.get_peft_model(model, config)
    torch.testing.assert_close(adapted(batch).predictions, before, rtol=0, atol=1e-6)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        adapted(batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = adapted(batch).predictions
    assert not torch.allclose(trained, before, atol=1e-3)
    merged = adapted.merge_and_unload()
    assert isinstance(merged, HiLAMModel)
    torch.testing.assert_close(merged(batch).predictions, trained, rtol=0, atol=1e-4)


def test_bfloat16_loading_keeps_the_statistics_exact(tmp_path: Any) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    loaded = HiLAMModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.output_proj.weight.dtype == torch.bfloat16
    assert torch.equal(loaded.latent_mean, model.latent_mean)
    assert torch.equal(loaded.latent_std, model.latent_std)
    assert torch.isfinite(loaded(torch.randn(2, 12, DIM)).loss)
