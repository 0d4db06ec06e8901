"""UniSkill's inverse dynamics model and the regression forward dynamics model."""

from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import (
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
)
from transformers.utils import ModelOutput

from hilam_hf.models.latent_actions import RegressionFDMConfig
from hilam_hf.models.latent_actions.auto import AutoForwardDynamicsModel, AutoInverseDynamicsModel
from hilam_hf.models.latent_actions.modeling_regression_fdm import RegressionFDM
from hilam_hf.models.uniskill.configuration_uniskill import UniSkillIDMConfig
from hilam_hf.models.uniskill.modeling_uniskill_idm import UniSkillIDM
from tests.models.mixins import ModelTesterMixin

SIZE, LATENT = 16, 6
TINY = {"image_size": SIZE, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
RESNET = {"layer_type": "basic", "embedding_size": 8, "hidden_sizes": [8, 8, 16, 24], "depths": [1, 1, 1, 1]}
# What a token is made of: the four that there are. No test runs the depth network; they give depth maps.
STREAMS: dict[str, dict[str, Any]] = {
    "patches": {},
    "patches and depth": {"depth_model": "absent/depth"},
    "resnet": {"backbone_config": RESNET},
    "resnet and depth": {"backbone_config": RESNET, "depth_model": "absent/depth"},
}


def tiny_idm(**changes: Any) -> UniSkillIDM:
    torch.manual_seed(0)
    return UniSkillIDM(UniSkillIDMConfig.preset("light", latent_dim=LATENT, **TINY | changes)).eval()


def with_depth(frames: Tensor) -> Tensor:
    """Stands in for a depth network: another map for each frame."""
    return frames.square().mean(1)


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


class TestUniSkillIDMWithResNet(TestUniSkillIDM):
    def make_config(self) -> UniSkillIDMConfig:
        return tiny_idm(**STREAMS["resnet"]).config


class TestUniSkillIDMWithResNetAndDepth(TestUniSkillIDM):
    def make_config(self) -> UniSkillIDMConfig:
        return tiny_idm(**STREAMS["resnet and depth"]).config

    def make_inputs(self) -> dict[str, Any]:
        return super().make_inputs() | {"depth": torch.rand(3, SIZE, SIZE), "next_depth": torch.rand(3, SIZE, SIZE)}


class TestUniSkillIDMWithPatchesAndDepth(TestUniSkillIDMWithResNetAndDepth):
    def make_config(self) -> UniSkillIDMConfig:
        return tiny_idm(**STREAMS["patches and depth"]).config


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


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_encode_video_equals_encoding_every_pair(
    streams: str, stride: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    idm, frames = tiny_idm(**STREAMS[streams]), torch.rand(9, 3, SIZE, SIZE)
    if idm.depth_network is not None:
        monkeypatch.setattr(idm, "depth_network", with_depth)
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


def test_the_light_preset_gives_the_numbers_that_it_always_gave() -> None:
    torch.manual_seed(0)
    idm = UniSkillIDM(UniSkillIDMConfig.preset("light")).eval()
    frames, next_frames = ((torch.arange(2 * 3 * 64 * 64) * 7919 % 256).view(2, 1, 3, 64, 64) / 255).float()
    with torch.no_grad():
        latents = idm.encode(frames, next_frames)
    expected = torch.tensor([[-1.599539, 1.871554, -0.016150, -0.693421]])
    torch.testing.assert_close(latents[:, :4], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(latents.abs().sum(), torch.tensor(51.136124), rtol=0, atol=1e-3)
    assert sum(parameter.numel() for parameter in idm.parameters()) == 1_116_480


@pytest.mark.parametrize(("name", "millions"), [("published", 20.0), ("small", 1.8), ("light", 1.1)])
def test_presets_have_the_sizes_that_they_say(name: str, millions: float) -> None:
    with torch.device("meta"):
        idm = UniSkillIDM(UniSkillIDMConfig.preset(name))
    assert round(sum(parameter.numel() for parameter in idm.parameters()) / 1e6, 1) == millions
    assert UniSkillIDMConfig.preset("published").to_dict() == UniSkillIDMConfig().to_dict()
    assert UniSkillIDMConfig.preset(name, latent_dim=5).latent_dim == 5


def test_configurations_share_no_lists() -> None:
    UniSkillIDMConfig().backbone_config.hidden_sizes[0] = 1
    UniSkillIDMConfig.preset("small").backbone_config.depths[0] = 1
    assert UniSkillIDMConfig().backbone_config.hidden_sizes[0] == 64
    assert UniSkillIDMConfig.preset("small").backbone_config.depths[0] == 2


def test_the_latent_depends_on_depth_but_not_on_its_scale() -> None:
    idm = tiny_idm(**STREAMS["resnet and depth"])
    frames, next_frames = torch.rand(2, 2, 3, SIZE, SIZE)
    depth, next_depth, other = torch.rand(3, 2, SIZE, SIZE)
    latents = idm(frames, next_frames, depth, next_depth).latents
    assert not torch.allclose(latents, idm(frames, next_frames, depth, other).latents, atol=1e-4)
    rescaled = idm(frames, next_frames, 3 * depth - 40, next_depth / 7).latents
    torch.testing.assert_close(rescaled, latents, rtol=0, atol=1e-3)


def test_the_published_size_starts_as_published_and_narrow_ones_from_their_fan_in() -> None:
    """Weights of N(0, s^2) have a deviation of s, within s / sqrt(2 n) for n of them."""
    published = tiny_idm(**STREAMS["resnet"], linear_initializer_range=UniSkillIDMConfig().linear_initializer_range)
    for idm, expected in ((published, lambda layer: 0.02), (tiny_idm(), lambda layer: layer.in_features**-0.5)):
        layers = [module for module in idm.blocks.modules() if isinstance(module, torch.nn.Linear)]
        assert len(layers) > 5
        for layer in layers:
            tolerance = 5 / (2 * layer.weight.numel()) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected(layer), rel=tolerance)
            assert not layer.bias.any()


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_frames_with_constant_depth_give_finite_latents(streams: str, value: float) -> None:
    idm = tiny_idm(**STREAMS[streams]).train()
    frames = torch.full((2, 3, SIZE, SIZE), value)
    depth = torch.full((2, SIZE, SIZE), 7.5) if idm.depth_network is not None else None
    latents = idm(frames, frames, depth, depth).latents
    latents.sum().backward()
    assert torch.isfinite(latents).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in idm.parameters())


def test_nan_in_a_depth_map_stays_with_its_frame() -> None:
    idm = tiny_idm(**STREAMS["resnet and depth"])
    frames, depth = torch.rand(3, 3, SIZE, SIZE), torch.rand(3, SIZE, SIZE)
    expected = idm.extract_features(frames, depth)
    depth[1, 0, 0] = torch.nan
    features = idm.extract_features(frames, depth)
    assert features[1].isnan().all()
    torch.testing.assert_close(features[[0, 2]], expected[[0, 2]])


def test_batch_norm_sees_both_frames_of_every_pair_at_once() -> None:
    idm = tiny_idm(**STREAMS["resnet"]).train()
    frames, next_frames = torch.rand(3, 3, SIZE, SIZE), torch.rand(3, 3, SIZE, SIZE)
    idm(frames, next_frames)
    norm = idm.backbone.embedder.embedder
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    maps = norm.convolution((torch.cat([frames, next_frames]) - mean) / std)
    assert norm.normalization.num_batches_tracked == 1
    torch.testing.assert_close(norm.normalization.running_mean, 0.1 * maps.mean((0, 2, 3)), rtol=0, atol=1e-6)


def test_the_resnet_starts_from_published_weights(tmp_path: Any) -> None:
    torch.manual_seed(3)
    resnet = ResNetForImageClassification(ResNetConfig(**RESNET, num_labels=7)).eval()
    for norm in (module for module in resnet.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    resnet.save_pretrained(tmp_path)
    options = {**TINY, "depth_model": None, "latent_dim": LATENT}
    idm = UniSkillIDM.from_resnet(str(tmp_path), **options)
    assert (
        idm.config.to_dict()
        == tiny_idm(**STREAMS["resnet"], initializer_range=0.0, linear_initializer_range=0.02).config.to_dict()
    )
    pixels = torch.randn(2, 3, SIZE, SIZE)
    torch.testing.assert_close(idm.backbone(pixels).last_hidden_state, resnet.resnet(pixels).last_hidden_state)
    assert all(parameter.requires_grad for parameter in idm.parameters())
    assert not idm.training


def test_what_is_no_resnet_is_refused(tmp_path: Any) -> None:
    with pytest.raises(
        OSError, match=r"RGB backbone 'absent/resnet' cannot be loaded.*give that folder as name_or_path"
    ):
        UniSkillIDM.from_resnet("absent/resnet")
    Dinov2Model(Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(tmp_path)
    with pytest.raises((OSError, ValueError), match=r"expected a whole ResNet|cannot be loaded"):
        UniSkillIDM.from_resnet(str(tmp_path))


def test_depth_is_only_taken_where_it_fits() -> None:
    idm, frames = tiny_idm(**STREAMS["resnet and depth"]), torch.rand(2, 3, SIZE, SIZE)
    depth = torch.rand(2, SIZE, SIZE)
    with pytest.raises(ValueError, match="expected both or none"):
        idm(frames, frames, depth)
    for wrong in (depth[:, None], depth[:1], depth[:, :8], depth.int()):
        with pytest.raises(ValueError, match=r"depth: got .*expected \(2, 16, 16\) of floats"):
            idm.extract_features(frames, wrong)
    with pytest.raises(ValueError, match="this model has no depth stream"):
        tiny_idm().extract_features(frames, depth)
    with pytest.raises(
        OSError, match=r"depth network 'absent/depth' cannot be loaded.*give that folder as depth_model"
    ):
        idm.encode(frames, frames)


@pytest.mark.parametrize("streams", ["patches", "resnet"])
@pytest.mark.parametrize("value", [255.0, -1.0, float("nan"), float("inf")])
def test_values_outside_the_range_are_refused(streams: str, value: float) -> None:
    frames = torch.rand(2, 3, SIZE, SIZE)
    frames[1, 2, 3, 4] = value
    with pytest.raises(ValueError, match=r"frames: got float values from .*expected \[0, 1\]"):
        tiny_idm(**STREAMS[streams]).encode(frames, frames)


def test_the_latent_depends_on_both_frames_and_their_order() -> None:
    idm = tiny_idm()
    first, second, third = torch.rand(3, 1, 3, SIZE, SIZE)
    latent = idm.encode(first, second)
    assert not torch.allclose(latent, idm.encode(third, second), atol=1e-5)
    assert not torch.allclose(latent, idm.encode(first, third), atol=1e-5)
    assert not torch.allclose(latent, idm.encode(second, first), atol=1e-5)


@pytest.mark.parametrize("streams", ["patches", "resnet"])
def test_eager_and_sdpa_attention_agree(streams: str) -> None:
    idm, frames = tiny_idm(**STREAMS[streams]), torch.rand(2, 4, 3, SIZE, SIZE)
    idm.set_attn_implementation("sdpa")
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
    with pytest.raises(StrictDataclassError, match="num_hidden_layers: got 0, expected 1 or more"):
        UniSkillIDMConfig(num_hidden_layers=0)
    with pytest.raises(StrictDataclassError, match="num_channels: got 1 and 3 in backbone_config"):
        UniSkillIDMConfig(num_channels=1)
    with pytest.raises(StrictDataclassError, match="depth_model: got ''"):
        UniSkillIDMConfig(depth_model="")
    with pytest.raises(ValueError, match="got model_type 'vit', expected 'resnet'"):
        UniSkillIDMConfig(backbone_config={"model_type": "vit"})
    with pytest.raises(ValueError, match="preset: got 'big', expected one of"):
        UniSkillIDMConfig.preset("big")
    with pytest.raises(ValueError, match="must have the same shape"):
        tiny_idm()(frames, frames[:2])
    with pytest.raises(StrictDataclassError, match="twice patch_size"):
        RegressionFDMConfig(image_size=36, patch_size=4)
