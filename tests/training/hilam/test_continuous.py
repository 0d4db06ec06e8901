"""Training of HiLAM on a corpus of continuous latent actions, with and without the reconstruction loss."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hilam_hf.data import CorpusInfo, load_corpus, write_latent_action_corpus
from hilam_hf.fingerprint import weights_fingerprint
from hilam_hf.models.hilam.configuration_hilam import HiLAMConfig
from hilam_hf.models.hilam.modeling_hilam import HiLAMModel
from hilam_hf.training import TrainingConfig
from hilam_hf.training.hilam import new_hilam, train_hilam
from hilam_hf.training.hilam.train import HiLAMLoss
from tests.models.uniskill.test_uniskill import SIZE, tiny_fdm, tiny_idm


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
    config = TrainingConfig(max_steps=4, global_batch_size=3, warmup_steps=1, log_every=2, save_every=2)
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

    sizes = ((SIZE, SIZE),)

    def read(self, episode: int, indices: list[int]) -> Tensor:
        return torch.tensor(indices, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, SIZE, SIZE)

    def fingerprint(self) -> str:
        return "still"


def test_the_reconstruction_loss_is_trained_through_a_frozen_forward_model(tmp_path: Path) -> None:
    info = make_corpus(tmp_path / "corpus")
    fdm = tiny_fdm(latent_dim=3)
    torch.nn.init.normal_(fdm.out_conv.weight, std=0.05)
    before = [parameter.clone() for parameter in fdm.parameters()]
    config = TrainingConfig(max_steps=4, global_batch_size=3, warmup_steps=1, log_every=1)
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


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stride_in_seconds_trains_with_reconstruction_and_resumes_bit_for_bit(
    tmp_path: Path, num_workers: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [
        {
            "id": str(n),
            "fps": fps,
            "num_frames": 20,
            "stride": k,
            "latent_actions": torch.randn(20 - k, 3, generator=generator),
        }
        for n, (fps, k) in enumerate([(5.0, 1), (10.0, 2), (30.0, 6)] * 2)
    ]
    info = write_latent_action_corpus(
        tmp_path / "corpus", rows, info=CorpusInfo(model="m", latent_dim=3, stride_seconds=0.2)
    )
    corpus = load_corpus(tmp_path / "corpus")
    fdm = tiny_fdm(latent_dim=3)
    config = TrainingConfig(
        max_steps=4, global_batch_size=3, warmup_steps=1, log_every=1, save_every=2, num_workers=num_workers
    )

    def run(folder: str, **options: bool) -> HiLAMModel:
        torch.manual_seed(0)
        model = new_hilam(info, "tiny", num_reconstruction_steps=4)
        options |= {"forward_dynamics": fdm, "frames": StillFrames()}
        return train_hilam(model, corpus, info, config, output_dir=tmp_path / folder, **options).model

    whole = run("whole")
    run("parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoint-4")
    resumed = run("parts", resume=True)
    for (name, left), right in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(left, right), name


def test_a_corpus_of_another_width_is_refused(tmp_path: Path) -> None:
    info = make_corpus(tmp_path / "corpus")
    with pytest.raises(ValueError, match="have 3 numbers, the model takes 4"):
        train_hilam(tiny_hilam(4), load_corpus(tmp_path / "corpus"), info, TrainingConfig(), output_dir=tmp_path)


def test_partners_of_another_latent_action_model_are_refused(tmp_path: Path) -> None:
    idm = tiny_idm()
    info = dataclasses.replace(make_corpus(tmp_path / "corpus"), model_fingerprint=weights_fingerprint(idm))
    corpus, config = load_corpus(tmp_path / "corpus"), TrainingConfig(max_steps=1)
    model = new_hilam(info, "tiny", idm=idm)
    assert model.config.idm_fingerprint == info.model_fingerprint
    # Of the same names and widths, but trained again.
    with torch.no_grad():
        next(idm.parameters()).mul_(2)
    with pytest.raises(ValueError, match=f"the corpus is of .* {info.model_fingerprint}, idm of "):
        new_hilam(info, "tiny", idm=idm)
    fdm = tiny_fdm(latent_dim=3)
    fdm.config.idm_fingerprint = weights_fingerprint(idm)
    options = {"output_dir": tmp_path / "run", "forward_dynamics": fdm, "frames": StillFrames()}
    with pytest.raises(ValueError, match=f"the forward dynamics model of {weights_fingerprint(idm)}"):
        train_hilam(model, corpus, info, config, **options)
    other = dataclasses.replace(info, model_fingerprint="c" * 16)
    with pytest.raises(ValueError, match=f"c{{16}}, the HiLAM model of {info.model_fingerprint}"):
        train_hilam(model, corpus, other, config, output_dir=tmp_path / "run")
    train_hilam(model, corpus, info, config, output_dir=tmp_path / "run")
    assert HiLAMModel.from_pretrained(tmp_path / "run" / "hilam").config.idm_fingerprint == info.model_fingerprint
