"""A latent action model that the library does not know goes the whole way, by its name alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hilam_hf.data.corpora.corpus import latent_actions_array, load_corpus
from hilam_hf.data.corpora.extraction import extract_latent_actions
from hilam_hf.data.corpora.info import CorpusInfo
from hilam_hf.data.episodes import scan_videos
from hilam_hf.evaluation.lam.report import LamReportOptions, write_lam_report
from hilam_hf.models.hilam import HiLAMModel
from hilam_hf.models.latent_actions import (
    RegressionFDM,
    load_latent_action_model,
    register_latent_action_kind,
    unregister_latent_action_kind,
)
from hilam_hf.training import TrainingConfig
from hilam_hf.training.hilam import new_hilam, train_hilam
from hilam_hf.training.lam.runs import train_lam_on_videos
from hilam_hf.video import VideoReader, as_float_frames, write_video
from tests.models.latent_actions.toy import TOY, ToyIDM

NUM_FRAMES, STRIDE = 14, 2
CONFIG = TrainingConfig(max_steps=3, global_batch_size=4, warmup_steps=1, log_every=1)


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    register_latent_action_kind(TOY)
    yield
    unregister_latent_action_kind("toy")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of a square that moves right at different heights."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(4):
        frames = torch.zeros(NUM_FRAMES, 3, 32, 32, dtype=torch.uint8)
        for step in range(NUM_FRAMES):
            frames[step, :, 4 * number : 4 * number + 8, step : step + 8] = 255
        write_video(root / f"{number}.mp4", frames, 10)
    return root


@pytest.fixture(scope="module")
def lam(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lam")
    options = {"fdm.image_size": 16, "idm.gain": 3.0}
    train_lam_on_videos(videos, CONFIG, output_dir=folder, kind="toy", model_options=options, stride=STRIDE)
    return folder


@pytest.fixture(scope="module")
def corpus(videos: Path, lam: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    idm, _ = load_latent_action_model(lam)
    episodes = scan_videos(videos, progress=False).episodes
    extract_latent_actions(idm, episodes, folder, root=videos, model_name=str(lam), stride=STRIDE, progress=False)
    return folder


def test_it_is_fitted_trained_and_saved(lam: Path) -> None:
    idm, fdm = load_latent_action_model(lam)
    assert type(idm) is ToyIDM and type(fdm) is RegressionFDM
    assert (idm.config.gain, idm.config.image_size, fdm.config.image_size) == (3.0, 16, 16)
    assert not idm.needs_fit and idm.steps == CONFIG.max_steps
    history = json.loads((lam / "history.json").read_text())
    assert history["toy_pairs"] == [[1, 4.0], [2, 8.0], [3, 12.0]]


def test_the_report_measures_it(lam: Path, videos: Path, tmp_path: Path) -> None:
    options = LamReportOptions(stride=STRIDE, num_examples=2, num_transfers=1, transfer_length=1)
    report = write_lam_report(lam, videos, tmp_path, options, progress=False)
    assert report.num_pairs == 4 * (NUM_FRAMES - STRIDE)
    assert (tmp_path / "report.html").is_file()


def test_its_latent_actions_become_a_corpus(lam: Path, videos: Path, corpus: Path) -> None:
    idm, _ = load_latent_action_model(lam)
    rows = load_corpus(corpus)
    assert len(rows) == 4
    frames = as_float_frames(VideoReader(videos / rows[0]["video"], size=16).read(range(NUM_FRAMES)))
    expected = idm.encode_video(frames, stride=STRIDE)
    torch.testing.assert_close(torch.tensor(latent_actions_array(rows, 0)), expected, rtol=0, atol=1e-6)


def test_hilam_learns_from_it_and_takes_videos(lam: Path, videos: Path, corpus: Path, tmp_path: Path) -> None:
    idm, _ = load_latent_action_model(lam)
    info = CorpusInfo.from_card(corpus)
    train_hilam(new_hilam(info, "tiny", idm=idm), load_corpus(corpus), info, CONFIG, output_dir=tmp_path)
    hilam = HiLAMModel.from_pretrained(tmp_path / "hilam").eval()
    assert type(hilam.idm) is ToyIDM
    skills = hilam.extract_skills(str(videos / "0.mp4"))
    assert len(skills) == NUM_FRAMES - STRIDE
