"""Learning rates: transformers' schedules, and stages of the H-Net that learn faster than others."""

import math
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel
from hilam_hf.training import Callback, TrainingConfig, TrainingState, train
from hilam_hf.training.hilam.train import HiLAMTrainingConfig, stage_multiplier
from hilam_hf.training.optimization import checkpoint_activations, make_optimizer
from tests.training.runs import Points, make_line, options

CLOSED_FORMS: dict[str, Any] = {
    "constant_with_warmup": lambda step: 1.0,
    "cosine": lambda step: 0.5 * (1 + math.cos(math.pi * (step - 2) / 8)),
    "linear": lambda step: (10 - step) / 8,
    # The decay takes a fifth of the steps, 2, and follows 1 - sqrt, as in H-Net's training.
    "warmup_stable_decay": lambda step: 1.0 if step < 8 else 1 - math.sqrt((step - 8) / 2),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_schedules_against_their_closed_forms(name: str) -> None:
    factor = options(max_steps=10, warmup_steps=2, schedule=name).learning_rate_schedule()
    expected = [step / 2 if step < 2 else CLOSED_FORMS[name](step) for step in range(10)]
    assert [factor(step) for step in range(10)] == pytest.approx(expected)


def test_a_schedules_own_options_are_passed_on_and_wrong_ones_named() -> None:
    lowest = options(max_steps=10, schedule="cosine_with_min_lr", schedule_options={"min_lr_rate": 0.25})
    assert lowest.learning_rate_schedule()(10) == pytest.approx(0.25)
    decay = options(max_steps=10, schedule="warmup_stable_decay", schedule_options={"num_decay_steps": 5})
    assert [decay.learning_rate_schedule()(step) for step in (4, 5)] == [1, 1]
    assert decay.learning_rate_schedule()(6) < 1
    with pytest.raises(ValueError, match=r"schedule=linear with schedule_options=.*num_cycles"):
        options(schedule="linear", schedule_options={"num_cycles": 2})


def test_the_rate_is_that_of_the_schedule_at_every_step() -> None:
    class Rates(Callback):
        seen: list[float] = []  # noqa: RUF012 - of one run

        def on_step_end(self, state: TrainingState) -> None:
            self.seen.append(state.optimizer.param_groups[0]["lr"])

    config = options(schedule="linear", warmup_steps=2)
    train(make_line(), Points(), config, callbacks=[Rates()])
    assert Rates.seen == pytest.approx([0.05 * config.learning_rate_schedule()(step) for step in range(12)])


def test_vectors_are_not_decayed_and_rates_follow_the_multiplier() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2, bias=False))
    model[2].requires_grad_(False)
    config = TrainingConfig(weight_decay=0.3)
    groups = make_optimizer(model, config, lambda name: 2.0 if name.startswith("0") else 1.0).param_groups
    told = {(group["rate_multiplier"], group["weight_decay"]): group["params"] for group in groups}
    assert {key: [tuple(each.shape) for each in group] for key, group in told.items()} == {
        (2.0, 0.3): [(2, 3)],
        (2.0, 0.0): [(2,)],
        (1.0, 0.0): [(2,), (2,)],
    }


def test_stages_of_the_h_net_have_rates_of_their_own() -> None:
    model = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=4))
    multiplier = stage_multiplier(model, [3.0, 1.7, 0.9])
    rates = {name: multiplier(name) for name, _ in model.named_parameters()}
    assert rates["input_proj.weight"] == rates["hnet.encoder.layers.0.mixer.Wqkv.weight"] == 3.0
    assert rates["hnet.routing_module.q_proj_layer.weight"] == rates["output_proj.bias"] == 3.0
    assert rates["hnet.main_network.encoder.layers.0.mixer.Wqkv.weight"] == 1.7
    assert rates["hnet.main_network.decoder.rmsnorm.weight"] == rates["hnet.main_network.residual_proj.bias"] == 1.7
    assert rates["hnet.main_network.main_network.main_network.layers.0.norm1.weight"] == 0.9
    with pytest.raises(ValueError, match="stage_rates: got 2, expected 3"):
        stage_multiplier(model, [3.0, 1.0])
    for wrong in ([1.0, 0.0], ["fast"]):
        with pytest.raises(ValueError, match="stage_rates must be numbers above 0"):
            HiLAMTrainingConfig(stage_rates=wrong)  # type: ignore[arg-type]


def test_activations_are_computed_again_where_a_model_can(tmp_path: Path) -> None:
    model = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=4))
    checkpoint_activations(model)
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    with pytest.raises(ValueError, match="no part of Line can"):
        train(make_line(), Points(), options(gradient_checkpointing=True), output_dir=tmp_path)
