"""Checkpoints on the Hub: each complete one, as it was, whatever the run drops meanwhile."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hilam_hf.training import train
from hilam_hf.training.callbacks import pushing
from tests.training.runs import Points, make_line, options


class Hub:
    """Takes uploads as the Hub's client does, slowly: the files are read when the next one comes, or at the end."""

    def __init__(self, fail: bool = False):
        self.created: list[tuple[str, bool]] = []
        self.uploads: list[dict[str, bytes]] = []
        self.places: list[str] = []
        self.fail = fail
        self._threads = ThreadPoolExecutor(1)

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.created.append((repo_id, private))

    def upload_folder(self, *, folder_path: str, path_in_repo: str, **others: Any) -> Future[None]:
        assert others["run_as_future"] and others["delete_patterns"] == "*"
        self.places.append(path_in_repo)

        def read() -> None:
            if self.fail:
                raise OSError("no route to the Hub")
            files = sorted(path for path in Path(folder_path).rglob("*") if path.is_file())
            self.uploads.append({path.name: path.read_bytes() for path in files})

        return self._threads.submit(read)


@pytest.mark.parametrize("in_background", [False, True])
def test_every_checkpoint_is_uploaded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_background: bool
) -> None:
    hub = Hub()
    monkeypatch.setattr(pushing, "HfApi", lambda: hub)
    config = options(save_every=4, keep_checkpoints=1, push_to="ada/run", async_checkpoints=in_background)
    train(make_line(), Points(), config, output_dir=tmp_path)
    assert hub.created == [("ada/run", True)]
    assert hub.places == ["last-checkpoint"] * 3
    kept = {path.name: path.read_bytes() for path in (tmp_path / "checkpoint-12").iterdir()}
    assert hub.uploads[-1] == kept
    assert [b'"step": 4' in hub.uploads[0]["training_state.json"], len(hub.uploads)] == [True, 3]
    assert not list(tmp_path.glob(".push-*"))


def test_an_upload_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "HfApi", lambda: Hub(fail=True))
    with pytest.raises(OSError, match="no route to the Hub"):
        train(make_line(), Points(), options(save_every=4, push_to="ada/run"), output_dir=tmp_path)
    assert (tmp_path / "checkpoint-8").is_dir()


def test_pushing_needs_a_folder() -> None:
    with pytest.raises(ValueError, match="need an output_dir"):
        train(make_line(), Points(), options(push_to="ada/run"))
