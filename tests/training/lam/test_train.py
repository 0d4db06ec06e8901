"""Training of latent action models: every kind, two sizes, averaged weights, validation, exact resume."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model, ResNetConfig, ResNetModel

from hilam_hf.fingerprint import weights_fingerprint
from hilam_hf.models.lapa import LapaModel
from hilam_hf.models.latent_actions.auto import AutoForwardDynamicsModel, AutoInverseDynamicsModel
from hilam_hf.models.latent_actions.dynamics import ForwardDynamicsModel, InverseDynamicsModel
from hilam_hf.models.latent_actions.partners import idm_fingerprint
from hilam_hf.plugins import LATENT_ACTION_KINDS
from hilam_hf.training import TrainingConfig
from hilam_hf.training.lam.models import new_latent_action_model
from hilam_hf.training.lam.train import LatentActionModel, train_lam
from hilam_hf.training.lam.validation import NextFrameValidation
from tests.models.uniskill.test_fdm import save_editing_pipeline
from tests.models.uniskill.test_uniskill import SIZE, tiny_fdm, tiny_idm
from tests.training.lam.moving_bars import MovingBars

LIGHT_FDM = {"fdm.image_size": 16, "fdm.patch_size": 4, "fdm.hidden_size": 8, "fdm.num_blocks": 1}
OPTIONS: dict[str, dict[str, Any]] = {
    "uniskill": {
        "idm.image_size": 32,
        "idm.depth_model": None,
        "idm.hidden_size": 16,
        "idm.num_hidden_layers": 1,
        "idm.num_attention_heads": 2,
        "idm.latent_dim": 6,
        "fdm.image_size": 16,
        "fdm.num_inference_steps": 2,
    },
    "uniskill-light": {
        "idm.image_size": 32,
        "idm.hidden_size": 16,
        "idm.num_hidden_layers": 1,
        "idm.num_attention_heads": 2,
        **LIGHT_FDM,
    },
    "lapa": {
        "preset": "tiny",
        "image_size": 16,
        "patch_size": 4,
        "hidden_size": 16,
        "num_spatial_layers": 1,
        "num_temporal_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
        "quant_dim": 8,
    },
    "feature-difference": {"idm.image_size": 32, "idm.latent_dim": 2, "idm.grid_size": 2, **LIGHT_FDM},
}
Models = tuple[InverseDynamicsModel, ForwardDynamicsModel]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Folders in place of the Hub ids from which the kinds start, as model options."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("published")
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], layer_type="basic")
    ResNetModel(resnet).save_pretrained(root / "resnet")
    save_editing_pipeline(root / "editor")
    dinov2 = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    Dinov2Model(Dinov2Config(**dinov2, initializer_range=0.2)).save_pretrained(root / "dinov2")
    return {
        "uniskill": {"idm.resnet": str(root / "resnet"), "fdm.image_editor": str(root / "editor")},
        "feature-difference": {"idm.backbone": str(root / "dinov2")},
    }


@pytest.fixture(params=LATENT_ACTION_KINDS.built_in_names())
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def make_models(kind: str, published: dict[str, dict[str, str]], seed: int = 0) -> Models:
    return new_latent_action_model(kind, options=OPTIONS[kind] | published.get(kind, {}), seed=seed)


def bars_for(idm: Any, fdm: Any, **changes: Any) -> MovingBars:
    return MovingBars(fdm.config.image_size, idm.config.image_size, **changes)


def options(**changes: Any) -> TrainingConfig:
    return TrainingConfig(**{"max_steps": 4, "global_batch_size": 4, "warmup_steps": 1, "log_every": 2} | changes)


def run(models: Models, folder: Path, resume: bool = False, **changes: Any) -> Any:
    config = options(ema_decay=0.5, validate_every=3, save_every=2, **changes)
    held_out = bars_for(*models, start=3)
    return train_lam(*models, bars_for(*models), config, output_dir=folder, held_out=held_out, resume=resume)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def test_the_pair_learns_a_latent_action_that_the_frame_alone_cannot_give(tmp_path: Path) -> None:
    idm, fdm = tiny_idm(), tiny_fdm(hidden_size=16)
    config = TrainingConfig(max_steps=120, global_batch_size=16, learning_rate=3e-3, warmup_steps=5, ema_decay=0.9)
    result = train_lam(idm, fdm, MovingBars(), config, output_dir=tmp_path)
    # Without listening to the latent, the best prediction is the mean of both outcomes: half of copying's error.
    assert result.history["loss"][-1][1] < 0.2
    validation = NextFrameValidation(MovingBars(start=2))
    pairs = {name: torch.cat([batch[name] for batch in validation.batches]) for name in ("frames", "next_frames")}
    predicted = LatentActionModel(idm, fdm).eval().predict(**pairs)
    target, current = pairs["next_frames"] / 255, pairs["frames"] / 255
    assert (predicted - target).square().mean() < 0.2 * (current - target).square().mean()
    loaded = AutoInverseDynamicsModel.from_pretrained(tmp_path / "idm").eval()
    frames = torch.rand(4, 3, SIZE, SIZE)
    torch.testing.assert_close(loaded.encode_video(frames), idm.encode_video(frames), rtol=0, atol=1e-6)
    AutoForwardDynamicsModel.from_pretrained(tmp_path / "fdm")


@pytest.fixture
def _fresh_accelerate() -> Iterator[None]:
    """Accelerate takes one precision a process."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.fixture
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time of a run this short."""
    monkeypatch.setattr(NextFrameValidation, "_draw", lambda *_: None)


@pytest.mark.usefixtures("_fresh_accelerate", "_no_pictures")
def test_every_kind_trains_in_bf16_validates_and_is_saved_with_its_averaged_weights(
    kind: str, published: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    models = idm, fdm = make_models(kind, published)
    before = state(fdm)
    history = run(models, tmp_path, mixed_precision="bf16").history
    assert all(torch.isfinite(torch.tensor(value)) for entries in history.values() for _, value in entries)
    assert [step for step, _ in history["validation/error_vs_copy"]] == [3, 4]
    folders = (tmp_path, tmp_path) if kind == "lapa" else (tmp_path / "idm", tmp_path / "fdm")
    for model, folder in zip(models, folders, strict=True):
        assert_same(load_file(folder / "model.safetensors"), state(model))
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
        side = json.loads((folder / "preprocessor_config.json").read_text())["size"]["height"]
        assert side == model.config.image_size
    saved = AutoInverseDynamicsModel.from_pretrained(folders[0])
    assert idm_fingerprint(AutoForwardDynamicsModel.from_pretrained(folders[1])) == weights_fingerprint(saved)
    average = load_file(tmp_path / "checkpoint-4" / "average.safetensors")
    last = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    trained = dict(LatentActionModel(idm, fdm).named_parameters())
    assert average.keys() == {name for name, value in trained.items() if value.requires_grad}
    assert not any(name.startswith("fdm.vae") for name in average)
    assert all(torch.equal(trained[name], value) for name, value in average.items())
    assert any(not torch.equal(last[name], value) for name, value in average.items())
    assert any(not torch.equal(value, before[name]) for name, value in state(fdm).items())


@pytest.mark.usefixtures("_no_pictures")
def test_every_kind_resumes_bit_for_bit_with_average_and_validation(
    kind: str, published: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    whole_models, part_models = make_models(kind, published), make_models(kind, published)
    whole = run(whole_models, tmp_path / "whole")
    run(part_models, tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoint-4")
    again = make_models(kind, published)
    torch.manual_seed(99)  # whatever happened in between must not matter
    resumed = run(again, tmp_path / "parts", resume=True)
    for left, right in zip(whole_models, again, strict=True):
        assert_same(state(left), state(right))
    assert resumed.history == whole.history


@pytest.mark.usefixtures("_no_pictures")
def test_validation_changes_nothing_that_is_trained(
    kind: str, published: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    watched, plain = make_models(kind, published), make_models(kind, published)
    run(watched, tmp_path / "watched")
    train_lam(*plain, bars_for(*plain), options(ema_decay=0.5), output_dir=tmp_path / "plain")
    for left, right in zip(watched, plain, strict=True):
        assert_same(state(left), state(right))


def test_each_model_gets_the_frames_of_its_own_size() -> None:
    idm, fdm = tiny_idm(image_size=32), tiny_fdm()
    pairs = MovingBars(SIZE, 32)
    batch = {name: torch.stack([pairs[0][name], pairs[1][name]]) for name in pairs[0] if name != "index"}
    loss = LatentActionModel(idm, fdm)(**batch).loss
    latents = idm.encode(batch["idm_frames"] / 255, batch["idm_next_frames"] / 255)
    expected = fdm.loss(batch["frames"] / 255, latents, batch["next_frames"] / 255)
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"takes frames of 32 pixels, the forward one of 16, .* idm_size=32"):
        LatentActionModel(idm, fdm)(frames=batch["frames"], next_frames=batch["next_frames"])


def test_models_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="must agree on latent_dim, got 6 and 7"):
        LatentActionModel(tiny_idm(), tiny_fdm(latent_dim=7))


def test_a_frozen_inverse_model_stays_as_it_is_and_in_full_precision(
    published: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    idm, fdm = make_models("feature-difference", published)
    model = LatentActionModel(idm, fdm).train()
    assert not idm.training and fdm.training and model.idm_is_frozen
    train_lam(idm, fdm, bars_for(idm, fdm), options(max_steps=1), output_dir=tmp_path)
    # The components span what the bars do: the same latent action for the same jump, whatever the precision around it.
    pairs = bars_for(idm, fdm)
    batch = {name: torch.stack([pairs[0][name], pairs[1][name]]) for name in pairs[0] if name != "index"}
    seen: list[Tensor] = []
    fdm.loss = lambda frames, latents, next_frames: (seen.append(latents), latents.sum())[1]
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch)
    assert torch.equal(seen[0], idm.encode(batch["idm_frames"] / 255, batch["idm_next_frames"] / 255))
    before = state(idm)
    train_lam(idm, tiny_fdm(latent_dim=2), bars_for(idm, fdm), options(), output_dir=tmp_path / "again")
    assert_same(state(idm), before)


def test_lapas_scalars_are_logged_and_its_unused_codes_replaced_at_the_published_steps(
    published: dict[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lapa, _ = models = make_models("lapa", published)
    calls: list[int] = []
    refresh = LapaModel.refresh_codebook
    monkeypatch.setattr(LapaModel, "refresh_codebook", lambda self, size: (calls.append(size), refresh(self, size))[1])
    history = train_lam(*models, bars_for(*models), options(max_steps=21, log_every=7), output_dir=tmp_path).history
    assert calls == [4, 4]
    assert [step for step, _ in history["refreshed_codes"]] == [10, 20]
    assert [step for step, _ in history["perplexity"]] == [7, 14, 21]
    assert all(1 <= value <= lapa.config.codebook_size for _, value in history["perplexity"])
    assert not any(name.startswith(("codes", "vectors")) for name in history)


def test_validation_measures_against_copying_and_draws_a_picture(tmp_path: Path) -> None:
    fdm = tiny_fdm()  # at its start it copies
    result = train_lam(
        tiny_idm(),
        fdm.requires_grad_(False),
        MovingBars(),
        options(validate_every=2, learning_rate=1e-9),
        output_dir=tmp_path,
        held_out=MovingBars(),
    )
    history = result.history
    # A bar of 4 of 16 columns that jumps 4 columns away: 8 columns differ by the brightness, which is about 252.
    (_, copied), *_ = history["validation/copy_error"]
    assert copied == pytest.approx(8 / 16 * (252 / 255) ** 2, rel=0.01)
    assert history["validation/error_vs_copy"] == [(2, pytest.approx(1)), (4, pytest.approx(1))]
    assert history["validation/next_frame_error"][0][1] == pytest.approx(copied)
    pictures = sorted(path.name for path in (tmp_path / "validation").iterdir())
    assert pictures == ["step_00002.png", "step_00004.png"]
    with Image.open(tmp_path / "validation" / pictures[0]) as picture:
        picture.verify()


def test_validation_takes_a_bounded_set_from_end_to_end() -> None:
    class Counted(MovingBars):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[int] = []

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            self.asked.append(index)
            return super().__getitem__(index)

    pairs = Counted()
    validation = NextFrameValidation(pairs, num_pairs=8, batch_size=3)
    assert pairs.asked == [0, 9, 18, 27, 36, 45, 54, 63]
    assert [len(batch["frames"]) for batch in validation.batches] == [3, 3, 2]


def test_validation_on_nothing_is_refused(tmp_path: Path) -> None:
    class Empty(MovingBars):
        def __len__(self) -> int:
            return 0

    class Still(MovingBars):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            item = super().__getitem__(index)
            return item | {"next_frames": item["frames"]}

    with pytest.raises(ValueError, match="no held-out pairs"):
        NextFrameValidation(Empty())
    with pytest.raises(ValueError, match="nothing moves in the 32 held-out pairs"):
        NextFrameValidation(Still())
    with pytest.raises(ValueError, match="validate_every=2, but there is nothing held out"):
        train_lam(tiny_idm(), tiny_fdm(), MovingBars(), options(validate_every=2), output_dir=tmp_path)


def test_uniskill_starts_from_the_published_parts(published: dict[str, dict[str, str]]) -> None:
    idm, fdm = make_models("uniskill", published)
    folders = {name: Path(folder) for name, folder in published["uniskill"].items()}
    resnet = load_file(folders["idm.resnet"] / "model.safetensors")
    unet = load_file(folders["fdm.image_editor"] / "unet" / "diffusion_pytorch_model.safetensors")
    assert_same({name: idm.backbone.state_dict()[name] for name in resnet}, resnet)
    assert_same(fdm.unet.state_dict(), unet)
    assert idm.config.image_size == 2 * fdm.config.image_size
