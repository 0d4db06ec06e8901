"""The BAKU trunk, its chunk execution and the flat policy."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import PreTrainedModel

from hilam_hf.models.acting.execution import OpenLoop, TemporalAggregator
from hilam_hf.models.acting.history import TokenHistory
from hilam_hf.models.acting.normalization import Normalizer
from hilam_hf.models.baku import BakuConfig, BakuModel, BakuPolicy, convert_published_state_dict, load_published_weights
from hilam_hf.models.baku.modeling_baku import FilmLayer, SpatialSoftmax
from hilam_hf.video import resize_frames
from tests.helpers import require_shared
from tests.models.mixins import ModelTesterMixin

TINY = {
    "image_size": 32,
    "vision_widths": [8, 16],
    "vision_groups": 4,
    "num_keypoints": 6,
    "token_dim": 24,
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "language_dim": 8,
    "action_dim": 3,
    "chunk_size": 4,
    "dropout": 0.0,
}


class FakeLanguageEncoder:
    """Vectors that differ between instructions, without weights."""

    def __init__(self, dim: int = 8):
        self.dim = dim

    def encode(self, instructions: list[str]) -> Tensor:
        return torch.stack([torch.sin(torch.arange(self.dim) * (1.0 + len(text))) for text in instructions])


def tiny_config(**changes: Any) -> BakuConfig:
    return BakuConfig(**{"cameras": ["front", "wrist"], "proprioception_dim": 5} | TINY | changes)


def tiny_model(**changes: Any) -> BakuModel:
    torch.manual_seed(0)
    return BakuModel(tiny_config(**changes)).eval()


def model_inputs(config: BakuConfig, batch: int = 2, steps: int = 2) -> dict[str, Any]:
    size = config.image_size
    inputs: dict[str, Any] = {"pixels": {camera: torch.rand(batch, steps, 3, size, size) for camera in config.cameras}}
    if config.language_dim is not None:
        inputs["language"] = torch.randn(batch, config.language_dim)
    if config.proprioception_dim is not None:
        inputs["agent_pos"] = torch.randn(batch, steps, config.proprioception_dim)
    if config.condition_dim is not None:
        inputs["condition"] = torch.randn(batch, steps, config.condition_dim)
    return inputs


def rows(inputs: dict[str, Any], keep: slice) -> dict[str, Any]:
    return {k: {c: f[keep] for c, f in v.items()} if isinstance(v, dict) else v[keep] for k, v in inputs.items()}


class StoredModelTester(ModelTesterMixin):
    """The checks on a model that was itself loaded.

    Weights loaded from a file lie at other memory alignments than fresh ones, and BLAS kernels round accordingly: only
    between two loaded models can outputs be bitwise equal.
    """

    @pytest.fixture
    def model(self, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("stored")
        fresh = self.model_class(self.make_config())
        self.prepare_model(fresh)
        fresh.save_pretrained(folder)
        model = self.model_class.from_pretrained(folder)
        self.prepare_model(model)
        return model.eval()


class TestBakuModel(StoredModelTester):
    model_class = BakuModel
    # A checkpoint of this kind is a policy; the trunk alone has no Auto class.
    test_auto_class_builds_it = None

    def make_config(self) -> BakuConfig:
        return tiny_config(condition_dim=6)

    def make_inputs(self) -> dict[str, Any]:
        config = tiny_config(condition_dim=6)
        inputs = model_inputs(config, steps=3)
        return inputs | {"actions": torch.rand(2, 3, config.chunk_size, config.action_dim)}


class TestBakuPolicy(StoredModelTester):
    model_class = BakuPolicy

    def make_config(self) -> BakuConfig:
        return tiny_config()

    def make_inputs(self) -> dict[str, Any]:
        return model_inputs(tiny_config()) | {"actions": torch.rand(2, 2, 4, 3)}

    def prepare_model(self, model: BakuPolicy) -> None:
        set_policy_statistics(model)


def set_policy_statistics(policy: BakuPolicy) -> None:
    policy.set_statistics(
        actions=(torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, 4.0, 2.0])),
        agent_pos=(torch.arange(5.0), torch.full((5,), 2.0)),
    )


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, ["language", "front", "wrist", "agent_pos"]),
        ({"language_dim": None, "film_source": None}, ["front", "wrist", "agent_pos"]),
        ({"proprioception_dim": None, "condition_dim": 6}, ["language", "front", "wrist", "condition"]),
        ({"condition_dim": 6, "cameras": ["front"]}, ["language", "front", "agent_pos", "condition"]),
        ({"cameras": [], "film_source": None}, ["language", "agent_pos"]),
        ({"film_source": "condition", "condition_dim": 6}, ["language", "front", "wrist", "agent_pos", "condition"]),
        ({"share_camera_encoder": False, "vision_widths": [8]}, ["language", "front", "wrist", "agent_pos"]),
    ],
)
@torch.no_grad()
def test_tokens_of_each_modality_in_order(changes: dict[str, Any], tokens: list[str]):
    model = tiny_model(**changes)
    inputs = model_inputs(model.config, steps=3)
    seen: list[Tensor] = []
    model.trunk.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    output = model(**inputs)
    assert output.action_mean.shape == (2, 3, 4, 3)
    assert output.features.shape == (2, 3, 16)

    prompt, per_step = (["language"], tokens[1:]) if tokens[0] == "language" else ([], tokens)
    layout = [None] * len(prompt) + [step for step in range(3) for _ in [*per_step, "action"]]
    assert seen[0].shape[1] == len(layout)
    assert [name for _, name in model.config.token_layout(3)] == prompt + [*per_step, "action"] * 3
    for position, name in enumerate(prompt + [*per_step, "action"] * 3):
        step = layout[position]
        if name == "language":
            expected = model.language_projector(inputs["language"])
        elif name == "agent_pos":
            expected = model.proprioception_projector(inputs["agent_pos"][:, step])
        elif name == "condition":
            expected = model.condition_projector(inputs["condition"][:, step])
        elif name == "action":
            expected = model.action_token.expand(2, -1)
        else:
            source = {"language": model.language_projector, "condition": model.condition_projector}
            encoder = model.vision_encoders["shared" if model.config.share_camera_encoder else name]
            film = model.config.film_source
            vector = None
            if film is not None:
                vector = source[film](inputs["language"] if film == "language" else inputs["condition"][:, step])
            expected = encoder(inputs["pixels"][name][:, step], vector)
        torch.testing.assert_close(seen[0][:, position], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_predictions_do_not_see_later_steps():
    model = tiny_model()
    inputs = model_inputs(model.config, steps=3)
    full = model(**inputs).action_mean
    inputs["agent_pos"][:, 2] += 5
    inputs["pixels"]["front"][:, 2] = 0
    changed = model(**inputs).action_mean
    torch.testing.assert_close(changed[:, :2], full[:, :2])
    assert (changed[:, 2] - full[:, 2]).abs().max() > 1e-3


@torch.no_grad()
def test_rows_do_not_depend_on_the_batch():
    model = tiny_model()
    inputs = model_inputs(model.config, batch=3)
    together = model(**inputs).action_mean
    torch.testing.assert_close(model(**rows(inputs, slice(1, 2))).action_mean, together[1:2], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_attention_written_out_equals_the_fused_kernel():
    model = tiny_model()
    inputs = model_inputs(model.config, steps=3)
    fused = model(**inputs).action_mean
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    torch.testing.assert_close(model(**inputs).action_mean, fused, rtol=1e-4, atol=1e-5)


def test_activation_checkpointing_gives_the_same_gradients():
    model = tiny_model().train()
    inputs = model_inputs(model.config) | {"actions": torch.rand(2, 2, 4, 3)}
    model(**inputs).loss.backward()
    expected = model.trunk.layers[0].mlp_up.weight.grad.clone()
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(**inputs).loss.backward()
    torch.testing.assert_close(model.trunk.layers[0].mlp_up.weight.grad, expected)


def test_spatial_softmax_of_a_peak_is_its_place():
    layer = SpatialSoftmax(2, 2)
    with torch.no_grad():
        layer.maps.weight.copy_(torch.eye(2)[..., None, None])
        layer.maps.bias.zero_()
    hidden = torch.zeros(1, 2, 3, 5)
    hidden[0, 0, 2, 1] = hidden[0, 1, 0, 4] = 100.0
    # Rows of 3 are at -1, 0, 1 and columns of 5 at -1, -0.5, 0, 0.5, 1; all rows come before all columns.
    torch.testing.assert_close(layer(hidden), torch.tensor([[1.0, -1.0, -0.5, 1.0]]))


def test_film_scales_by_one_plus_the_second_half_and_shifts_by_the_first():
    layer = FilmLayer(1, 2)
    with torch.no_grad():
        layer.projection.weight.copy_(torch.tensor([[10.0], [20.0], [1.0], [2.0]]))
        layer.projection.bias.zero_()
    output = layer(torch.full((1, 2, 1, 1), 3.0), torch.ones(1, 1))
    torch.testing.assert_close(output.flatten(), torch.tensor([3.0 * 2 + 10, 3.0 * 3 + 20]))


def test_loss_is_the_gaussian_likelihood_of_the_real_actions():
    model = tiny_model()
    inputs = model_inputs(model.config)
    actions = torch.rand(2, 2, 4, 3)
    mask = torch.ones(2, 2, 4, dtype=torch.bool)
    mask[0, :, 2:] = False
    mean = model(**inputs).action_mean.detach()
    expected = 50 * (mean - actions)[mask].square().mean() + math.log(0.1) + 0.5 * math.log(2 * math.pi)
    actions[0, :, 2:] = torch.nan
    loss = model(**inputs, actions=actions, action_mask=mask).loss
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_tanh_bounds_predictions():
    model = tiny_model()
    torch.nn.init.constant_(model.action_head.output.bias, 30.0)
    assert model(**model_inputs(model.config)).action_mean.max() <= 1
    unbounded = tiny_model(use_tanh=False)
    torch.nn.init.constant_(unbounded.action_head.output.bias, 30.0)
    assert unbounded(**model_inputs(unbounded.config)).action_mean.max() > 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": {"front": torch.rand(2, 2, 3, 32, 32)}}, "Camera 'wrist' is missing"),
        ({"pixels": {"front": torch.rand(2, 2, 3, 16, 16), "wrist": torch.rand(2, 2, 3, 32, 32)}}, "image_size=32"),
        ({"language": None}, "language is missing"),
        ({"language": torch.rand(2, 9)}, r"language must have shape \(B, 8\)"),
        ({"agent_pos": torch.rand(2, 2, 4)}, r"agent_pos must have shape \(B, T, 5\)"),
        ({"agent_pos": torch.rand(2, 3, 5)}, "same number of steps"),
        ({"actions": torch.rand(2, 2, 5, 3)}, "actions must have shape"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], message: str):
    model = tiny_model()
    with pytest.raises(ValueError, match=message):
        model(**model_inputs(model.config) | changes)


def test_too_long_a_sequence_is_refused():
    model = tiny_model(max_positions=9)
    with pytest.raises(ValueError, match="max_positions=9"):
        model(**model_inputs(model.config, steps=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 3}, "not divisible by num_heads"),
        ({"vision_widths": [8, 10]}, "multiples of vision_groups"),
        ({"vision_widths": []}, "multiples of vision_groups"),
        ({"cameras": ["a", "a"]}, "distinct"),
        ({"cameras": ["a.b"]}, "without dots"),
        ({"cameras": ["action"]}, "other than"),
        ({"chunk_size": 0}, "chunk_size must be greater than 0"),
        ({"dropout": 1.0}, "dropout"),
        ({"film_source": "condition"}, "needs condition_dim"),
        ({"cameras": [], "proprioception_dim": None, "film_source": None}, "needs an observation"),
        ({"history": 40}, "raise max_positions"),
        ({"n_action_steps": 5}, "exceeds chunk_size=4"),
        ({"aggregation_decay": -1.0}, "aggregation_decay"),
        ({"execution": "closed_loop"}, "execution"),
    ],
)
def test_bad_config_is_named(changes: dict[str, Any], message: str):
    with pytest.raises(StrictDataclassError, match=message):
        tiny_config(**changes)


def published_shapes() -> dict[str, list[int]]:
    listed = json.loads((require_shared() / "goldens" / "models" / "keys_baku_libero.json").read_text())["state_dicts"]
    return {f"{part}.{key}": entry["shape"] for part, entries in listed.items() for key, entry in entries.items()}


def published_checkpoint() -> dict[str, Tensor]:
    def tensor(name: str, shape: list[int]) -> Tensor:
        if name.endswith(".attn.bias"):
            return torch.ones(shape).tril()
        if name.endswith(("pos_x", "pos_y")):
            side = math.isqrt(shape[-1])
            line = torch.linspace(-1, 1, side)
            pair = torch.meshgrid(line, line, indexing="ij")
            return pair[0 if name.endswith("x") else 1].reshape(shape)
        return torch.full(shape, 0.5)

    return {name: tensor(name, shape) for name, shape in published_shapes().items()}


def test_published_key_list_fits_the_published_config():
    model = BakuModel(BakuConfig(proprioception_dim=9))
    load_published_weights(model, published_checkpoint())
    assert all((value == 0.5).all() for value in model.state_dict().values())


def test_conversion_refuses_unknown_missing_and_changed_keys():
    model = BakuModel(BakuConfig(proprioception_dim=9))
    published = published_checkpoint()
    with pytest.raises(ValueError, match=r"Unknown key 'actor\._new'"):
        load_published_weights(model, published | {"actor._new": torch.ones(1)})
    with pytest.raises(ValueError, match=r"missing \['proprioception_projector\.input\.bias'\]"):
        load_published_weights(model, {k: v for k, v in published.items() if k != "proprio_projector.0.bias"})
    with pytest.raises(ValueError, match=r"unexpected \['proprioception_projector"):
        load_published_weights(BakuModel(BakuConfig()), published)
    mask = "actor._policy.transformer.h.0.attn.bias"
    with pytest.raises(ValueError, match="differs from what this model computes"):
        convert_published_state_dict({mask: torch.ones_like(published[mask])})


def brute_force_aggregation(chunks: list[np.ndarray], starts: int, decay: float) -> np.ndarray:
    """Weighted mean of what the chunks of steps `starts`..now say about now."""
    now, size = len(chunks) - 1, len(chunks[0])
    predictions = [chunks[s][now - s] for s in range(max(starts, now - size + 1), now + 1)]
    weights = np.exp(-decay * np.arange(len(predictions)))
    return (weights[:, None] * np.array(predictions)).sum(0) / weights.sum()


@pytest.mark.parametrize("decay", [0.01, 1.0, 0.0])
def test_temporal_aggregation_with_rows_that_restart(decay: float):
    generator = np.random.default_rng(0)
    chunks = generator.normal(size=(12, 3, 4, 2))
    chunks[3, 1, 0] = 0.0  # an exact zero is a prediction like any other
    aggregator = TemporalAggregator(4, decay)
    starts = [0, 0, 0]
    for step in range(12):
        if step in (5, 6):
            row = {5: 1, 6: 2}[step]
            aggregator.reset([row])
            starts[row] = step
        action = aggregator.update(torch.from_numpy(chunks[step]))
        for row in range(3):
            expected = brute_force_aggregation(list(chunks[: step + 1, row]), starts[row], decay)
            np.testing.assert_allclose(action[row].numpy(), expected, atol=1e-12)


def test_temporal_aggregation_leaves_out_invalid_predictions():
    aggregator = TemporalAggregator(2, decay=0.5)
    aggregator.update(torch.tensor([[[1.0], [2.0]]]))
    action = aggregator.update(torch.tensor([[[7.0], [8.0]]]), torch.tensor([[False, True]]))
    torch.testing.assert_close(action, torch.tensor([[2.0]]))
    aggregator.reset()
    with pytest.raises(ValueError, match="no valid prediction"):
        aggregator.update(torch.ones(1, 2, 1), torch.zeros(1, 2, dtype=torch.bool))


@pytest.mark.parametrize("executor", [TemporalAggregator(4), OpenLoop(4, 2)])
def test_chunk_execution_refuses_bad_chunks_and_rows(executor: TemporalAggregator | OpenLoop):
    with pytest.raises(ValueError, match=r"shape \(B, 4, A\)"):
        executor.update(torch.rand(2, 3, 1))
    executor.update(torch.rand(2, 4, 1))
    executor.update(torch.rand(2, 4, 1))
    with pytest.raises(ValueError, match=r"rows must be in 0\.\.1"):
        executor.reset([2])
    with pytest.raises(ValueError, match="from 2 rows to 3"):
        executor.update(torch.rand(3, 4, 1))
    executor.reset()
    assert executor.update(torch.rand(3, 4, 1)).shape == (3, 1)


def test_open_loop_executes_a_part_of_each_chunk():
    executor = OpenLoop(3, 2)
    first, second = torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[[4.0], [5.0], [6.0]]])
    assert executor.needs_chunk
    assert executor.update(first).item() == 1
    assert not executor.needs_chunk
    assert executor.update(None).item() == 2
    with pytest.raises(ValueError, match="pass a new one"):
        executor.update(None)
    assert executor.update(second).item() == 4


def test_open_loop_row_restarts_alone():
    executor = OpenLoop(3)
    executor.update(torch.arange(6.0).view(2, 3, 1))
    executor.reset([1])
    assert executor.needs_chunk
    action = executor.update(torch.full((2, 3, 1), 9.0))
    assert action.flatten().tolist() == [1.0, 9.0]


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


def test_normalizer_maps_both_ways_and_keeps_constants():
    normalizer = Normalizer("actions", 3)
    assert not normalizer.is_set
    with pytest.raises(ValueError, match=r"statistics of actions are not set.*set_statistics"):
        normalizer.normalize(torch.zeros(3))
    normalizer.set_min_max(torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, 4.0, 2.0]))
    values = torch.tensor([0.5, 3.0, 2.0])
    torch.testing.assert_close(normalizer.normalize(values), torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(normalizer.denormalize(torch.tensor([0.5, 0.5, 0.7])), values)


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ((torch.zeros(2), torch.ones(2)), "must be 3 finite numbers"),
        ((torch.tensor([0.0, torch.nan, 0.0]), torch.ones(3)), "finite"),
        ((torch.ones(3), torch.zeros(3)), "exceeds its maximum"),
    ],
)
def test_bad_statistics_are_refused(statistics: tuple[Tensor, Tensor], message: str):
    with pytest.raises(ValueError, match=message):
        Normalizer("actions", 3).set_min_max(*statistics)


def tiny_policy(**changes: Any) -> BakuPolicy:
    torch.manual_seed(0)
    policy = BakuPolicy(tiny_config(**changes)).eval()
    set_policy_statistics(policy)
    policy.language_encoder = FakeLanguageEncoder()
    return policy


def observations(steps: int, batch: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    return [
        {
            "pixels": {
                camera: generator.integers(0, 256, (batch, 40, 48, 3), dtype=np.uint8) for camera in ("front", "wrist")
            },
            "agent_pos": generator.normal(size=(batch, 5)).astype(np.float32),
            "task": [f"task {'x' * row}" for row in range(batch)],
        }
        for _ in range(steps)
    ]


def row_of(observation: dict[str, Any], row: int) -> dict[str, Any]:
    return {
        "pixels": {camera: frames[row] for camera, frames in observation["pixels"].items()},
        "agent_pos": observation["agent_pos"][row],
        "task": observation["task"][row],
    }


@pytest.mark.parametrize("changes", [{"history": 3}, {"history": 2, "execution": "open_loop", "n_action_steps": 2}, {}])
def test_batch_with_restarting_rows_equals_single_episodes(changes: dict[str, Any]):
    steps = observations(6, 2)
    together, restarts = tiny_policy(**changes), {3: 1}
    actions = []
    for step, observation in enumerate(steps):
        if step in restarts:
            together.reset([restarts[step]])
        actions.append(together.select_action(observation))
    for row in range(2):
        single = tiny_policy(**changes)
        for step, observation in enumerate(steps):
            if restarts.get(step) == row:
                single.reset()
            action = single.select_action(row_of(observation, row))
            assert action.shape == (3,) and action.dtype == np.float32
            np.testing.assert_allclose(action, actions[step][row], atol=1e-4)


ACTING = [{}, {"history": 3}, {"execution": "open_loop", "n_action_steps": 2}]


@pytest.mark.parametrize("changes", ACTING)
def test_rows_that_are_not_active_are_neither_read_nor_advanced(changes: dict[str, Any]):
    steps, turns = observations(6, 3), [[0, 1, 2], [0], [2, 0], [], [1], [0, 1, 2]]
    together, taken = tiny_policy(**changes), {0: [], 1: [], 2: []}
    for observation, active in zip(steps, turns, strict=True):
        for row in {0, 1, 2} - set(active):
            observation["pixels"]["front"][row] = 255
            observation["agent_pos"][row] = np.nan
        actions = together.select_action(observation, active)
        assert actions.shape == (3, 3) and np.isfinite(actions).all()
        assert not actions[[row for row in range(3) if row not in active]].any()
        for row in active:
            taken[row].append((row_of(observation, row), actions[row]))
    for row, steps_taken in taken.items():
        single = tiny_policy(**changes)
        for observation, action in steps_taken:
            np.testing.assert_allclose(single.select_action(observation), action, atol=1e-4, err_msg=str(row))


@pytest.mark.parametrize("changes", ACTING)
def test_predicting_rows_one_by_one_gives_them_the_same_bits_in_any_company(changes: dict[str, Any]):
    steps, policies = observations(4, 3), [tiny_policy(**changes) for _ in range(2)]
    for policy in policies:
        policy.predict_in_batches(1)
    for observation in steps:
        together = policies[0].select_action(observation)
        for row in (2, 0, 1):
            np.testing.assert_array_equal(policies[1].select_action(observation, [row])[row], together[row])


def test_predictions_are_made_in_batches_of_the_given_size_filled_up_with_a_row():
    policy, batches = tiny_policy(), []
    predict = policy._predict_chunk
    policy._predict_chunk = lambda inputs: [batches.append(inputs.rows), predict(inputs)][1]
    observation = observations(1, 5)[0]
    expected = policy.select_action(observation)
    policy.reset()
    policy.predict_in_batches(2)
    np.testing.assert_allclose(policy.select_action(observation), expected, atol=1e-5)
    policy.select_action(observation, [4, 1])
    assert batches == [[0, 1, 2, 3, 4], [0, 1], [2, 3], [4, 4], [4, 1]]
    with pytest.raises(ValueError, match="acting_batch_size must be at least 1, got 0"):
        policy.predict_in_batches(0)


def test_open_loop_reads_pictures_only_where_a_chunk_is_used_up():
    policy = tiny_policy(execution="open_loop", n_action_steps=2)
    assert policy.reads_next().shape == (0,)
    observation = observations(1, 3)[0]
    policy.select_action(observation, [0, 1])
    assert policy.reads_next().tolist() == [False, False, True]
    first = policy.select_action(observation, [1, 2])
    assert policy.reads_next().tolist() == [False, True, False]
    policy.reset([2])
    assert policy.reads_next().tolist() == [False, True, True]
    # What is not read may be anything.
    observation["pixels"]["front"][0] = 0
    unread = policy.select_action(observation, [0])
    assert policy.reads_next().tolist() == [True, True, True] and not np.array_equal(unread[0], first[1])


@pytest.mark.parametrize("changes", [{}, {"execution": "open_loop", "n_action_steps": 2, "history": 2}])
def test_aggregation_and_histories_read_every_picture(changes: dict[str, Any]):
    policy = tiny_policy(**changes)
    policy.select_action(observations(1, 2)[0])
    assert policy.reads_next().tolist() == [True, True]


def test_executed_chunk_length_can_be_overruled():
    policy = tiny_policy()
    assert policy.executed_chunk_length == 1 and policy.acting_settings["execution"] == "temporal_aggregation"
    policy.execute_chunks(3)
    expected = tiny_policy(execution="open_loop", n_action_steps=3)
    for observation in observations(4, 2):
        np.testing.assert_array_equal(policy.select_action(observation), expected.select_action(observation))
    assert policy.executed_chunk_length == expected.executed_chunk_length == 3
    assert policy.acting_settings == expected.acting_settings
    policy.execute_chunks(None)
    assert policy.executed_chunk_length == 1
    with pytest.raises(ValueError, match="chunks of 4 actions, so it cannot execute 9 of each"):
        policy.execute_chunks(9)


def test_what_a_policy_takes_and_gives():
    policy = tiny_policy()
    assert (policy.cameras, policy.agent_pos_dim, policy.action_dim) == (("front", "wrist"), 5, 3)


def test_rows_outside_the_batch_are_refused():
    policy, observation = tiny_policy(), observations(1, 2)[0]
    with pytest.raises(ValueError, match=r"rows must be in 0\.\.1"):
        policy.select_action(observation, [2])
    with pytest.raises(ValueError, match=r"rows must be in 0\.\.1"):
        policy.reset([-1])
    with pytest.raises(ValueError, match="from 2 rows to 3"):
        policy.select_action(observations(1, 3)[0])
    policy.reset()
    assert policy.select_action(observations(1, 3)[0]).shape == (3, 3)


def test_first_action_is_the_first_of_the_predicted_chunk_in_environment_units():
    policy = tiny_policy()
    observation = observations(1, 2)[0]
    inputs = {
        "pixels": {
            camera: resize_frames(torch.from_numpy(frames).permute(0, 3, 1, 2), 32)
            for camera, frames in observation["pixels"].items()
        },
        "language": policy.language_encoder.encode(observation["task"]),
        "agent_pos": torch.from_numpy(observation["agent_pos"]),
    }
    with torch.no_grad():
        expected = policy(**inputs).action_mean[:, 0, 0]
    np.testing.assert_allclose(policy.select_action(observation), expected.numpy(), atol=1e-5)


def test_actions_stay_in_the_range_of_the_demonstrations():
    policy = tiny_policy(use_tanh=False)
    torch.nn.init.constant_(policy.model.action_head.output.bias, 50.0)
    action = policy.select_action(row_of(observations(1, 1)[0], 0))
    np.testing.assert_allclose(action, [1.0, 4.0, 2.0])


def test_acting_ignores_dropout_and_gives_the_mode_back():
    policy = tiny_policy(dropout=0.5).train()
    observation = observations(1, 1)[0]
    first = policy.select_action(observation)
    policy.reset()
    np.testing.assert_array_equal(policy.select_action(observation), first)
    assert policy.training


def test_loaded_policy_acts_the_same(tmp_path):
    policy = tiny_policy(history=2)
    policy.save_pretrained(tmp_path)
    loaded = BakuPolicy.from_pretrained(tmp_path)
    loaded.language_encoder = FakeLanguageEncoder()
    for observation in observations(3, 2):
        np.testing.assert_allclose(loaded.select_action(observation), policy.select_action(observation), atol=1e-5)


def without(key: str) -> Any:
    return lambda observation: observation.pop(key)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda o: o["pixels"].pop("wrist"), "lacks camera 'wrist'"),
        (without("pixels"), "lacks camera 'front'"),
        (without("agent_pos"), "lacks 'agent_pos'"),
        (without("task"), "lacks 'task'"),
        (lambda o: o.update(task=["one"]), "2 strings"),
        (lambda o: o.update(agent_pos=np.zeros((2, 4))), r"shape \(5,\) or \(B, 5\)"),
        (lambda o: o.update(agent_pos=np.zeros(5)), "batch dimension"),
        (lambda o: o.update(agent_pos=np.zeros((3, 5))), "same number of rows"),
        (lambda o: o["pixels"].update(front=np.zeros((2, 8, 8, 3))), "must be uint8"),
        (lambda o: o["pixels"].update(front=np.zeros((2, 3, 8, 8), np.uint8)), "must be uint8 of shape"),
    ],
)
def test_bad_observation_is_named(spoil: Any, message: str):
    observation = observations(1, 2)[0]
    spoil(observation)
    with pytest.raises(ValueError, match=message):
        tiny_policy().select_action(observation)


def test_policy_without_statistics_refuses_to_run():
    policy = BakuPolicy(tiny_config(proprioception_dim=None))
    policy.language_encoder = FakeLanguageEncoder()
    with pytest.raises(ValueError, match="statistics of actions are not set"):
        policy.select_action(observations(1, 1)[0])
    with pytest.raises(ValueError, match="takes no agent_pos"):
        policy.set_statistics(agent_pos=(torch.zeros(5), torch.ones(5)))


def test_language_encoder_of_another_size_is_refused():
    policy = tiny_policy()
    policy.language_encoder = FakeLanguageEncoder(dim=9)
    with pytest.raises(ValueError, match="vectors of length 9"):
        policy.select_action(observations(1, 1)[0])
