"""What a stranger's file names is not read, and what it holds is not executed."""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from hilam_hf.data import CorpusInfo
from hilam_hf.data.corpora.corpus import write_skill_corpus
from hilam_hf.models.acting.language import LanguageEncoder, _packaged_folder
from hilam_hf.models.latent_actions.auto import AutoInverseDynamicsModel
from hilam_hf.models.uniskill.modeling_uniskill_idm import UniSkillIDM
from tests.cli.test_cli import run
from tests.models.uniskill.test_uniskill import tiny_fdm, tiny_idm
from tests.numbered_videos import MakeVideo

OUTSIDE = ["../secret.mp4", "{folder}/secret.mp4"]


def skill_corpus(folder: Path, video: str) -> Path:
    """A corpus of one episode whose row names this video."""
    row = {
        "id": "a",
        "fps": 10,
        "num_frames": 6,
        "latent_actions": np.zeros((4, 3), np.float32),
        "video": video,
        "stage1_boundaries": np.array([True, False, True, False]),
        "stage1_skills": np.zeros((2, 5), np.float32),
    }
    write_skill_corpus(
        folder, [row], info=CorpusInfo(model="lam", latent_dim=3, stride=2, kind="latent-skills", skill_dims={1: 5})
    )
    return folder


@pytest.mark.parametrize("named", OUTSIDE)
@pytest.mark.parametrize("command", ["view", "train hilam"])
def test_a_corpus_names_no_video_outside_of_the_folder_of_videos(
    tmp_path: Path, make_video: MakeVideo, capsys: pytest.CaptureFixture[str], command: str, named: str
) -> None:
    secret = make_video("secret.mp4", num_frames=6)
    videos = secret.parent / "videos"
    videos.mkdir()
    corpus = skill_corpus(tmp_path / "corpus", named.format(folder=secret.parent))
    options = ["--videos", videos, "--out", tmp_path / "out.html"]
    if command == "train hilam":
        tiny_fdm().save_pretrained(tmp_path / "fdm")
        options += ["--fdm", tmp_path / "fdm"]
    assert run(*command.split(), corpus, *options) == 1
    assert f"secret.mp4', which lies outside of {videos}" in capsys.readouterr().err
    assert not (tmp_path / "out.html").exists()


def add_code(folder: Path, model_type: str, *auto_classes: str) -> Path:
    """Gives a checkpoint code of its own; what it writes shows that it was run.

    Returns:
        The file that the code writes.
    """
    trace = folder / "was_run"
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": model_type, "auto_map": {name: "evil.Evil" for name in auto_classes}}
    (folder / "config.json").write_text(json.dumps(config))
    return trace


def test_code_of_a_model_is_not_run_by_a_command(
    tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = make_video("a.mp4", num_frames=6).parent
    tiny_idm().save_pretrained(tmp_path / "lam")
    trace = add_code(tmp_path / "lam", "evil", "AutoConfig", "AutoModel", "AutoInverseDynamicsModel")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    options = ["--model", tmp_path / "lam", "--stride", "2", "--out", tmp_path / "out"]
    assert run("extract", videos, *options) == 1
    assert "brings code of its own, which is never run" in capsys.readouterr().err
    assert not trace.exists()


def test_code_of_a_kind_that_is_known_is_not_run_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_idm().save_pretrained(tmp_path)
    trace = add_code(tmp_path, "uniskill_idm", "AutoConfig", "AutoModel", "AutoInverseDynamicsModel")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    assert isinstance(AutoInverseDynamicsModel.from_pretrained(tmp_path), UniSkillIDM)
    assert isinstance(AutoInverseDynamicsModel.from_pretrained(tmp_path, trust_remote_code=True), UniSkillIDM)
    assert not trace.exists()


def test_code_of_a_policys_language_encoder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(_packaged_folder(), tmp_path / "encoder", ignore=shutil.ignore_patterns("*.safetensors"))
    trace = add_code(tmp_path / "encoder", "evil", "AutoConfig", "AutoModel", "AutoTokenizer")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    with pytest.raises(OSError, match="brings code of its own, which is never run"):
        LanguageEncoder(str(tmp_path / "encoder")).encode(["open the drawer"])
    assert not trace.exists()


@pytest.mark.parametrize("named", ["../secret.safetensors", "{folder}/secret.safetensors"])
def test_an_index_of_weights_names_no_file_outside_of_its_checkpoint(tmp_path: Path, named: str) -> None:
    tiny_idm().save_pretrained(tmp_path / "idm")
    weights = tmp_path / "idm" / "model.safetensors"
    index = {"metadata": {}, "weight_map": {name: named.format(folder=tmp_path) for name in tiny_idm().state_dict()}}
    weights.rename(tmp_path / "secret.safetensors")
    (tmp_path / "idm" / "model.safetensors.index.json").write_text(json.dumps(index))
    for loader in (UniSkillIDM, AutoInverseDynamicsModel):
        with pytest.raises(ValueError, match=r"index\.json: names .*secret\.safetensors', which lies outside of"):
            loader.from_pretrained(tmp_path / "idm")


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    tiny_idm().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "kept")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(OSError, match=r"pytorch_model\.bin: pickled weights can execute code"):
        UniSkillIDM.from_pretrained(tmp_path)
