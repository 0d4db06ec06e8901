"""A demo's folder: what `--overwrite` removes, and what it does not."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from hilam_hf.demo import DemoConfig, run_demo
from hilam_hf.demo.paths import DemoPaths
from hilam_hf.demo.state import DemoRun
from hilam_hf.demo.video_steps import load_episodes
from hilam_hf.locks import LOCK_FILE, FolderInUseError, FolderLock


def start(folder: Path, *, overwrite: bool = False, **options: str) -> DemoRun:
    return DemoRun(DemoConfig(**options), folder, overwrite=overwrite, console=Console(quiet=True))


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("finished", [True, False])
def test_overwriting_removes_no_file_of_the_users(tmp_path: Path, finished: bool) -> None:
    run = start(tmp_path)
    write(tmp_path / "lam" / "idm" / "config.json")
    if finished:
        run.finish()
    own = write(tmp_path / "notes" / "thesis.txt")
    with pytest.raises(ValueError, match=r"not the demo's: notes/thesis\.txt; move them.* Nothing was removed"):
        start(tmp_path, overwrite=True)
    assert own.exists() and (tmp_path / "lam" / "idm" / "config.json").exists()
    own.unlink()
    start(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["demo.json"]


def test_overwriting_a_finished_demo_knows_every_file(tmp_path: Path) -> None:
    run = start(tmp_path)
    write(tmp_path / "lam" / "idm" / "config.json")
    run.finish()
    mine = [write(tmp_path / "lam" / f"{number}.txt") for number in range(7)]
    # A later run of the same options does not take them for its own.
    start(tmp_path).finish()
    with pytest.raises(ValueError, match=r"lam/0\.txt, .*lam/4\.txt and 2 more"):
        start(tmp_path, overwrite=True)
    assert all(path.exists() for path in mine)


def test_overwriting_keeps_the_videos_that_are_asked_for(tmp_path: Path) -> None:
    start(tmp_path)
    video = write(tmp_path / "recordings" / "videos" / "a.mp4")
    with pytest.raises(ValueError, match="which is to be removed; choose another --out"):
        start(tmp_path, overwrite=True, videos=str(video.parent))
    assert video.exists()


@pytest.mark.parametrize("text", ["{", "[]", "{}", "null"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_state_file_that_is_none_is_named(tmp_path: Path, text: str, overwrite: bool) -> None:
    write(tmp_path / "demo.json", text)
    with pytest.raises(ValueError, match=r"demo\.json: (not the state of a demo|no JSON|expected a JSON object)"):
        start(tmp_path, overwrite=overwrite)


def test_episodes_lie_in_the_folder_of_videos(tmp_path: Path) -> None:
    config, paths = DemoConfig(), DemoPaths(tmp_path)
    episode = {"id": "a", "language": None, "source": None, "fps": 10, "num_frames": 3, "height": 8, "width": 8}
    for path, inside in ((paths.recordings / "videos" / "a.mp4", True), (tmp_path / "a.mp4", False)):
        splits = {"training": [{**episode, "path": str(path), "metadata": {}}], "held_out": []}
        write(paths.episodes, json.dumps(splits))
        if inside:
            assert [each.path for each in load_episodes(config, paths)[0]] == [str(path)]
        else:
            with pytest.raises(ValueError, match=r"episodes\.json: names .*a\.mp4', which lies outside of"):
                load_episodes(config, paths)


def test_a_second_demo_in_the_folder_is_refused(tmp_path: Path) -> None:
    for overwrite in (False, True):
        with FolderLock(tmp_path, "hilam demo") as first, pytest.raises(FolderInUseError, match=str(tmp_path)):
            run_demo(DemoConfig.smallest(), tmp_path, overwrite=overwrite)
        assert not first.held and list(tmp_path.iterdir()) == []


def test_locks_are_no_files_of_anybodys(tmp_path: Path) -> None:
    """Neither the one that is held, nor those that writers leave who are killed."""
    with FolderLock(tmp_path, "hilam demo"):
        run = start(tmp_path)
        write(tmp_path / "corpora" / "latent-actions" / LOCK_FILE)
        run.finish()
        assert run.files == ["demo.json"]
        write(tmp_path / "lam" / LOCK_FILE)
        start(tmp_path, overwrite=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK_FILE, "demo.json"]
        with pytest.raises(FolderInUseError):
            FolderLock(tmp_path, "hilam demo").acquire()
