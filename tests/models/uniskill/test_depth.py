"""Depth for UniSkill's inverse dynamics model, with a tiny Depth Anything model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from hilam_hf.models.processing import SquareImageProcessorPil
from hilam_hf.models.uniskill.configuration_uniskill import UniSkillIDMConfig
from hilam_hf.models.uniskill.depth import DepthNetwork, DepthPreprocessing, depth_patches, resize_depth, scale_depth
from hilam_hf.models.uniskill.modeling_uniskill_idm import UniSkillIDM

SIZE = 32
# Depth Anything's settings, but for the size (518).
SETTINGS: dict[str, Any] = {
    "size": {"height": 56, "width": 56},
    "ensure_multiple_of": 14,
    "keep_aspect_ratio": True,
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def make_network() -> DepthAnythingForDepthEstimation:
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone.to_dict(),
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    torch.manual_seed(0)
    model = DepthAnythingForDepthEstimation(config)
    for parameter in model.parameters():
        # As it is initialised, depth is almost the same everywhere.
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.constant_(model.head.conv3.bias, 1.0)
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    make_network().save_pretrained(tmp_path / "depth")
    DPTImageProcessorPil(**SETTINGS).save_pretrained(tmp_path / "depth")
    return str(tmp_path / "depth")


def pictures(count: int, height: int = SIZE, width: int = SIZE) -> Tensor:
    """Frames in 8 bits with smooth and with sharp parts."""
    smooth = F.interpolate(torch.rand(count, 3, 5, 5), size=(height, width), mode="bilinear")
    smooth[..., height // 2 :, :] = torch.rand(count, 3, height - height // 2, width)
    return (smooth * 255).round().to(torch.uint8)


def tiny_idm(**changes: Any) -> UniSkillIDM:
    options = {"image_size": SIZE, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "latent_dim": 4}
    torch.manual_seed(0)
    return UniSkillIDM(UniSkillIDMConfig.preset("small", **options | changes)).eval()


@pytest.mark.parametrize("changes", [{}, {"resample": 2}, {"keep_aspect_ratio": False}, {"do_normalize": False}])
@pytest.mark.parametrize("shape", [(SIZE, SIZE), (56, 56), (224, 224), (48, 80), (90, 40)])
def test_preprocessing_is_that_of_the_image_processor(shape: tuple[int, int], changes: dict[str, Any]) -> None:
    processor, frames = DPTImageProcessorPil(**SETTINGS | changes), pictures(2, *shape)
    expected = torch.as_tensor(processor(list(frames), return_tensors="pt")["pixel_values"])
    actual = DepthPreprocessing.from_processor(processor)(frames / 255)
    assert actual.shape == expected.shape
    std = 1 if changes.get("do_normalize") is False else torch.tensor(SETTINGS["image_std"])[:, None, None]
    steps = ((actual - expected) * std * 255).abs()
    assert steps.max() < 2.01
    # Bilinear weights at these simple ratios leave many values halfway between two steps.
    assert (steps > 0.5).float().mean() < (0.15 if "resample" in changes else 0.02)


def test_frames_keep_their_size_where_the_processor_says_so() -> None:
    processor, frames = DPTImageProcessorPil(**SETTINGS, do_resize=False), torch.rand(1, 3, 20, 30)
    pixels = DepthPreprocessing.from_processor(processor)(frames)
    std, mean = torch.tensor(SETTINGS["image_std"]), torch.tensor(SETTINGS["image_mean"])
    torch.testing.assert_close(pixels, (frames - mean[:, None, None]) / std[:, None, None])


def test_the_published_settings_turn_224_pixels_into_518() -> None:
    settings = SETTINGS | {"size": {"height": 518, "width": 518}}
    preprocessing = DepthPreprocessing.from_processor(DPTImageProcessorPil(**settings))
    assert preprocessing.target_size(224, 224) == (518, 518)
    # 518 / 480 changes the size less than 518 / 640, and 640 * 518 / 480 = 690.7 is nearest to 49 * 14.
    assert preprocessing.target_size(480, 640) == (518, 686)


def test_maps_are_those_of_the_processor_and_the_network(folder: str) -> None:
    frames = pictures(5)
    network = make_network()
    pixels = DPTImageProcessorPil(**SETTINGS)(list(frames), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        raw = network(pixel_values=torch.as_tensor(pixels)).predicted_depth
    assert raw.std(dim=(1, 2)).min() > 0.01
    least, largest = raw.amin((1, 2), keepdim=True), raw.amax((1, 2), keepdim=True)
    expected = F.interpolate(((raw - least) / (largest - least))[:, None], size=(SIZE, SIZE), mode="bilinear")[:, 0]
    maps = DepthNetwork(folder, SIZE)(frames / 255)
    assert maps.shape == (5, SIZE, SIZE)
    torch.testing.assert_close(maps, expected, rtol=0, atol=0.03)


def test_batches_are_bounded_and_change_nothing(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.rand(5, 3, SIZE, SIZE)
    expected = DepthNetwork(folder, SIZE, batch_size=5)(frames)
    network, seen = DepthNetwork(folder, SIZE, batch_size=2), []
    maps_of = network._maps
    monkeypatch.setattr(network, "_maps", lambda model, part: (seen.append(len(part)), maps_of(model, part))[1])
    torch.testing.assert_close(network(frames), expected, rtol=0, atol=1e-5)
    assert seen == [2, 2, 1]
    assert network(frames[:0]).shape == (0, SIZE, SIZE)


def test_the_network_is_frozen_shared_and_in_no_checkpoint(folder: str, tmp_path: Path) -> None:
    idm = tiny_idm(depth_model=folder)
    frames = torch.rand(4, 3, SIZE, SIZE)
    idm.train().encode(frames[:2], frames[2:]).sum().backward()
    network = idm.depth_network.network.on(torch.device("cpu"))
    assert network is tiny_idm(depth_model=folder).depth_network.network.on(torch.device("cpu"))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    names = idm.state_dict().keys()
    assert not any(name.startswith(("depth_network", "pixel_")) for name in names)
    idm.save_pretrained(tmp_path / "idm")
    assert sorted(path.name for path in (tmp_path / "idm").iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]


def test_a_video_gets_the_depth_of_each_frame(folder: str, tmp_path: Path) -> None:
    idm, frames = tiny_idm(depth_model=folder, depth_batch_size=3), torch.rand(7, 3, SIZE, SIZE)
    maps = DepthNetwork(folder, SIZE)(frames)
    with torch.no_grad():
        expected = idm(frames[:-2], frames[2:], maps[:-2], maps[2:]).latents
        assert not torch.allclose(idm(frames[:-2], frames[2:], maps[2:], maps[:-2]).latents, expected, atol=1e-3)
    torch.testing.assert_close(idm.encode_video(frames, stride=2, batch_size=4), expected, rtol=0, atol=1e-4)


def test_another_folder_can_be_given_when_a_checkpoint_is_loaded(folder: str, tmp_path: Path) -> None:
    idm, frames = tiny_idm(depth_model="absent/depth"), torch.rand(4, 3, SIZE, SIZE)
    idm.save_pretrained(tmp_path / "idm")
    loaded = UniSkillIDM.from_pretrained(tmp_path / "idm")
    with pytest.raises(OSError, match="'absent/depth' cannot be loaded") as caught:
        loaded.encode(frames[:2], frames[2:])
    assert "\n" not in str(caught.value)
    assert "hf download absent/depth --local-dir FOLDER" in str(caught.value)
    loaded = UniSkillIDM.from_pretrained(tmp_path / "idm", depth_model=folder)
    idm.depth_network = DepthNetwork(folder, SIZE)
    assert torch.equal(loaded.encode(frames[:2], frames[2:]), idm.encode(frames[:2], frames[2:]))
    with pytest.raises((RuntimeError, ValueError)):
        UniSkillIDM.from_pretrained(tmp_path / "idm", depth_model=None)


def test_half_precision_keeps_the_scale_of_depth(folder: str) -> None:
    frames = pictures(2) / 255
    network = DepthNetwork(folder, SIZE)
    maps = network(frames.to(torch.bfloat16))
    assert maps.dtype == torch.bfloat16
    assert torch.isfinite(maps).all()
    torch.testing.assert_close(maps.float(), network(frames), rtol=0, atol=0.2)


def test_an_image_processor_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="got a SquareImageProcessorPil with resample"):
        DepthPreprocessing.from_processor(SquareImageProcessorPil(size={"height": 8, "width": 8}))
    with pytest.raises(ValueError, match="resample 0, expected a DPTImageProcessor"):
        DepthPreprocessing.from_processor(DPTImageProcessorPil(**SETTINGS | {"resample": 0}))
    with pytest.raises(ValueError, match="does not pad"):
        DepthPreprocessing.from_processor(DPTImageProcessorPil(**SETTINGS, do_pad=True, size_divisor=32))


def test_every_map_is_scaled_over_its_own_range_and_a_constant_one_is_zero() -> None:
    maps = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[-7.0, -7.0], [-7.0, -7.0]], [[0.0, 1e-30], [0.0, 1e-30]]])
    expected = torch.tensor([[[0.0, 0.5], [0.25, 1.0]], [[0.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    torch.testing.assert_close(scale_depth(maps), expected)


def test_maps_are_resized_between_pixel_centres_without_antialiasing() -> None:
    ramp = torch.arange(8.0).expand(1, 8, 8)
    # The centre of pixel j of 2 lies at (j + 0.5) * 4 - 0.5.
    torch.testing.assert_close(resize_depth(ramp, 2)[0, 0], torch.tensor([1.5, 5.5]))
    spike = torch.zeros(1, 8, 8)
    spike[0, 0, 0] = 1
    assert resize_depth(spike, 2).abs().max() == 0


def test_patches_hold_their_pixels_row_by_row() -> None:
    depth = torch.arange(2 * 6 * 6.0).view(2, 6, 6)
    patches = depth_patches(depth, 3)
    assert patches.shape == (2, 4, 9)
    for row in range(2):
        for column in range(2):
            block = depth[:, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
            assert torch.equal(patches[:, 2 * row + column], block.reshape(2, 9))
