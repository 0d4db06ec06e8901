"""Checks that every model of the library passes; a model's tests inherit them for a few lines of tiny configuration.

Example:
    class TestHNetModel(ModelTesterMixin):
        model_class = HNetModel

        def make_config(self) -> HNetConfig:
            return HNetConfig(...)

        def make_inputs(self) -> dict[str, Any]:
            return {"hidden_states": torch.randn(2, 12, 32)}
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput


class ModelTesterMixin:
    """Save and load, determinism, gradients, bfloat16 and Auto-class checks for one `PreTrainedModel`.

    Class attributes:
        model_class: The model under test.
        auto_class: The Auto class that must build it from its configuration.
        no_gradient: Prefixes of parameter names that get no gradient by design (frozen parts).
    """

    model_class: type[PreTrainedModel]
    auto_class: type = AutoModel
    no_gradient: tuple[str, ...] = ()

    def make_config(self) -> PreTrainedConfig:
        """A tiny configuration."""
        raise NotImplementedError

    def make_inputs(self) -> dict[str, Any]:
        """Keyword arguments of `forward` for a tiny batch; called under a fixed seed."""
        raise NotImplementedError

    def prepare_model(self, model: PreTrainedModel) -> None:
        """Whatever a fresh model needs before `forward`, such as statistics of the data."""

    def loss_of(self, outputs: ModelOutput) -> Tensor:
        """A scalar that depends on every trainable parameter; the output's `loss` where it has one."""
        loss = getattr(outputs, "loss", None)
        return outputs[0].float().square().mean() if loss is None else loss

    @pytest.fixture
    def model(self) -> PreTrainedModel:
        torch.manual_seed(0)
        model = self.model_class(self.make_config())
        self.prepare_model(model)
        return model.eval()

    @pytest.fixture
    def inputs(self) -> dict[str, Any]:
        torch.manual_seed(1)
        return self.make_inputs()

    def test_save_and_load_give_equal_outputs(
        self, model: PreTrainedModel, inputs: dict[str, Any], tmp_path: Path
    ) -> None:
        model.save_pretrained(tmp_path)
        assert list(tmp_path.glob("*.safetensors"))
        # safetensors' own would be readable by nobody else.
        (tmp_path / "new").touch()
        assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
        loaded, report = self.model_class.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(report.values()), report
        assert architecture_of(loaded.config.to_dict()) == architecture_of(model.config.to_dict())
        assert_equal(run(model, inputs), run(loaded.eval(), inputs))

    def test_same_seed_gives_equal_outputs(self, model: PreTrainedModel, inputs: dict[str, Any]) -> None:
        assert_equal(run(model, inputs), run(model, inputs))

    def test_gradients_reach_every_parameter(self, model: PreTrainedModel, inputs: dict[str, Any]) -> None:
        model.train()
        self.loss_of(model(**inputs)).backward()
        for name, parameter in model.named_parameters():
            if name.startswith(self.no_gradient):
                assert parameter.grad is None, f"{name} should be frozen"
                continue
            assert parameter.grad is not None, f"no gradient at {name}"
            assert torch.isfinite(parameter.grad).all(), f"gradient at {name} is not finite"
            assert parameter.grad.abs().sum() > 0, f"gradient at {name} is zero"

    def test_bfloat16_forward_is_finite(self, model: PreTrainedModel, inputs: dict[str, Any]) -> None:
        expected = run(model, inputs)
        outputs = run(model.to(torch.bfloat16), {name: to_bfloat16(value) for name, value in inputs.items()})
        for value, reference in zip(outputs, expected, strict=True):
            assert torch.isfinite(value).all() or not torch.isfinite(reference).all()

    @pytest.mark.parametrize("scale", [255, torch.nan])
    def test_frames_are_finite_and_in_range(self, model: PreTrainedModel, inputs: dict[str, Any], scale: float) -> None:
        for name in {"frames", "next_frames"} & set(inputs):
            with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
                model(**{**inputs, name: inputs[name] * scale})

    def test_latents_to_predict_from_are_finite(self, model: PreTrainedModel, inputs: dict[str, Any]) -> None:
        if hasattr(model, "predict"):
            width = getattr(model.config, "vector_dim", model.config.latent_dim)
            with pytest.raises(ValueError, match="latents: got NaN or infinite values"):
                model.predict(inputs["frames"], torch.full((len(inputs["frames"]), width), torch.nan))

    def test_auto_class_builds_it(self) -> None:
        importlib.import_module("hilam_hf.models.registration")
        assert type(self.auto_class.from_config(self.make_config())) is self.model_class


def architecture_of(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration dictionary without what saving adds: the dtype and the names of class, version and folder."""
    added = ("dtype", "architectures", "transformers_version", "_name_or_path")
    return {
        key: architecture_of(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in added
    }


def run(model: PreTrainedModel, inputs: dict[str, Any]) -> list[Tensor]:
    """All tensors of the model's output, in order, computed without gradients under a fixed seed."""
    torch.manual_seed(2)
    with torch.no_grad():
        return tensors_of(model(**inputs))


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors in nested outputs, depth first."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, ModelOutput):
        value = value.to_tuple()
    return [tensor for item in value for tensor in tensors_of(item)] if isinstance(value, (tuple, list)) else []


def assert_equal(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Asserts bitwise equality of two lists of tensors; NaN equals NaN."""
    assert len(actual) == len(expected) > 0
    for left, right in zip(actual, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)


def to_bfloat16(value: Any) -> Any:
    """Casts floating-point tensors, and leaves anything else as it is."""
    return value.to(torch.bfloat16) if isinstance(value, Tensor) and value.is_floating_point() else value


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
