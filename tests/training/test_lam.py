"""Training of the latent action model and of HiLAM."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hilam_hf import AutoForwardDynamicsModel, AutoInverseDynamicsModel, HiLAMConfig, HiLAMModel
from hilam_hf.data import CorpusInfo, load_corpus, write_latent_action_corpus
from hilam_hf.training import TrainingConfig
from hilam_hf.training.hilam import HiLAMLoss, train_hilam
from hilam_hf.training.lam import LatentActionModel, train_lam
from tests.models.test_uniskill import SIZE, tiny_fdm, tiny_idm


class MovingBars(Dataset[dict[str, Tensor]]):
    """A bright bar that jumps left or right at random, so that only a latent action can tell where it will be."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        frames = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
        frames[0, :, :, 6:10] = 255
        start = 2 if index % 2 else 10
        frames[1, :, :, start : start + 4] = 255
        return {"frames": frames[0], "next_frames": frames[1], "index": torch.tensor(index)}


def test_the_pair_learns_a_latent_action_that_the_frame_alone_cannot_give(tmp_path: Path) -> None:
    idm, fdm = tiny_idm(), tiny_fdm(hidden_size=16)
    config = TrainingConfig(max_steps=120, batch_size=16, learning_rate=3e-3, warmup_steps=5)
    result = train_lam(idm, fdm, MovingBars(), config, output_dir=tmp_path)
    # Without listening to the latent, the best prediction is the mean of both outcomes: half of copying's error.
    assert result.history["loss"][-1][1] < 0.2
    loaded = AutoInverseDynamicsModel.from_pretrained(tmp_path / "idm").eval()
    frames = torch.rand(4, 3, SIZE, SIZE)
    torch.testing.assert_close(loaded.encode_video(frames), idm.encode_video(frames), rtol=0, atol=1e-6)
    AutoForwardDynamicsModel.from_pretrained(tmp_path / "fdm")


def test_models_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="must agree on latent_dim and image_size"):
        LatentActionModel(tiny_idm(), tiny_fdm(image_size=24))


def make_corpus(folder: Path, count: int = 6) -> CorpusInfo:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(count):
        # A constant third dimension must not become noise or a division by zero.
        latents = torch.randn(12 + number, 3, generator=generator).cumsum(0) * torch.tensor([1.0, 5.0, 0.0])
        rows.append({"id": str(number), "fps": 10.0, "num_frames": len(latents) + 2, "latent_actions": latents})
    return write_latent_action_corpus(folder, rows, info=CorpusInfo(model="m", latent_dim=3, stride=2))


def tiny_hilam(latent_dim: int = 3) -> HiLAMModel:
    torch.manual_seed(0)
    return HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=latent_dim, stride=2))


def test_hilam_takes_the_corpus_statistics_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    info = make_corpus(tmp_path / "corpus")
    corpus = load_corpus(tmp_path / "corpus")
    config = TrainingConfig(max_steps=4, batch_size=3, warmup_steps=1, log_every=2, save_every=2)
    whole = train_hilam(tiny_hilam(), corpus, info, config, output_dir=tmp_path / "whole").model
    torch.testing.assert_close(whole.latent_mean, torch.tensor(info.mean))
    assert whole.latent_std[2] == 1
    train_hilam(tiny_hilam(), corpus, info, config, output_dir=tmp_path / "parts")
    for path in (tmp_path / "parts" / "checkpoint-4").iterdir():
        path.unlink()
    (tmp_path / "parts" / "checkpoint-4").rmdir()
    resumed = train_hilam(tiny_hilam(), corpus, info, config, output_dir=tmp_path / "parts", resume=True).model
    for (name, left), right in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(left, right), name
    loaded = HiLAMModel.from_pretrained(tmp_path / "whole" / "hilam").eval()
    latents = torch.randn(1, 9, 3)
    torch.testing.assert_close(loaded(latents).predictions, whole(latents).predictions)


class StillFrames:
    """Frames whose brightness is their number, as `FrameStore` would read them."""

    def read(self, episode: int, indices: range) -> Tensor:
        return torch.tensor(list(indices), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, SIZE, SIZE)


def test_the_reconstruction_loss_is_trained_through_a_frozen_forward_model(tmp_path: Path) -> None:
    info = make_corpus(tmp_path / "corpus")
    fdm = tiny_fdm(latent_dim=3)
    torch.nn.init.normal_(fdm.out_conv.weight, std=0.05)
    before = [parameter.clone() for parameter in fdm.parameters()]
    config = TrainingConfig(max_steps=4, batch_size=3, warmup_steps=1, log_every=1)
    corpus = load_corpus(tmp_path / "corpus")
    options = {"output_dir": tmp_path / "run", "forward_dynamics": fdm, "frames": StillFrames()}
    result = train_hilam(tiny_hilam(), corpus, info, config, **options)
    for step, loss in result.history["loss"]:
        parts = {name: dict(values)[step] for name, values in result.history.items()}
        weights = result.model.config
        expected = parts["latent_loss"] + weights.lambda_rec * parts["reconstruction_loss"]
        assert loss == pytest.approx(expected + weights.lambda_ratio * parts["ratio_loss"], rel=1e-4)
        assert parts["reconstruction_loss"] > 0
    for old, new in zip(before, fdm.parameters(), strict=True):
        assert torch.equal(old, new)
    assert not HiLAMLoss(tiny_hilam(), fdm).train().forward_dynamics.training
    with pytest.raises(ValueError, match="both forward_dynamics and frames"):
        train_hilam(tiny_hilam(), corpus, info, config, output_dir=tmp_path / "x", forward_dynamics=fdm)


def test_a_corpus_of_another_width_is_refused(tmp_path: Path) -> None:
    info = make_corpus(tmp_path / "corpus")
    with pytest.raises(ValueError, match="have 3 numbers, the model takes 4"):
        train_hilam(tiny_hilam(4), load_corpus(tmp_path / "corpus"), info, TrainingConfig(), output_dir=tmp_path)
