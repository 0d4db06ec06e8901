"""The latent action model without training: principal components of frozen feature differences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    DeiTConfig,
    DeiTModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    IJepaConfig,
    IJepaModel,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
    ViTMSNConfig,
    ViTMSNModel,
)

from hilam_hf.models.feature_difference import FeatureDifferenceConfig, FeatureDifferenceIDM
from hilam_hf.models.hilam.configuration_hilam import HiLAMConfig
from hilam_hf.models.hilam.modeling_hilam import HiLAMModel
from hilam_hf.models.latent_actions.auto import AutoInverseDynamicsModel
from tests.models.mixins import ModelTesterMixin

PATCH, SIZE, WIDTH, LATENT = 4, 20, 16, 4
SIDE = SIZE // PATCH
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TINY: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": SIZE,
    "patch_size": PATCH,
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny DINOv2, in place of a Hub id."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("dinov2")
    # The published position vectors are for another image size than the one used, as here.
    Dinov2Model(Dinov2Config(**TINY | {"image_size": 28}, initializer_range=0.2)).save_pretrained(folder)
    return str(folder)


def make_idm(backbone: str, **changes: Any) -> FeatureDifferenceIDM:
    options = {"image_size": SIZE, "latent_dim": LATENT, "grid_size": 2, "hidden_size": WIDTH}
    return FeatureDifferenceIDM(FeatureDifferenceConfig(backbone=backbone, **options | changes)).eval()


def fitted_idm(backbone: str, **changes: Any) -> FeatureDifferenceIDM:
    return make_idm(backbone, **changes).fit([(torch.rand(40, 3, SIZE, SIZE), torch.rand(40, 3, SIZE, SIZE))])


def patch_tokens(backbone: str, frames: Tensor, **normalisation: list[float]) -> Tensor:
    """All of DINOv2's tokens in float64, with the normalisation written out."""
    mean = torch.tensor(normalisation.get("mean", IMAGENET_MEAN)).view(3, 1, 1).double()
    std = torch.tensor(normalisation.get("std", IMAGENET_STD)).view(3, 1, 1).double()
    with torch.no_grad():
        network = Dinov2Model.from_pretrained(backbone, dtype=torch.float64).eval()
        return network((frames.double() - mean) / std).last_hidden_state


class TestFeatureDifferenceIDM(ModelTesterMixin):
    model_class = FeatureDifferenceIDM
    auto_class = AutoInverseDynamicsModel

    @pytest.fixture(autouse=True)
    def _backbone(self, backbone: str) -> None:
        self.backbone = backbone

    def make_config(self) -> FeatureDifferenceConfig:
        return make_idm(self.backbone).config

    def make_inputs(self) -> dict[str, Any]:
        return {"frames": torch.rand(3, 3, SIZE, SIZE), "next_frames": torch.rand(3, 3, SIZE, SIZE)}

    def prepare_model(self, model: PreTrainedModel) -> None:
        model.fit([(torch.rand(10, 3, SIZE, SIZE), torch.rand(10, 3, SIZE, SIZE))])

    def test_gradients_reach_every_parameter(self, model: PreTrainedModel, inputs: dict[str, Any]) -> None:
        assert not list(model.parameters())
        assert not model(**inputs).latents.requires_grad
        frames = inputs["frames"].requires_grad_()
        model(frames, inputs["next_frames"]).latents.sum().backward()
        assert frames.grad.abs().sum() > 0


def adaptive_cells(size: int, cells: int) -> list[slice]:
    """Cell i of n spans the patches from floor(i * size / n) to ceil((i + 1) * size / n)."""
    return [slice(i * size // cells, -(-(i + 1) * size // cells)) for i in range(cells)]


@pytest.mark.parametrize("grid_size", [1, 2, 3, 5])
def test_grid_features_are_the_means_of_the_cells_patches(backbone: str, grid_size: int) -> None:
    frames = torch.rand(2, 3, SIZE, SIZE)
    patches = patch_tokens(backbone, frames)[:, 1:].reshape(2, SIDE, SIDE, WIDTH)
    cells = adaptive_cells(SIDE, grid_size)
    expected = torch.cat([patches[:, rows, columns].mean((1, 2)) for rows in cells for columns in cells], dim=1)
    features = make_idm(backbone, grid_size=grid_size).extract_features(frames)
    torch.testing.assert_close(features.double(), expected, rtol=0, atol=1e-5)


def test_mean_and_class_token_features(backbone: str) -> None:
    frames = torch.rand(2, 3, SIZE, SIZE)
    tokens = patch_tokens(backbone, frames)
    for pooling, expected in (("mean", tokens[:, 1:].mean(1)), ("cls", tokens[:, 0])):
        features = make_idm(backbone, pooling=pooling).extract_features(frames)
        torch.testing.assert_close(features.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("preprocessor", "mean", "std"),
    [
        ({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.5]}, [0.5, 0.4, 0.3], [0.2, 0.3, 0.5]),
        ({"image_mean": [0.5] * 3, "do_normalize": False}, [0.0] * 3, [1.0] * 3),
        ({"size": 4}, IMAGENET_MEAN, IMAGENET_STD),
    ],
)
def test_the_backbones_own_normalisation_is_used(
    backbone: str, tmp_path: Path, preprocessor: dict[str, Any], mean: list[float], std: list[float]
) -> None:
    Dinov2Model.from_pretrained(backbone).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    frames = torch.rand(2, 3, SIZE, SIZE)
    expected = patch_tokens(backbone, frames, mean=mean, std=std)[:, 0]
    features = make_idm(str(tmp_path), pooling="cls").extract_features(frames)
    torch.testing.assert_close(features.double(), expected, rtol=0, atol=1e-5)


BACKBONES: dict[str, tuple[type, type, dict[str, Any], int]] = {
    "registers": (Dinov2WithRegistersConfig, Dinov2WithRegistersModel, {"num_register_tokens": 3}, 4),
    "dinov3": (DINOv3ViTConfig, DINOv3ViTModel, {"num_register_tokens": 2}, 3),
    "vit": (ViTConfig, ViTModel, {"image_size": 28}, 1),
    "deit": (DeiTConfig, DeiTModel, {}, 2),
    "msn": (ViTMSNConfig, ViTMSNModel, {}, 1),
    "ijepa": (IJepaConfig, IJepaModel, {}, 0),
    "siglip": (SiglipVisionConfig, SiglipVisionModel, {"image_size": 28}, 0),
    "clip": (CLIPVisionConfig, CLIPVisionModel, {"image_size": 28}, 1),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_other_backbones_patch_tokens_are_found(name: str, tmp_path: Path) -> None:
    config_class, model_class, changes, prefix = BACKBONES[name]
    torch.manual_seed(0)
    network = model_class(config_class(**TINY | changes)).eval()
    network.save_pretrained(tmp_path)
    config = FeatureDifferenceConfig.from_backbone(str(tmp_path), image_size=SIZE, latent_dim=LATENT, grid_size=SIDE)
    assert config.hidden_size == WIDTH
    frames = torch.rand(2, 3, SIZE, SIZE)
    pixels = (frames - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    stretch = {"interpolate_pos_encoding": True} if changes.get("image_size") else {}
    with torch.no_grad():
        tokens = network(pixels, **stretch).last_hidden_state
    assert tokens.shape[1] == prefix + SIDE**2
    features = FeatureDifferenceIDM(config).extract_features(frames)
    torch.testing.assert_close(features, tokens[:, prefix:].flatten(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("whiten", [False, True])
def test_components_are_those_of_numpys_decomposition(backbone: str, whiten: bool) -> None:
    idm = make_idm(backbone, whiten=whiten).double()
    size, features = idm.config.feature_dim, torch.randn(200, idm.config.feature_dim).double()
    changes = torch.randn(200, size).double() * torch.linspace(3, 0.1, size) + 5
    idm.fit_features(zip(features.split(33), (features + changes).split(33), strict=True))

    centred = changes.numpy() - changes.numpy().mean(0)
    _, singular, rows = np.linalg.svd(centred, full_matrices=False)
    rows = rows[:LATENT] * np.sign(rows[np.arange(LATENT), np.abs(rows[:LATENT]).argmax(1)])[:, None]
    variances = singular[:LATENT] ** 2 / 199
    np.testing.assert_allclose(idm.mean.numpy(), changes.numpy().mean(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(idm.components.numpy(), rows, rtol=0, atol=1e-10)
    np.testing.assert_allclose(idm.explained_variance.numpy(), variances, rtol=1e-10)

    latents = idm.encode_features(features, features + changes).numpy()
    expected = centred @ rows.T / (np.sqrt(variances) if whiten else 1)
    np.testing.assert_allclose(latents, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(latents.var(0, ddof=1), np.ones(LATENT) if whiten else variances, rtol=1e-9)


def test_the_fit_does_not_depend_on_how_pairs_are_batched(backbone: str) -> None:
    idms = [make_idm(backbone).double() for _ in range(2)]
    features, next_features = torch.randn(2, 60, idms[0].config.feature_dim).double() + 100
    idms[0].fit_features([(features, next_features)])
    idms[1].fit_features((features[i : i + 1], next_features[i : i + 1]) for i in range(60))
    for name, value in idms[0].state_dict().items():
        torch.testing.assert_close(idms[1].state_dict()[name], value, rtol=0, atol=1e-10)


def pieces(video: Tensor, size: int) -> Iterator[Tensor]:
    yield from video.split(size)


@pytest.mark.parametrize("size", [1, 4, 100])
def test_fitting_videos_equals_fitting_their_pairs(backbone: str, size: int) -> None:
    videos, stride = [torch.rand(12, 3, SIZE, SIZE), torch.rand(9, 3, SIZE, SIZE)], 3
    from_videos = make_idm(backbone).double().fit_videos((pieces(video, size) for video in videos), stride)
    from_pairs = make_idm(backbone).double().fit([(video[:-stride], video[stride:]) for video in videos])
    for name, value in from_pairs.state_dict().items():
        torch.testing.assert_close(from_videos.state_dict()[name], value, rtol=0, atol=1e-9)


def test_fitting_videos_computes_the_features_of_each_frame_once(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    idm, seen = make_idm(backbone), []
    extract = idm.extract_features
    monkeypatch.setattr(idm, "extract_features", lambda frames: (seen.append(len(frames)), extract(frames))[1])
    idm.fit_videos([pieces(torch.rand(20, 3, SIZE, SIZE), 6)], stride=2)
    assert sum(seen) == 20


def test_8_bit_frames_are_fitted_as_the_floats_that_they_stand_for(backbone: str) -> None:
    frames = torch.randint(0, 256, (2, 20, 3, SIZE, SIZE), dtype=torch.uint8)
    bytes_idm = make_idm(backbone).fit([(frames[0], frames[1])])
    floats_idm = make_idm(backbone).fit([(frames[0] / 255, frames[1] / 255)])
    for name, value in floats_idm.state_dict().items():
        torch.testing.assert_close(bytes_idm.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("batch_size", [2, 100])
def test_encode_video_equals_encoding_every_pair(backbone: str, stride: int, batch_size: int) -> None:
    idm, frames = fitted_idm(backbone), torch.rand(9, 3, SIZE, SIZE)
    pairs = [idm.encode(frames[t : t + 1], frames[t + stride : t + stride + 1]) for t in range(9 - stride)]
    video = idm.encode_video(frames, stride, batch_size)
    assert video.shape == (9 - stride, LATENT) and video.dtype == torch.float32
    torch.testing.assert_close(video, torch.cat(pairs), rtol=0, atol=1e-5)


def scene(background: Tensor, row: int, column: int) -> Tensor:
    frame = background.clone()
    frame[:, row : row + PATCH, column : column + PATCH] = 0.9
    return frame


def test_latents_tell_motions_apart_whatever_the_background(backbone: str) -> None:
    motions = [((0, 0), (0, 8)), ((0, 0), (8, 0)), ((12, 12), (4, 12)), ((8, 8), (8, 16))]
    backgrounds = 0.2 + 0.02 * torch.rand(8, 3, SIZE, SIZE)
    starts = torch.stack([scene(background, *start) for start, _ in motions for background in backgrounds])
    ends = torch.stack([scene(background, *end) for _, end in motions for background in backgrounds])
    # Each motion and its reverse, so that the mean difference is zero.
    idm = make_idm(backbone, whiten=False).fit([(starts, ends), (ends, starts)])
    latents = torch.nn.functional.normalize(idm.encode(starts, ends), dim=1)
    cosines = (latents @ latents.T).view(4, 8, 4, 8)
    same = torch.eye(4, dtype=torch.bool).view(4, 1, 4, 1).expand_as(cosines)
    assert cosines[same].min() > 0.99 and cosines[~same].max() < 0.9
    torch.testing.assert_close(idm.encode(ends, starts), -idm.encode(starts, ends), rtol=0, atol=1e-5)
    torch.testing.assert_close(idm.encode(starts, starts), torch.zeros(32, LATENT), rtol=0, atol=1e-5)


def test_the_grid_tells_where_something_moved_and_the_mean_less_so(backbone: str) -> None:
    frames = torch.full((2, 3, SIZE, SIZE), 0.5)
    frames[1, :, :8, :8] += 0.3
    features = make_idm(backbone, grid_size=SIDE).extract_features(frames)
    change = (features[1] - features[0]).view(SIDE, SIDE, WIDTH).norm(dim=-1)
    assert change[:2, :2].min() > 2 * change[3:, 3:].max()


def test_the_checkpoint_holds_the_components_alone_and_loading_keeps_them(backbone: str, tmp_path: Path) -> None:
    idm = fitted_idm(backbone)
    idm.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == {"mean", "components", "explained_variance"}
    loaded = FeatureDifferenceIDM.from_pretrained(tmp_path)
    for name, value in idm.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)
    frames = torch.rand(2, 3, 3, SIZE, SIZE)
    torch.testing.assert_close(loaded.encode(*frames), idm.encode(*frames), rtol=0, atol=0)


def test_components_missing_from_a_checkpoint_are_not_made_up(backbone: str, tmp_path: Path) -> None:
    fitted_idm(backbone).save_pretrained(tmp_path)
    weights = {"mean": torch.zeros(4 * WIDTH)}
    config = FeatureDifferenceConfig.from_pretrained(tmp_path)
    loaded = FeatureDifferenceIDM.from_pretrained(None, config=config, state_dict=weights, strict=False)
    assert loaded.components.isnan().all() and loaded.explained_variance.isnan().all() and not loaded.mean.any()
    with pytest.raises(ValueError, match="2 missing keys"):
        FeatureDifferenceIDM.from_pretrained(None, config=config, state_dict=weights)


def test_hilam_owns_and_restores_it(backbone: str, tmp_path: Path) -> None:
    idm = fitted_idm(backbone)
    model = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=LATENT, idm_config=idm.config))
    model.idm.load_state_dict(idm.state_dict())
    model.save_pretrained(tmp_path)
    restored = HiLAMModel.from_pretrained(tmp_path).idm
    assert type(restored) is FeatureDifferenceIDM
    frames = torch.rand(6, 3, SIZE, SIZE)
    torch.testing.assert_close(restored.encode_video(frames, 2), idm.encode_video(frames, 2), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close(backbone: str, tmp_path: Path, dtype: torch.dtype) -> None:
    idm, frames = fitted_idm(backbone, whiten=False), torch.rand(2, 5, 3, SIZE, SIZE)
    expected = idm.encode(*frames)
    idm.save_pretrained(tmp_path)
    half = FeatureDifferenceIDM.from_pretrained(tmp_path, dtype=dtype)
    assert half.dtype == dtype and half.extract_features(frames[0].to(dtype)).dtype == torch.float32
    latents = half.encode(*frames.to(dtype))
    assert latents.dtype == dtype
    assert (latents.float() - expected).norm() < 0.05 * expected.norm()


def test_using_it_before_the_fit_is_refused(backbone: str) -> None:
    frames = torch.rand(2, 3, SIZE, SIZE)
    idm = make_idm(backbone)
    with pytest.raises(ValueError, match="Call fit"):
        idm.encode(frames, frames)
    assert idm.fit([(torch.rand(9, 3, SIZE, SIZE), torch.rand(9, 3, SIZE, SIZE))]) is idm
    assert torch.isfinite(idm.encode(frames, frames)).all()


def test_a_missing_backbone_is_named_in_one_line(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none"), "nobody/no-such-backbone"):
        idm = make_idm(name)  # needed at the first use only
        with pytest.raises(OSError, match=f"{name}.*give that folder as backbone") as caught:
            idm.extract_features(torch.rand(1, 3, SIZE, SIZE))
        assert "\n" not in str(caught.value)
        with pytest.raises(OSError, match=name):
            FeatureDifferenceConfig.from_backbone(name)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8), "divide 8-bit frames by 255"),
        (torch.zeros(1, 3, 8, 8), r"\(B, 3, 20, 20\)"),
        (torch.zeros(3, SIZE, SIZE), "must have shape"),
        (torch.zeros(1, 1, SIZE, SIZE), "must have shape"),
    ],
)
def test_wrong_frames_are_refused(backbone: str, frames: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted_idm(backbone).encode(frames, frames)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 22}, "multiple of the patch size 4.*such as 24"),
        ({"hidden_size": 32}, "hidden_size: got 32, but backbone .* has 16"),
        ({"grid_size": 6}, "at most the 5 patches to a side"),
        ({"num_channels": 1}, "num_channels: got 1, but backbone .* has 3"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(backbone: str, changes: dict[str, Any], message: str) -> None:
    idm = make_idm(backbone, **changes)
    size, channels = idm.config.image_size, idm.config.num_channels
    with pytest.raises(ValueError, match=message):
        idm.extract_features(torch.rand(1, channels, size, size))
    with pytest.raises(ValueError, match=message):
        FeatureDifferenceConfig.from_backbone(backbone, **{"image_size": SIZE, "latent_dim": LATENT} | changes)


def test_a_backbone_of_another_kind_or_without_what_pooling_needs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet", "hidden_sizes": [8, 16]}))
    with pytest.raises(ValueError, match=r"unknown kind 'resnet', expected one of .*dinov2"):
        FeatureDifferenceConfig.from_backbone(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip_vision_model"} | TINY))
    with pytest.raises(ValueError, match="has no class token"):
        FeatureDifferenceConfig.from_backbone(str(tmp_path), image_size=SIZE, latent_dim=LATENT, pooling="cls")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"} | TINY | {"patch_size": [4, 5]}))
    with pytest.raises(ValueError, match="expected square ones"):
        FeatureDifferenceConfig.from_backbone(str(tmp_path), image_size=SIZE, latent_dim=LATENT)


def test_a_preprocessor_of_other_channels_is_refused(backbone: str, tmp_path: Path) -> None:
    Dinov2Model.from_pretrained(backbone).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.5]}))
    with pytest.raises(ValueError, match="normalises 2 channels"):
        make_idm(str(tmp_path)).extract_features(torch.rand(1, 3, SIZE, SIZE))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dim": WIDTH + 1, "pooling": "mean"}, "latent_dim: got 17, expected at most 16"),
        ({"latent_dim": 0}, "latent_dim: got 0"),
        ({"grid_size": 0}, "grid_size: got 0"),
        ({"pooling": "max"}, "pooling"),
    ],
)
def test_a_bad_configuration_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StrictDataclassError, match=message):
        FeatureDifferenceConfig(**{"hidden_size": WIDTH} | changes)


def test_too_little_to_fit_is_refused(backbone: str) -> None:
    idm = make_idm(backbone)
    with pytest.raises(ValueError, match=rf"got {LATENT} pairs of frames, expected more than latent_dim \({LATENT}\)"):
        idm.fit([(torch.rand(LATENT, 3, SIZE, SIZE), torch.rand(LATENT, 3, SIZE, SIZE))])
    with pytest.raises(ValueError, match="got 0 pairs"):
        idm.fit([])
    with pytest.raises(ValueError, match="video 1 of 3 frames has no pair of frames 3 apart"):
        idm.fit_videos([[torch.rand(9, 3, SIZE, SIZE)], [torch.rand(3, 3, SIZE, SIZE)]], stride=3)
    with pytest.raises(ValueError, match="stride must be at least 1"):
        idm.fit_videos([], stride=0)
    assert idm.components.isnan().all()


def test_constant_videos_are_refused_in_spite_of_rounding(backbone: str) -> None:
    still = torch.rand(1, 3, SIZE, SIZE).expand(30, -1, -1, -1)
    with pytest.raises(ValueError, match="never change"):
        make_idm(backbone).fit_videos([pieces(still, 7)])
    features = torch.randn(50, 4 * WIDTH)
    noise = torch.randn(50, 4 * WIDTH) * 1e-6
    with pytest.raises(ValueError, match="never change"):
        make_idm(backbone).fit_features([(features, features + noise)])


def test_too_few_directions_are_refused(backbone: str) -> None:
    first, second = torch.rand(2, 3, 3, SIZE, SIZE)
    with pytest.raises(ValueError, match=r"60 pairs of frames span 2 directions, expected latent_dim \(4\)"):
        make_idm(backbone).fit([(first, second)] * 20)


@pytest.mark.parametrize("value", [torch.nan, 200.0, -1.0])
def test_frames_to_fit_must_be_in_range(backbone: str, value: float) -> None:
    frames = torch.rand(9, 3, SIZE, SIZE)
    frames[3, 1, 2, 2] = value
    with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
        make_idm(backbone).fit([(torch.rand(9, 3, SIZE, SIZE), frames)])


def test_other_bad_input_to_the_fit_is_refused(backbone: str) -> None:
    idm, features = make_idm(backbone), torch.randn(9, 4 * WIDTH)
    with pytest.raises(ValueError, match="must have the same shape"):
        idm.fit([(torch.rand(9, 3, SIZE, SIZE), torch.rand(8, 3, SIZE, SIZE))])
    with pytest.raises(ValueError, match=r"expected twice \(B, 64\)"):
        idm.fit_features([(features, features[:, 1:])])
    with pytest.raises(ValueError, match="NaN or infinite"):
        idm.fit_features([(features, features / 0)])


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives(backbone: str, tmp_path: Path) -> None:
    frames = torch.rand(2, 40, 3, SIZE, SIZE)
    idm = make_idm(backbone).fit([(frames[0], frames[1])])
    idm.save_pretrained(tmp_path)
    cuda = FeatureDifferenceIDM.from_pretrained(tmp_path).to("cuda")
    torch.testing.assert_close(cuda.encode(*frames.cuda()).cpu(), idm.encode(*frames), rtol=0, atol=1e-2)
    variance = cuda.fit([(frames[0], frames[1])]).explained_variance
    torch.testing.assert_close(variance.cpu(), idm.explained_variance, rtol=1e-2, atol=0)
