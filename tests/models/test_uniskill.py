"""UniSkill's inverse dynamics model and the regression forward dynamics model."""

from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import AutoImageProcessor, PreTrainedModel
from transformers.utils import ModelOutput

from hilam_hf import (
    AutoForwardDynamicsModel,
    AutoInverseDynamicsModel,
    RegressionFDM,
    RegressionFDMConfig,
    UniSkillIDM,
    UniSkillIDMConfig,
    UniSkillImageProcessorPil,
)
from tests.models.mixins import ModelTesterMixin

SIZE, LATENT = 16, 6


def tiny_idm(**changes: Any) -> UniSkillIDM:
    torch.manual_seed(0)
    options = {"image_size": SIZE, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return UniSkillIDM(UniSkillIDMConfig(latent_dim=LATENT, **options | changes)).eval()


def tiny_fdm(**changes: Any) -> RegressionFDM:
    torch.manual_seed(0)
    options = {"latent_dim": LATENT, "image_size": SIZE, "patch_size": 4, "hidden_size": 8, "num_blocks": 1}
    return RegressionFDM(RegressionFDMConfig(**options | changes)).eval()


class TestUniSkillIDM(ModelTesterMixin):
    model_class = UniSkillIDM
    auto_class = AutoInverseDynamicsModel

    def make_config(self) -> UniSkillIDMConfig:
        return tiny_idm().config

    def make_inputs(self) -> dict[str, Any]:
        return {"frames": torch.rand(3, 3, SIZE, SIZE), "next_frames": torch.rand(3, 3, SIZE, SIZE)}

    def loss_of(self, outputs: ModelOutput) -> Tensor:
        return outputs.latents.square().sum()


class TestRegressionFDM(ModelTesterMixin):
    model_class = RegressionFDM
    auto_class = AutoForwardDynamicsModel

    def make_config(self) -> RegressionFDMConfig:
        return tiny_fdm().config

    def make_inputs(self) -> dict[str, Any]:
        return {
            "frames": torch.rand(3, 3, SIZE, SIZE),
            "latents": torch.randn(3, LATENT),
            "next_frames": torch.rand(3, 3, SIZE, SIZE),
        }

    def prepare_model(self, model: PreTrainedModel) -> None:
        # At its zero start nothing before the last convolution gets a gradient.
        torch.nn.init.normal_(model.out_conv.weight, std=0.1)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_encode_video_equals_encoding_every_pair(stride: int, batch_size: int) -> None:
    idm, frames = tiny_idm(), torch.rand(9, 3, SIZE, SIZE)
    with torch.no_grad():
        pairs = [idm.encode(frames[t : t + 1], frames[t + stride : t + stride + 1]) for t in range(9 - stride)]
    video = idm.encode_video(frames, stride, batch_size)
    torch.testing.assert_close(video, torch.cat(pairs), rtol=0, atol=1e-5)


def test_encode_video_computes_the_features_of_each_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    idm, seen = tiny_idm(), []
    extract = idm.extract_features
    monkeypatch.setattr(idm, "extract_features", lambda frames: (seen.append(len(frames)), extract(frames))[1])
    idm.encode_video(torch.rand(20, 3, SIZE, SIZE), stride=2, batch_size=8)
    assert sum(seen) == 20


def test_the_latent_depends_on_both_frames_and_their_order() -> None:
    idm = tiny_idm()
    first, second, third = torch.rand(3, 1, 3, SIZE, SIZE)
    latent = idm.encode(first, second)
    assert not torch.allclose(latent, idm.encode(third, second), atol=1e-5)
    assert not torch.allclose(latent, idm.encode(first, third), atol=1e-5)
    assert not torch.allclose(latent, idm.encode(second, first), atol=1e-5)


def test_eager_and_sdpa_attention_agree() -> None:
    idm, frames = tiny_idm(), torch.rand(2, 4, 3, SIZE, SIZE)
    fast = idm.encode(*frames)
    idm.set_attn_implementation("eager")
    torch.testing.assert_close(idm.encode(*frames), fast, rtol=0, atol=1e-6)


def test_the_first_frames_tokens_do_not_see_the_second_frame() -> None:
    idm, (first, second, third) = tiny_idm(), torch.rand(3, 1, 3, SIZE, SIZE)
    states = [idm(first, other).last_hidden_state for other in (second, third)]
    torch.testing.assert_close(states[0][:, 0], states[1][:, 0])
    assert not torch.allclose(states[0][:, 1], states[1][:, 1], atol=1e-5)


def test_an_untrained_forward_model_copies_the_frame() -> None:
    fdm, frames = tiny_fdm(), torch.rand(2, 3, SIZE, SIZE)
    torch.testing.assert_close(fdm.predict(frames, torch.randn(2, LATENT)), frames, rtol=0, atol=0)


def test_the_loss_is_the_squared_error_relative_to_copying() -> None:
    fdm = tiny_fdm()
    torch.nn.init.normal_(fdm.out_conv.weight, std=0.05)
    frames, next_frames, latents = torch.rand(4, 3, SIZE, SIZE), torch.rand(4, 3, SIZE, SIZE), torch.randn(4, LATENT)
    predictions = fdm(frames, latents).predictions
    expected = (predictions - next_frames).square().sum() / (frames - next_frames).square().sum()
    torch.testing.assert_close(fdm.loss(frames, latents, next_frames), expected, rtol=1e-4, atol=0)


def test_the_loss_is_finite_where_nothing_moves() -> None:
    fdm, frames = tiny_fdm(), torch.rand(2, 3, SIZE, SIZE)
    assert fdm.loss(frames, torch.randn(2, LATENT), frames) == 0
    torch.nn.init.normal_(fdm.out_conv.weight, std=0.05)
    assert torch.isfinite(fdm.loss(frames, torch.randn(2, LATENT), frames))


def test_the_processor_squashes_and_scales(tmp_path: Any) -> None:
    processor = UniSkillImageProcessorPil(size={"height": 4, "width": 4})
    image = torch.zeros(3, 8, 16, dtype=torch.uint8)
    image[0, :, 8:] = 255
    pixels = processor([image], return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 4, 4)
    torch.testing.assert_close(pixels[0, 0, :, 0], torch.zeros(4), rtol=0, atol=0.1)
    torch.testing.assert_close(pixels[0, 0, :, 3], torch.ones(4), rtol=0, atol=0.1)
    tiny_idm().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded([image], return_tensors="pt")["pixel_values"], pixels)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8), "divide 8-bit frames by 255"),
        (torch.zeros(1, 3, 8, 8), r"\(B, 3, 16, 16\)"),
        (torch.zeros(3, SIZE, SIZE), "must have shape"),
        (torch.zeros(1, 1, SIZE, SIZE), "must have shape"),
    ],
)
def test_wrong_frames_are_refused(frames: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_idm().encode(frames, frames)
    with pytest.raises(ValueError, match=message):
        tiny_fdm().predict(frames, torch.zeros(1, LATENT))


def test_other_bad_input_is_refused() -> None:
    frames = torch.rand(3, 3, SIZE, SIZE)
    with pytest.raises(ValueError, match="no pair of frames 3 apart"):
        tiny_idm().encode_video(frames, stride=3)
    with pytest.raises(ValueError, match="stride must be at least 1"):
        tiny_idm().encode_video(frames, stride=0)
    with pytest.raises(ValueError, match="must have the same shape"):
        tiny_idm().encode(frames, frames[:2])
    with pytest.raises(ValueError, match=r"latents must have shape \(3, 6\)"):
        tiny_fdm().predict(frames, torch.zeros(3, LATENT + 1))
    with pytest.raises(StrictDataclassError, match="patch_size that divides"):
        UniSkillIDMConfig(image_size=30, patch_size=8)
    with pytest.raises(StrictDataclassError, match="multiple of num_attention_heads"):
        UniSkillIDMConfig(hidden_size=30, num_attention_heads=4)
    with pytest.raises(StrictDataclassError, match="twice patch_size"):
        RegressionFDMConfig(image_size=36, patch_size=4)
